"""Words of a small classifier as rationales in the prompt of a larger model (AMPLIFY, Ma et al. 2023), and what they bring."""

import dataclasses
import random
import re
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
from circuits.statistics import Effect, mcnemar, share_interval
from circuits.uses.attributing.attribute import Attributing, word_numbers
from circuits.uses.attributing.prompted import Prompted, check_names, shot
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples
from circuits.uses.classifying.words import spelt_texts

if TYPE_CHECKING:
    import pandas

CONDITIONS = ("none", "rationales", "random")
"""What stands with the texts that are shown: nothing, the words that count most, as many random words."""
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
    """As many others, drawn."""


@dataclasses.dataclass(frozen=True, eq=False)
class Amplified(Result, format="circuits-amplified"):
    """How often a larger model is right about texts when it is shown others without rationales, with the words that count most
    for a small classifier, and with random words."""

    model: str
    """The small classifier's."""
    larger: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    """What the classes are called in prompts."""
    method: str
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

    def p_value(self, other: str) -> float:
        """McNemar's one-sided exact test: the chance that rationales win on so many texts against another condition, where they
        change nothing.

        Args:
            other: "none" or "random".
        """
        own, theirs = self._right("rationales"), self._right(other)
        return mcnemar(int((own & ~theirs).sum()), int((~own & theirs).sum()))

    @property
    def summary(self) -> str:
        """How often it is right under each condition, and whether rationales help."""
        parts = [f"{name} {self.accuracy(name).effect:.0%}" for name in CONDITIONS]
        return (
            f"{self.larger} is right about {len(self.texts)} texts with rationales: {', '.join(parts)}; rationales beat none "
            f"with p = {self.p_value('none'):.2g}, random words with p = {self.p_value('random'):.2g}; the small classifier "
            f"{self.accuracy('small').effect:.0%}."
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
    shown: int = SHOTS,
    words: int = WORDS,
    how: Attributing | None = None,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Amplified:
    """Show a larger model the texts that a small classifier gets wrong most confidently, with the words that speak most for
    their own classes, and ask it for the classes of others; likewise without words and with random ones. Of the texts to show
    the last ones are left out where a model takes no more.

    Raises PromptError where a class has too few texts, and what the larger model raises.

    Args:
        classifier: the small one.
        pool: the texts that are chosen from; best ones it was not trained on.
        judged: the texts that are asked about.
        larger: who answers.
        name: what it is called.
        names: what the classes are called in prompts (default: as they are).
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
    while len(examples) > 1 and not all(larger.fits(shots(examples, called, one), judged.texts, called) for one in CONDITIONS):
        examples = examples[:-1]
    answers, report = torch.full((len(CONDITIONS), len(judged)), -1), progress or silent
    for row, condition in enumerate(CONDITIONS):
        before = shots(examples, called, condition)
        for at, text in enumerate(judged.texts):
            said = larger.classify(before, text, called, rationale=condition != "none")
            answers[row, at] = -1 if said is None else said
            report("asking the larger model", row * len(judged) + at + 1, len(CONDITIONS) * len(judged))
    small = classifier.logits(judged.texts, budget=budget).argmax(dim=1).cpu()
    about = {"model": classifier.model.name, "larger": name, "classes": classifier.classes, "names": called}
    labels = torch.tensor(judged.labelled(classifier.classes).labels)
    return Amplified(
        **about,
        method=how.method,
        examples=examples,
        texts=judged.texts,
        labels=labels,
        small=small,
        answers=answers,
        seed=seed,
    )


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
    there are too few), with the words that speak most for their own class and as many random ones, in an order that is drawn.

    Raises PromptError where a class has too few texts.

    Args:
        classifier: which gets them wrong.
        pool: the texts that are chosen from.
        shown: texts of each class.
        words: words of each text: such with letters or digits in them, each once.
        how: the method that picks them (default: direct attribution).
        seed: what is drawn by.
        budget: bytes that a pass may take, besides the model.
    """
    pool = pool.labelled(classifier.classes)
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
        able = {word.lower(): place for place, word in reversed(list(enumerate(one.words))) if re.search(r"\w", word)}
        strongest = sorted(able.values(), key=lambda place: -values[place])
        others = draw.sample(sorted(able.values()), min(words, len(able)))
        picked = [tuple(one.words[place] for place in places) for places in (strongest[:words], others)]
        prediction = int(predictions[at]) if surest[at] > 0 else pool.labels[at]
        found.append(ShownExample(pool.texts[at], pool.labels[at], prediction, surest[at], *picked))
    return tuple(found)


def shots(examples: Sequence[ShownExample], names: Sequence[str], condition: str) -> str:
    """Texts as they are shown, one below the other.

    Args:
        examples: the texts.
        names: what classes are called.
        condition: one of `CONDITIONS`.
    """
    words = {"none": lambda one: None, "rationales": lambda one: one.words, "random": lambda one: one.random}[condition]
    return "".join(f"{shot(one.text, words(one), names[one.label])}\n" for one in examples)
