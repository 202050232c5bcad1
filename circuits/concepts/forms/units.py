"""What concepts and neurons are masks over: the words or tokens of a text, each with the token that a model is read at."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.lenses.explaining.rules import words_of
from circuits.models import Model, TokenBatch
from circuits.probes.reading import WordText
from circuits.tasks.sources.conllu import Sentence, Word

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_NUMBER = re.compile(r"[-_.:]?\d+$")
"""What tells the sentences of one document apart, at the end of their `sent_id`."""
_BLOCK = 10
"""Sentences that are taken for one document where nothing says which belong together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """Words or tokens in the order of the text, and the rows of tokens in which they stand."""

    rows: tuple[tuple[int, ...], ...]
    row: Int[Tensor, " unit"]
    column: Int[Tensor, " unit"]
    """The token that stands for a word: its last one, which has seen all of it."""
    forms: tuple[str, ...]
    """How each is written, without white space around it."""
    document: Int[Tensor, " unit"]
    words: tuple[Word, ...] | None = None
    """The annotated words, where the text has annotations."""
    kind: Literal["words", "tokens"] = "words"

    def __len__(self) -> int:
        return len(self.forms)

    def lines(self) -> Iterator[range]:
        """The units of each row, in order."""
        start = 0
        for _, group in itertools.groupby(self.row.tolist()):
            count = sum(1 for _ in group)
            yield range(start, start + count)
            start += count

    def context(self, unit: int, *, before: int = 8, after: int = 3) -> str:
        """A unit between brackets, with the ones around it in its row."""
        around = [at for at in range(unit - before, unit + after + 1) if 0 <= at < len(self) and self.row[at] == self.row[unit]]
        return " ".join(f"[[{self.forms[at]}]]" if at == unit else self.forms[at] for at in around)

    def halves(self, seed: int) -> Bool[Tensor, " unit"]:
        """Units of about half of the documents, drawn: forms are chosen on these, and tried on the others."""
        counts = self.document.bincount()
        order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
        before = counts[order].cumsum(dim=0) - counts[order] / 2
        chosen = torch.zeros(len(counts), dtype=torch.bool)
        chosen[order] = before < len(self) / 2
        return chosen[self.document]

    @classmethod
    def of_sentences(cls, text: WordText) -> "Units":
        """The words of annotated sentences that have a token of their own."""
        last = [{word: column for column, word in enumerate(one.owners)} for one in text.aligned]
        places = text.places
        words = tuple(text.aligned[number].sentence.words[word] for number, word in places)
        documents = documents_of(text.sentences)
        return cls(
            rows=tuple(one.ids for one in text.aligned),
            row=torch.tensor([number for number, _ in places]),
            column=torch.tensor([last[number][word] for number, word in places]),
            forms=tuple(word.form for word in words),
            document=torch.tensor([documents[number] for number, _ in places]),
            words=words,
        )

    @classmethod
    def of_rows(cls, model: Model, tokens: TokenBatch, *, words: bool) -> "Units":
        """The tokens of a text's rows, without what opens them; or the words that these tokens spell. Raises PromptError where
        there are none."""
        opening, rows = len(model.opening()), [ids[mask].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
        places, forms = list[tuple[int, int]](), list[str]()
        for row, ids in enumerate(rows):
            spelt = model.to_token_strings(ids[opening:])
            found = _words(spelt) if words else [*enumerate(words_of(spelt))]
            places += [(row, opening + column) for column, _ in found]
            forms += [form for _, form in found]
        if not places:
            raise PromptError("the text has no words: give a longer one")
        row, column = torch.tensor(places).T
        return cls(tuple(map(tuple, rows)), row, column, tuple(forms), row, kind="words" if words else "tokens")


def documents_of(sentences: Sequence[Sentence]) -> list[int]:
    """The document of each sentence, by what its `sent_id` begins with; ten sentences in a row where that tells nothing."""
    names = [_NUMBER.sub("", sentence.name) for sentence in sentences]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if 2 <= len(number) < len(sentences):
        return [number[name] for name in names]
    return [place // _BLOCK for place in range(len(sentences))]


def words_in(text: str) -> list[str]:
    """The words of a text, and its punctuation marks."""
    return _WORD.findall(text)


def _words(tokens: Sequence[str]) -> list[tuple[int, str]]:
    """The words that tokens spell, each with the token that its last letter stands in."""
    ends = [*itertools.accumulate(map(len, tokens))]
    found, at = list[tuple[int, str]](), 0
    for match in _WORD.finditer("".join(tokens)):
        while ends[at] < match.end():
            at += 1
        if found and found[-1][0] == at:  # one token spells several: it is read as the last of them
            found.pop()
        found.append((at, match[0]))
    return found
