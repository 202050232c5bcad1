"""The words, and groups of up to three words, of a text, as token ids."""

import collections
import itertools
from collections.abc import Iterator

from circuits.lenses.neurons.triggers import counted_places
from circuits.models import Model, TokenBatch

Word = tuple[int, ...]
"""A word's token ids."""


def words_in(model: Model, ids: list[int]) -> list[Word]:
    """Token ids cut into words: a token goes on with the word before it where letters or digits meet without a space. Without a
    tokenizer every token is a word."""
    if model.tokenizer is None:
        return [(token,) for token in ids]
    found = list[list[int]]()
    before = ""
    for token, text in zip(ids, model.to_token_strings(ids), strict=True):
        if found and before[-1:].isalnum() and text[:1].isalnum():
            found[-1].append(token)
        else:
            found.append([token])
        before = text
    return [tuple(word) for word in found]


def text_words(model: Model, tokens: TokenBatch) -> list[list[Word]]:
    """The words of each row of a text, pads and the opening BOS left out."""
    counted = counted_places(model, tokens)
    return [words_in(model, ids[mask].tolist()) for ids, mask in zip(tokens.ids, counted, strict=True)]


def frequent_ngrams(rows: list[list[Word]], most: int, *, longest: int = 3) -> list[tuple[Word, ...]]:
    """The most frequent groups of one, two, … `longest` words in a row, as many of each length (or all that there are), `most`
    together; of equal ones the earlier."""
    found = list[tuple[Word, ...]]()
    for length in range(1, longest + 1):
        counts = collections.Counter(itertools.chain.from_iterable(_groups(row, length) for row in rows))
        share = (most - len(found)) // (longest + 1 - length)
        found += [group for group, _ in counts.most_common(share)]
    return found


def _groups(words: list[Word], length: int) -> Iterator[tuple[Word, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


def ids_of(words: tuple[Word, ...] | list[Word]) -> list[int]:
    """The token ids of words in a row."""
    return [*itertools.chain.from_iterable(words)]
