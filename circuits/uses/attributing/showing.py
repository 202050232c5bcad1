"""Texts that a larger model is shown: those that a small classifier gets wrong, with the words that count most for it."""

import dataclasses
import random
import re
from collections.abc import Sequence

import torch

from circuits.errors import PromptError
from circuits.models.memory import BUDGET
from circuits.uses.attributing.attribute import Attributing, word_numbers
from circuits.uses.attributing.prompted import shot
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.forms import bare_of, form_of
from circuits.uses.classifying.words import spelt_texts

CONDITIONS = ("none", "rationales", "random")
"""What stands with the texts that are shown: nothing, the words that count most, as many random ones of the others."""
SHOTS, WORDS = 4, 3
"""Texts of each class that are shown, and words of each."""


@dataclasses.dataclass(frozen=True)
class ShownExample:
    """A text that is shown with its class."""

    text: str
    label: int
    prediction: int
    """The class that the small classifier gives it."""
    confidence: float
    """Its probability of that class less that of the text's own."""
    words: tuple[str, ...]
    """Those that speak most for the text's own class."""
    random: tuple[str, ...]
    """As many of its other words, drawn."""


def confused(
    classifier: Classifier,
    pool: Examples,
    shown: int,
    *,
    words: int = WORDS,
    how: Attributing | None = None,
    seed: int = 0,
    budget: int = BUDGET,
) -> tuple[ShownExample, ...]:
    """Of each class the texts that a classifier gets wrong most confidently (those that it gets right least confidently, where
    there are too few), with the words that speak most for their own class and as many random ones of the others, in an order
    that is drawn. Texts of a single word are passed over, and of those with fewer than twice as many words half are shown.

    Raises PromptError where a class has too few texts.

    Args:
        classifier: which gets them wrong.
        pool: the texts that are chosen from.
        shown: texts of each class.
        words: words of each text: such with letters or digits in them, each once, without the punctuation around them.
        how: the method that picks them (default: direct attribution).
        seed: what is drawn by.
        budget: bytes that a pass may take, besides the model.
    """
    pool = pool.labelled(classifier.classes)
    pool = pool[[place for place, text in enumerate(pool.texts) if len(_able(text.split())) > 1]]
    few = next((label for label in range(len(pool.classes)) if pool.labels.count(label) < shown), None)
    if few is not None or shown < 1:
        raise PromptError(f"{shown} texts of each class to show: {pool.classes[few or 0]} has {pool.labels.count(few or 0)}")
    chances = classifier.logits(pool.texts, budget=budget).double().softmax(dim=1).cpu()
    own = chances.gather(1, torch.tensor(pool.labels)[:, None])[:, 0]
    best, predictions = chances.masked_fill(
        torch.nn.functional.one_hot(torch.tensor(pool.labels), len(pool.classes)).bool(), -1
    ).max(dim=1)
    surest = (best - own).tolist()
    chosen = [
        place
        for label in range(len(pool.classes))
        for place in sorted((at for at, one in enumerate(pool.labels) if one == label), key=lambda at: -surest[at])[:shown]
    ]
    draw = random.Random(seed)
    draw.shuffle(chosen)
    spelt, labels = spelt_texts(classifier, [pool.texts[at] for at in chosen]), torch.tensor([pool.labels[at] for at in chosen])
    numbers = word_numbers(
        classifier, spelt, labels.to(classifier.model.device), how or Attributing(method="direct"), budget=budget
    )
    found = []
    for at, one, values in zip(chosen, spelt, numbers.numbers, strict=True):
        able = _able(one.words)
        strongest, most = sorted(able, key=lambda place: -values[place]), min(words, len(able) // 2)
        others = draw.sample(sorted(strongest[most:]), most)
        picked = [tuple(bare_of(one.words[place]) for place in places) for places in (strongest[:most], others)]
        prediction = int(predictions[at]) if surest[at] > 0 else pool.labels[at]
        found.append(ShownExample(pool.texts[at], pool.labels[at], prediction, surest[at], *picked))
    return tuple(found)


def fewer(examples: Sequence[ShownExample]) -> tuple[ShownExample, ...]:
    """Without the last one of each class; where there is but one of each, without the last one."""
    labels = [one.label for one in examples]
    if len(set(labels)) == len(labels):
        return tuple(examples[:-1])
    last = {len(labels) - 1 - labels[::-1].index(label) for label in set(labels)}
    return tuple(one for place, one in enumerate(examples) if place not in last)


def shots(examples: Sequence[ShownExample], names: Sequence[str], condition: str) -> str:
    """Texts as they are shown, one below the other.

    Args:
        examples: the texts.
        names: what classes are called.
        condition: one of `CONDITIONS`.
    """
    words = {"none": lambda one: None, "rationales": lambda one: one.words, "random": lambda one: one.random}[condition]
    return "".join(f"{shot(one.text, words(one), names[one.label])}\n" for one in examples)


def _able(words: Sequence[str]) -> list[int]:
    """The places of words with letters or digits in them, of equal ones the first."""
    found = {form_of(word): place for place, word in reversed(list(enumerate(words))) if re.search(r"\w", word)}
    return list(found.values())
