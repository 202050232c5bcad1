"""Words of a small classifier as rationales in the prompt of a larger model (AMPLIFY, Ma et al. 2023), and what they bring."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.statistics import Effect, holm, mcnemar, paired_difference, share_interval
from circuits.uses.attributing.attribute import Attributing
from circuits.uses.attributing.prompted import Prompted, check_names
from circuits.uses.attributing.showing import CONDITIONS, SHOTS, WORDS, ShownExample, confused, fewer, shots
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples

if TYPE_CHECKING:
    import pandas

OTHERS = ("none", "random")
"""What rationales are compared with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Amplified(Result, format="circuits-amplified"):
    """How often a larger model is right about texts when it is shown others without rationales, with the words that count most
    for a small classifier, and with random words."""

    model: str
    """The small classifier's."""
    weights_sha256: str
    """Of the small classifier."""
    larger: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    """What the classes are called in prompts."""
    method: str
    wanted: int
    """Texts of each class that were to be shown; fewer are where the larger model takes no more."""
    pool: str
    """What they are chosen from."""
    examples: tuple[ShownExample, ...]
    texts: tuple[str, ...] = dataclasses.field(metadata=stored(axis="text"))
    labels: Int[Tensor, " text"]
    small: Int[Tensor, " text"]
    """What the small classifier says."""
    answers: Int[Tensor, "condition text"]
    """What the larger model says, in the order of `CONDITIONS`; -1 where it names no class."""
    seed: int = 0

    def __post_init__(self) -> None:
        if tuple(self.answers.shape) != (len(CONDITIONS), len(self.texts)) or not self.texts or not self.examples:
            raise CircuitsError("an amplified prompt's result needs examples, and an answer a condition and text")
        if len(self.labels) != len(self.texts) or len(self.small) != len(self.texts) or len(self.names) != len(self.classes):
            raise CircuitsError("an amplified prompt's result needs a label a text, and a name a class")

    def accuracy(self, condition: str) -> Effect:
        """The share of texts told right, with Wilson's 95 % interval.

        Args:
            condition: one of `CONDITIONS`, or "small" for the small classifier.
        """
        right = self._right(condition)
        return share_interval(float(right.double().mean()), len(right))

    def gain(self, other: str) -> Effect:
        """The share of texts told right with rationales less that of another condition, of the same texts, with Newcombe's 95 %
        interval; negative: rationales harm.

        Args:
            other: "none" or "random".
        """
        return paired_difference(self._right("rationales"), self._right(other))

    def p_value(self, other: str) -> float:
        """McNemar's two-sided exact test: the chance that rationales win or lose by so many texts against another condition,
        where they change nothing; corrected for both comparisons (Holm).

        Args:
            other: "none" or "random".
        """
        if other not in OTHERS:
            raise CircuitsError(f"rationales against {other!r}: expected {' or '.join(OTHERS)}")
        own, found = self._right("rationales"), []
        for theirs in map(self._right, OTHERS):
            found.append(mcnemar(int((own & ~theirs).sum()), int((~own & theirs).sum()), two_sided=True))
        return float(holm(torch.tensor(found, dtype=torch.float64))[OTHERS.index(other)])

    @property
    def shown(self) -> str:
        """How many texts of each class are shown, and how many were to be."""
        counts = [sum(one.label == label for one in self.examples) for label in range(len(self.classes))]
        said = f"{counts[0]} of each class"
        if len(set(counts)) > 1:
            said = ", ".join(f"{count} of {name}" for count, name in zip(counts, self.classes, strict=True))
            said += ", which favours the classes that are shown"
        less = f" (not {self.wanted} of each: {self.larger} takes no more)" if min(counts) < self.wanted else ""
        return f"{said}{less}, chosen from {self.pool}"

    @property
    def summary(self) -> str:
        """How often it is right under each condition, and whether rationales help."""
        parts = [f"{name} {self.accuracy(name).effect:.0%}" for name in CONDITIONS]
        gains = [
            f"{gain.effect:+.0%} [{gain.low:+.0%}, {gain.high:+.0%}] against {words} (p = {self.p_value(other):.2g})"
            for other, words in (("none", "none"), ("random", "random words"))
            for gain in (self.gain(other),)
        ]
        return (
            f"{self.larger} is right about {len(self.texts)} texts with rationales: {', '.join(parts)}; rationales bring "
            f"{', '.join(gains)}; the small classifier {self.accuracy('small').effect:.0%}."
        )

    def prompt(self, condition: str) -> str:
        """The texts as they are shown.

        Args:
            condition: one of `CONDITIONS`.
        """
        return shots(self.examples, self.names, condition)

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a text: its class, and what each condition says."""
        import pandas

        def named(places: Sequence[int]) -> list[str]:
            """The classes at these places."""
            return [self.classes[place] if place >= 0 else "" for place in places]

        columns = {"text": list(self.texts), "label": named(self.labels.tolist()), "small": named(self.small.tolist())}
        answers = {name: named(row) for name, row in zip(CONDITIONS, self.answers.tolist(), strict=True)}
        return pandas.DataFrame(columns | answers)

    def _right(self, condition: str) -> Tensor:
        if condition not in ("small", *CONDITIONS):
            raise CircuitsError(f"condition {condition!r}: expected small, {', '.join(CONDITIONS)}")
        return (self.small if condition == "small" else self.answers[CONDITIONS.index(condition)]) == self.labels


def amplify(
    classifier: Classifier,
    pool: Examples,
    judged: Examples,
    larger: Prompted,
    *,
    name: str,
    names: Sequence[str] = (),
    chosen_from: str = "given texts",
    shown: int = SHOTS,
    words: int = WORDS,
    how: Attributing | None = None,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Amplified:
    """Show a larger model the texts that a small classifier gets wrong most confidently, with the words that speak most for
    their own classes, and ask it for the classes of others; likewise without words and with random ones. Of the texts to show
    the last ones are left out where a model takes no more, as many of each class while there are two of one.

    Raises PromptError where a class has too few texts, and what the larger model raises.

    Args:
        classifier: the small one.
        pool: the texts that are chosen from; best ones it was not trained on.
        judged: the texts that are asked about.
        larger: who answers.
        name: what it is called.
        names: what the classes are called in prompts (default: as they are).
        chosen_from: what the pool is, for the result.
        shown: texts of each class that are shown.
        words: words of each.
        how: the method that picks them (default: direct attribution).
        seed: what random words and the order are drawn by.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    called, how = check_names(names, classifier.classes), how or Attributing(method="direct")
    if not len(judged) or words < 1:
        raise PromptError(f"{len(judged)} texts to ask about, {words} words: expected one or more of each")
    examples = confused(classifier, pool, shown, words=words, how=how, seed=seed, budget=budget)
    while not all(larger.fits(shots(examples, called, one), judged.texts, called) for one in CONDITIONS):
        if len(examples) == 1:
            break  # the larger model says itself that the prompt is too long
        examples = fewer(examples)
    answers, report = torch.full((len(CONDITIONS), len(judged)), -1), progress or silent
    for row, condition in enumerate(CONDITIONS):
        before = shots(examples, called, condition)
        for at, text in enumerate(judged.texts):
            said = larger.classify(before, text, called, rationale=condition != "none")
            answers[row, at] = -1 if said is None else said
            report("asking the larger model", row * len(judged) + at + 1, len(CONDITIONS) * len(judged))
    small = classifier.logits(judged.texts, budget=budget).argmax(dim=1).cpu()
    return Amplified(
        model=classifier.model.name,
        weights_sha256=classifier.model.fingerprint,
        larger=name,
        classes=classifier.classes,
        names=called,
        method=how.method,
        wanted=shown,
        pool=chosen_from,
        examples=examples,
        texts=judged.texts,
        labels=torch.tensor(judged.labelled(classifier.classes).labels),
        small=small,
        answers=answers,
        seed=seed,
    )
