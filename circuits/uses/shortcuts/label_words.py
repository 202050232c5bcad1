"""Words by how much they tell of the label, counted once over the training texts."""

import dataclasses
import functools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from circuits.errors import PromptError
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.forms import form_of

HEAD = 0.05
"""The share of words that are the head of the list (Du 2021)."""
ALIKE = 0.2
"""How much of their neighbours two words share at least, if one is to stand for the other."""


@dataclasses.dataclass(frozen=True)
class LabelWords:
    """The words of labelled texts by local mutual information with their class (Evert 2005; Du 2021), the largest first:

        LMI(w, y) = p(w, y) ln( p(y | w) / p(y) ),   in nats, over all words of all texts.

    A word's class is the one with which it has the most.
    """

    words: tuple[str, ...]
    labels: tuple[int, ...]
    lmi: tuple[float, ...]
    counts: tuple[int, ...]
    """How often each stands in the texts."""
    head: int
    """So many words are the head of the list."""
    neighbours: Mapping[str, Counter[tuple[int, str]]] = dataclasses.field(repr=False)
    """What stands before (-1) and behind (1) each word."""
    beside: Mapping[tuple[int, str], tuple[str, ...]] = dataclasses.field(repr=False)
    """The words that have a neighbour, in order."""

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """Each word's place in the list."""
        return {word: place for place, word in enumerate(self.words)}

    @functools.cached_property
    def in_head(self) -> frozenset[str]:
        """The words of the head."""
        return frozenset(self.words[: self.head])

    def label_of(self, word: str) -> int | None:
        """The class that a word goes along with; None for one that is not in the texts."""
        place = self.places.get(word)
        return None if place is None else self.labels[place]

    def counterpart(self, word: str) -> str | None:
        """The first of a word's counterparts; None where there is none."""
        return next(iter(self.counterparts(word)), None)

    def counterparts(self, word: str) -> list[str]:
        """The words of other classes that have a fifth of this one's neighbours in common, those first with most, of equal ones
        those with the larger LMI."""
        places = self.places
        own, label = self.neighbours[word], self.labels[places[word]]
        total = sum(own.values())
        alike: dict[str, float] = {}
        for key, count in own.items():
            for other in self.beside[key]:
                if self.labels[places[other]] != label and self.lmi[places[other]] > 0:
                    theirs = self.neighbours[other]
                    alike[other] = alike.get(other, 0.0) + min(count / total, theirs[key] / theirs.total())
        some = [other for other, much in alike.items() if much > ALIKE]
        return sorted(some, key=lambda other: (-round(alike[other], 9), places[other]))

    def stand_in(self, forms: Sequence[str], place: int, draw: random.Random) -> str | None:
        """A word drawn from those that stand behind the same word in some training text, or else in front of the same; None
        where there is no other."""
        before, behind = ["", *forms][place], [*forms, ""][place + 1]
        for key in ((-1, before), (1, behind)):
            others = [word for word in self.beside.get(key, ()) if word != forms[place] and word not in self.in_head]
            if others:
                return draw.choice(others)
        return None


def label_words(examples: Examples, *, head: float = HEAD) -> LabelWords:
    """Count the words of labelled texts, each text read once. Raises PromptError for a share that is none.

    Args:
        examples: the texts that a classifier is trained on.
        head: the share of words that are the head of the list; at least one word, and only such with some information.
    """
    if not 0 < head <= 1:
        raise PromptError(f"head={head}: expected a share of the words, above 0 and at most 1")
    classes = len(examples.classes)
    counts = [Counter[str]() for _ in range(classes)]
    neighbours: dict[str, Counter[tuple[int, str]]] = {}
    for text, label in zip(examples.texts, examples.labels, strict=True):
        forms = [form_of(word) for word in text.split()]
        counts[label].update(forms)
        for word, before, behind in zip(forms, ["", *forms], [*forms[1:], ""], strict=False):
            neighbours.setdefault(word, Counter()).update([(-1, before), (1, behind)])
    sums = [sum(one.values()) for one in counts]
    ranked = sorted((_best(word, counts, sums) for word in neighbours), key=lambda one: (-one[1], one[0]))
    informative = sum(much > 0 for _, much, _, _ in ranked)
    size = min(max(1, informative), max(1, round(head * len(ranked))))
    words, lmi, labels, totals = zip(*ranked, strict=True)
    beside: dict[tuple[int, str], list[str]] = {}
    for word in sorted(neighbours):
        for key in neighbours[word]:
            beside.setdefault(key, []).append(word)
    return LabelWords(words, labels, lmi, totals, size, neighbours, {key: tuple(some) for key, some in beside.items()})


def _best(word: str, counts: Sequence[Counter[str]], sums: Sequence[int]) -> tuple[str, float, int, int]:
    """A word, its largest LMI, the class with which it has it, and how often it is there."""
    own, whole = sum(one[word] for one in counts), sum(sums)

    def information(label: int) -> float:
        there = counts[label][word]
        return there / whole * math.log(there * whole / (own * sums[label])) if there else -math.inf

    label = max(range(len(counts)), key=information)
    return word, information(label), label, own
