"""Explanations of neurons as results: one with its excerpts, and a table of many."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.graph import Node
from circuits.lenses.explaining.excerpts import Excerpt
from circuits.lenses.explaining.scores import Correlation, correlation


@dataclasses.dataclass(frozen=True)
class ExplanationScore:
    """How well an explanation foretells the neuron on held-out excerpts: those with its largest activations, random ones, and
    both together."""

    top: Correlation
    random: Correlation
    together: Correlation


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronExplanation(Result, format="circuits-explanation"):
    """What a neuron looks for, in words, tested: what a simulator expects of it by these words alone beside what it does."""

    model: str
    weights_sha256: str
    neuron: str
    explanation: str
    explainer: str
    """`rule`, `model:DIR`, `endpoint:URL`, or the name of a function."""
    simulator: str
    scale: float
    """The activation that is 10 to explainers and simulators: the largest that was shown."""
    rows: int
    """Different pieces of the text, from which the excerpts are."""
    shown: tuple[Excerpt, ...]
    """What the explainer saw."""
    held: tuple[Excerpt, ...]
    """What it did not see and was simulated."""
    simulated: tuple[tuple[float, ...], ...]
    """The expected activation at each token of each held-out excerpt, from 0 to 10."""
    score: ExplanationScore
    seed: int
    stopped: str = ""
    """What kept further held-out excerpts from being simulated; they are left out of all numbers."""
    unanswered: tuple[str, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """Of each held-out excerpt that the simulator gave no usable answer for, why; they are left out too."""

    def __post_init__(self) -> None:
        Node.parse(self.neuron)
        if [len(one.tokens) for one in self.held] != [len(one) for one in self.simulated]:
            raise CircuitsError(f"an explanation of {self.neuron} needs one simulated number a token of its held-out excerpts")
        if any(len(one.tokens) != len(one.activations) for one in (*self.shown, *self.held)):
            raise CircuitsError("an excerpt needs one activation a token")

    @property
    def summary(self) -> str:
        """The explanation and its score."""
        score = self.score
        apart = f"top excerpts {score.top}, random ones {score.random}"
        left = f" Without an answer for {len(self.unanswered)} further excerpts." if self.unanswered else ""
        left += f" Stopped early: {self.stopped}." if self.stopped else ""
        return f"{self.neuron} of {self.model}: {self.explanation}. Correlation {score.together} ({apart}).{left}"

    def to_dataframe(self) -> pd.DataFrame:
        """One row a token of the held-out excerpts: excerpt, kind, prompt, token, activation, simulated (0 to 10)."""
        rows = [
            (number, one.kind, one.prompt, *values)
            for number, (one, simulated) in enumerate(zip(self.held, self.simulated, strict=True))
            for values in zip(one.tokens, one.activations, simulated, strict=True)
        ]
        return pd.DataFrame(rows, columns=["excerpt", "kind", "prompt", "token", "activation", "simulated"])


@dataclasses.dataclass(frozen=True)
class ExplainedNeuron:
    """A neuron of a table: what it looks for, and how well that foretells it."""

    neuron: str
    explanation: str
    scale: float
    score: ExplanationScore
    unanswered: int = dataclasses.field(default=0, metadata=stored(optional=True))
    """Held-out excerpts that the simulator gave no usable answer for; they are left out of the score."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> "ExplainedNeuron":
        """A neuron again from `dataclasses.asdict`."""
        score = {kind: Correlation(**found) for kind, found in row["score"].items()}
        return cls(**{**row, "score": ExplanationScore(**score)})


@dataclasses.dataclass(frozen=True, eq=False)
class Explanations(Result, format="circuits-explanations"):
    """Explanations of many neurons, in the order of computation, and how they were made."""

    model: str
    weights_sha256: str
    text_sha256: str
    """Of the tokens of the text."""
    explainer: str
    simulator: str
    top: int
    seed: int
    neurons: tuple[ExplainedNeuron, ...]
    asked: int
    """Neurons that were to be explained; more than there are where the work was stopped."""
    unexplained: dict[str, str] = dataclasses.field(default_factory=dict, metadata=stored(optional=True))
    """Neurons that nobody gave a usable answer for, each with the reason; they are asked for again when the work goes on."""
    begun: NeuronExplanation | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """The neuron at which the work was stopped, as far as it was scored."""

    def __post_init__(self) -> None:
        for one in self.neurons:
            Node.parse(one.neuron)

    @property
    def scores(self) -> list[float]:
        """The correlations on all held-out excerpts, of the neurons for which there is one."""
        return [one.score.together.value for one in self.neurons if one.score.together.value is not None]

    @property
    def summary(self) -> str:
        """How many, how well, and which one best."""
        scores = self.scores
        if not scores:
            return f"{self.model}: {len(self.neurons)} of {self.asked} neurons, none with a defined correlation."
        best = max(self.neurons, key=lambda one: -2.0 if one.score.together.value is None else one.score.together.value)
        mean = f"mean correlation {sum(scores) / len(scores):.2f} of {len(scores)}"
        found = f"{best.neuron} {best.score.together.value:.2f}: {' '.join(best.explanation.split())[:60]}"
        return f"{self.model}: {len(self.neurons)} of {self.asked} neurons, {mean}; best {found}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a neuron: its explanation, correlations with intervals on all held-out excerpts, top and random ones (None
        where undefined), and the activation that counts as 10."""
        rows = []
        for one in self.neurons:
            row: dict[str, object] = {"neuron": one.neuron, "explanation": one.explanation}
            for name in ("together", "top", "random"):
                found: Correlation = getattr(one.score, name)
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            rows.append({**row, "scale": one.scale, "undefined": one.score.together.undefined, "unanswered": one.unanswered})
        return pd.DataFrame(rows)


def scored(held: Sequence[Excerpt], simulated: Sequence[Sequence[float]], *, seed: int) -> ExplanationScore:
    """The correlations on held-out excerpts, kinds apart and together."""

    def of(kind: str | None) -> Correlation:
        """On excerpts of one kind, or on all."""
        chosen = [place for place, one in enumerate(held) if kind in (None, one.kind)]
        return correlation([held[one].activations for one in chosen], [simulated[one] for one in chosen], seed=seed)

    return ExplanationScore(of("top"), of("random"), of(None))
