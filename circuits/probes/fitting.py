"""A probe at one place: fitted, its penalty chosen, judged, beside its control task."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.probes.codelength import online_bits
from circuits.probes.controls import WordTypes
from circuits.probes.regression import Problem, Scale, Turned, fit_logistic, scores_of
from circuits.probes.splitting import Split

PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Among these the penalty is chosen, the strongest first."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of every place: labels, those of the control task of each seed, how each seed splits the words, and how
    words that are judged on were seen."""

    labels: Int[Tensor, " word"]
    classes: int
    sentence: Int[Tensor, " word"]
    controls: tuple[Int[Tensor, " word"], ...]
    splits: tuple[Split, ...]
    seen: tuple[Bool[Tensor, " judge"], ...]

    @classmethod
    def of(
        cls,
        labels: Int[Tensor, " word"],
        sentence: Int[Tensor, " word"],
        types: WordTypes,
        splits: Sequence[Split],
        seeds: Sequence[int],
    ) -> "Asked":
        """With a control task a seed."""
        controls = tuple(types.control(labels, seed=seed) for seed in seeds)
        seen = tuple(types.seen(split.train, split.judge) for split in splits)
        return cls(labels, int(labels.max()) + 1, sentence, controls, tuple(splits), seen)

    def of_first_seed(self) -> "Asked":
        """The same with one seed."""
        return dataclasses.replace(self, controls=self.controls[:1], splits=self.splits[:1], seen=self.seen[:1])


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe: it reads vectors as they are at its place."""

    scale: Scale
    weights: Float[Tensor, "row class"]
    penalty: float

    def scores(self, x: Float[Tensor, "word width"]) -> Float[Tensor, "word class"]:
        """Log-odds of each class (up to a constant a word)."""
        return scores_of(self.scale.apply(x), self.weights)

    @property
    def directions(self) -> Float[Tensor, "direction width"]:
        """An orthonormal basis of what the probe reads: moving along all other directions leaves its answer as it is. One
        direction fewer than classes at most."""
        rows = self.weights[:-1] / self.scale.deviation[:, None]
        rows = (rows - rows.mean(dim=1, keepdim=True)).double()
        left, sizes, _ = torch.linalg.svd(rows, full_matrices=False)
        return left[:, sizes > 1e-6 * sizes[0]].T.to(self.weights.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """How a place did: answers and whether they are right, a row a seed."""

    answers: Int[Tensor, "seed judge"]
    right: Float[Tensor, "seed judge"]
    control_right: Float[Tensor, "seed judge"]
    """NaN where the control task was not asked."""
    bits: float
    """Of the online code, a word; NaN where it was not asked."""
    probe: LinearProbe
    """That of the first seed."""

    def as_parts(self) -> dict[str, Any]:
        """The same as plain values and tensors."""
        scale = {field.name: getattr(self.probe.scale, field.name) for field in dataclasses.fields(Scale)}
        probe = {"scale": scale, "weights": self.probe.weights, "penalty": self.probe.penalty}
        rows = {name: getattr(self, name) for name in ("answers", "right", "control_right", "bits")}
        return {**rows, "probe": probe}

    @classmethod
    def of_parts(cls, parts: Mapping[str, Any]) -> "Judged":
        """From what `as_parts` gives."""
        probe = parts["probe"]
        return cls(**{**parts, "probe": LinearProbe(**{**probe, "scale": Scale(**probe["scale"])})})


def judge_place(x: Float[Tensor, "word width"], asked: Asked, *, controls: bool = True, codelength: bool = True) -> Judged:
    """Fit the probe of each seed and its control task, and judge them on words that none has seen. The penalty is the one with
    which the first seed's probe has the least loss on its development words, where shares of right answers would be decided
    by a few of them; it serves all others."""
    first: LinearProbe | None = None
    answers, right, control_right, bits = [], [], [], float("nan")
    for split, control in zip(asked.splits, asked.controls, strict=True):
        scale = Scale.of(x[split.train])
        train, judged = scale.apply(x[split.train]), scale.apply(x[split.judge])
        turned, labels, gold = Turned.of(train), asked.labels[split.train], asked.labels[split.judge]
        penalties = PENALTIES if first is None else (first.penalty,)
        problems = [Problem(labels, penalty) for penalty in penalties]
        fitted = fit_logistic(turned, problems, classes=asked.classes)
        best = 0 if first is not None else _best(scale.apply(x[split.develop]), fitted, asked.labels[split.develop])
        weights, penalty = fitted[best], penalties[best]
        answers.append(scores_of(judged, weights).argmax(dim=1))
        right.append((answers[-1] == gold).double())
        control_right.append(torch.full_like(right[-1], torch.nan))
        if controls:
            problem = Problem(control[split.train], penalty)
            by_heart = fit_logistic(turned, [problem], classes=asked.classes)[0]
            control_right[-1] = (scores_of(judged, by_heart).argmax(dim=1) == control[split.judge]).double()
        if first is None and codelength:
            sentence = asked.sentence[split.train]
            bits = online_bits(train, labels, sentence, classes=asked.classes, penalty=penalty, turned=turned)
        first = first or LinearProbe(scale, weights, penalty)
    assert first is not None
    return Judged(torch.stack(answers), torch.stack(right), torch.stack(control_right), bits, first)


def _best(x: Tensor, fitted: Sequence[Tensor], labels: Tensor) -> int:
    """Which probe gives the labels the largest chances; of equal ones the first."""
    losses = [float(F.cross_entropy(scores_of(x, weights), labels)) for weights in fitted]
    return losses.index(min(losses))


def class_f1(answers: Int[Tensor, " judge"], gold: Int[Tensor, " judge"], classes: int) -> Float[Tensor, " class"]:
    """The harmonic mean of precision and recall of each class; NaN for one that no judged word has."""
    counts = torch.zeros(classes, classes, dtype=torch.float64)
    counts.index_put_((gold, answers), torch.ones(len(gold), dtype=torch.float64), accumulate=True)
    sizes = counts.sum(dim=1) + counts.sum(dim=0)
    return torch.where(counts.sum(dim=1) > 0, 2 * counts.diagonal() / sizes, torch.nan)


def macro_f1(answers: Int[Tensor, " judge"], gold: Int[Tensor, " judge"], classes: int) -> float:
    """F1, averaged over the classes that judged words have."""
    return float(class_f1(answers, gold, classes).nanmean())
