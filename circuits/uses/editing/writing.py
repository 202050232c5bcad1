"""How what a model writes is measured: how varied it is, and how like other texts (Meng et al. 2022)."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"\w+|[^\w\s]")
_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Of pairs and triples of words, in the mean of both."""


def words_of(text: str) -> list[str]:
    """The words and marks of a text."""
    return _WORD.findall(text)


def names(text: str, answer: str) -> bool:
    """Whether an answer stands in a text as whole words, large or small: `Rome` does not stand in `promenade`."""
    own, asked = words_of(text.lower()), words_of(answer.lower())
    return bool(asked) and any(own[start : start + len(asked)] == asked for start in range(len(own) - len(asked) + 1))


def ngram_entropy(text: str) -> float:
    """How varied a text is: the mean of the entropies, in bits, of its pairs of words (times 2/3) and of its triples (times
    4/3). A text that says one thing over and over is near 0. 0 for fewer than three words."""
    words = words_of(text)
    total = 0.0
    for size, weight in _WEIGHTS.items():
        counts = Counter(zip(*(words[start:] for start in range(size)), strict=False))
        every = counts.total()
        total += weight * -sum(count / every * math.log2(count / every) for count in counts.values()) if every else 0.0
    return total / len(_WEIGHTS)


def rarity(documents: Sequence[str]) -> dict[str, float]:
    """How much each word tells: ln((1 + documents) / (1 + those that hold it)) + 1."""
    holding = Counter(word for text in documents for word in {*map(str.lower, words_of(text))})
    return {word: math.log((1 + len(documents)) / (1 + count)) + 1 for word, count in holding.items()}


def likeness(text: str, others: Sequence[str], rare: Mapping[str, float]) -> float:
    """The cosine of the words of a text and of others together, each counted by its rarity; words without one do not count."""
    one, two = (_weighted(part, rare) for part in (text, " ".join(others)))
    product = sum(value * two.get(word, 0.0) for word, value in one.items())
    size = math.sqrt(sum(value**2 for value in one.values()) * sum(value**2 for value in two.values()))
    return product / size if size else 0.0


def _weighted(text: str, rare: Mapping[str, float]) -> dict[str, float]:
    counts = Counter(map(str.lower, words_of(text)))
    return {word: count * rare[word] for word, count in counts.items() if word in rare}
