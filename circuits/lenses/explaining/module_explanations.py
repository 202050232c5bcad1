"""Explanations of modules as results (SASC, Singh et al. 2023)."""

import dataclasses

import pandas as pd

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result


@dataclasses.dataclass(frozen=True)
class SascCandidate:
    """An explanation, and how much more the module does on texts made for it."""

    explanation: str
    score: float
    """Mean on texts with it, less mean on texts without, in standard deviations over all groups of words."""
    low: float
    """The ends of the 95 % bootstrap interval over pairs of texts."""
    high: float
    example: tuple[str, str]
    """The first text with it, and the first without."""


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleExplanation(Result, format="circuits-module-explanation"):
    """What a module answers to: groups of words by what it does on each alone, and what they have in common, tested."""

    model: str
    weights_sha256: str
    module: str
    reads: str
    """What of the module is read at each token; of a text the largest counts."""
    explainer: str
    author: str
    """Who wrote the texts."""
    ngrams: tuple[tuple[str, float], ...]
    """The groups of words on which it does most, with what it does, the most first."""
    mean: float
    """Over all groups of words."""
    sigma: float
    """Their standard deviation."""
    counted: int
    """Groups of words that were ranked."""
    candidates: tuple[SascCandidate, ...]
    """Explanations, the best first."""
    texts: int
    seed: int
    untested: dict[str, str] = dataclasses.field(default_factory=dict, metadata=stored(optional=True))
    """Explanations for which no texts could be written, each with the reason."""

    def __post_init__(self) -> None:
        if not self.ngrams:
            raise CircuitsError(f"an explanation of {self.module} without a group of words")

    @property
    def summary(self) -> str:
        """The best explanation with its score, and the groups of words on top."""
        tops = ", ".join(f"{text!r} {value:.2f}" for text, value in self.ngrams[:3])
        on = f"{self.module} of {self.model} ({self.reads}): most on {tops}"
        if not self.candidates:
            return f"{on} ({self.counted:,} groups of words); no explanation was found."
        best = self.candidates[0]
        score = f"{best.score:.2f} [{best.low:.2f}, {best.high:.2f}] sigma"
        return f"{on}; answers to {best.explanation}, {score} more with it than without."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a candidate: explanation, score, low, high, a text with it and one without; where there is none, one row a
        group of words."""
        if not self.candidates:
            return pd.DataFrame(self.ngrams, columns=["ngram", "value"])
        rows = [{**dataclasses.asdict(one), "with": one.example[0], "without": one.example[1]} for one in self.candidates]
        return pd.DataFrame(rows).drop(columns="example")
