"""How early in training a classifier leans on the words that tell most of the label."""

import dataclasses
import random
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.statistics import Effect, bootstrap, share_interval
from circuits.uses.attributing.attribute import Attributing
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.shortcuts.attributed import Attributed, attributed
from circuits.uses.shortcuts.label_words import HEAD, LabelWords, label_words
from circuits.uses.shortcuts.swapping import swapped

WATCHED = 64
"""Texts whose attributions are looked at while a classifier is trained, at most."""


@dataclasses.dataclass(frozen=True)
class EarlyStep:
    """After so many steps: the share of texts whose top attributed word lies in the head, and the share that is right."""

    step: int
    in_head: Effect
    accuracy: dict[str, Effect]


@dataclasses.dataclass(eq=False)
class Watching:
    """Looks at a classifier while it is trained: its method `seen` is what `train_all(seen=...)` calls. Steps that are not
    asked for cost nothing.

    Args:
        words: those of the training texts.
        texts: texts whose attributions are looked at.
        splits: texts that it is judged on, by name.
        steps: after which steps.
        early: after this step the attributions of `training` are kept, for the shortcut degree.
        training: training texts whose shortcut degree is asked for.
        how: the method of the attributions (default: input times gradient from the mean embedding).
    """

    words: LabelWords
    texts: Examples
    splits: Mapping[str, Examples]
    steps: frozenset[int]
    early: int = 0
    training: Examples | None = None
    how: Attributing | None = None
    found: list[EarlyStep] = dataclasses.field(default_factory=list)
    first: Attributed | None = None

    @classmethod
    def over(
        cls,
        steps: int,
        train: Examples,
        judged: Examples,
        *,
        head: float = HEAD,
        how: Attributing | None = None,
        seed: int = 0,
    ) -> "Watching":
        """After 1, 2, 4, 8 … of so many steps and at the end, on some of the judged texts; the shortcut degree is that of some
        training texts, early meaning after a tenth of the steps."""
        times = {2**power for power in range(steps.bit_length()) if 2**power <= steps} | {steps}
        words, draw = label_words(train, head=head), random.Random(seed)
        some, those = (split[sorted(draw.sample(range(len(split)), min(WATCHED, len(split))))] for split in (judged, train))
        top = words.words[: words.head]
        swaps = {word: (words.labels[place], words.counterpart(word)) for place, word in enumerate(top)}
        splits = {"as they are": judged, "head flipped": swapped(judged, swaps, "flipped", seed=seed)}
        return cls(words, some, splits, frozenset(times), max(1, steps // 10), those, how)

    def seen(self, step: int, classifier: Classifier) -> None:
        """Note how things stand after a step."""
        if self.training is not None and step == self.early:
            self.first = attributed(classifier, self.training.texts, torch.tensor(self.training.labels), how=self.how)
        if step not in self.steps:
            return
        predicted = classifier.logits(self.texts.texts).argmax(dim=1)
        top = attributed(classifier, self.texts.texts, predicted, how=self.how).top
        share = sum(word in self.words.in_head for word in top) / len(top)
        accuracy = {name: accuracy_of(classifier, split) for name, split in self.splits.items()}
        self.found.append(EarlyStep(step, share_interval(share, len(top)), accuracy))

    def degree(self, classifier: Classifier, words: LabelWords) -> Effect | None:
        """The mean shortcut degree of the training texts of the classifier that came of it, with its bootstrap interval; None
        where it was not asked for."""
        if self.training is None or self.first is None:
            return None
        last = attributed(classifier, self.training.texts, torch.tensor(self.training.labels), how=self.how)
        return bootstrap(shortcut_degrees(self.first, last, words))


def accuracy_of(classifier: Classifier, examples: Examples) -> Effect:
    """The share of texts that a classifier is right on, with Wilson's interval."""
    right = hits(classifier, examples)
    return share_interval(float(right.double().mean()), len(right))


def hits(classifier: Classifier, examples: Examples) -> Int[Tensor, " text"]:
    """1 for each text that a classifier is right on, 0 for the others."""
    labels = torch.tensor(examples.labelled(classifier.classes).labels)
    return (classifier.logits(examples.texts).argmax(dim=1).cpu() == labels).long()


def shortcut_degrees(first: Attributed, last: Attributed, words: LabelWords) -> Float[Tensor, " text"]:
    """The shortcut degree of each training text (Du 2021), 0 to 1: the mean of whether its top attributed word lies in the
    head, and of the cosine between what words add early in training and at its end (below 0 counts as 0)."""
    found = []
    for early, late, top in zip(first.values, last.values, last.top, strict=True):
        alike = torch.nn.functional.cosine_similarity(early.double(), late.double(), dim=0)
        found.append((float(top in words.in_head) + max(0.0, float(alike))) / 2)
    return torch.tensor(found, dtype=torch.float64)
