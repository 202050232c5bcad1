"""What patches did to a metric."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.statistics import Effect, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.gaps import refuse_zero_gap

Direction = Literal["denoising", "noising"]
WORDS: Mapping[str, str] = {"denoising": "clean values into corrupt runs", "noising": "corrupt values into clean runs"}
"""What each direction does."""


@dataclasses.dataclass(frozen=True, eq=False)
class Effects(Result, format="circuits-effects"):
    """A metric on patched runs, a row a patch.

    Denoising patches clean values into corrupt runs (is it sufficient?), noising corrupt ones into clean runs (is it
    necessary?). An effect is the share of the gap between the clean and the corrupt metric that a patch bridges, mean
    change over mean gap: 0 = nothing, 1 = the whole way; above 1 and negative ones are kept.
    """

    names: tuple[str, ...]
    """What was patched: a node, site, edge or path; `@position` where not all positions were."""
    scores: Float[Tensor, "patch prompt"]
    clean: Float[Tensor, " prompt"]
    corrupt: Float[Tensor, " prompt"]
    direction: Direction
    prompts: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    having: Bool[Tensor, "patch prompt"] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """Which prompts have the position of each patch; the others do not count (None: all have all of them)."""

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.clean))
        if tuple(self.scores.shape) != shape or self.clean.shape != self.corrupt.shape:
            raise CircuitsError(f"{shape[0]} names and {shape[1]} prompts, but scores of shape {tuple(self.scores.shape)}")
        if self.having is not None and (tuple(self.having.shape) != shape or not bool(self.having.any(dim=1).all())):
            raise CircuitsError("which prompts have the position of each patch: expected a row a patch, and a prompt in each")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def summary(self) -> str:
        """Which values went where, how many patches, and the largest effect; of estimates, by which method."""
        largest = "".join(f"; largest {name} {effect:+.3g}" for name, effect in self.top(1))
        estimated = f", estimated by {self.metadata.get('method', 'gradients')}" if self.metadata.get("estimated") else ""
        counts = f"{counted(len(self), 'patch')} on {counted(len(self.clean), 'prompt')}"
        return f"{self.direction} ({WORDS[self.direction]}){estimated}, {counts}{largest}."

    @property
    def counts(self) -> list[int]:
        """On how many prompts each patch was measured: those that have its position."""
        return [len(self.clean)] * len(self) if self.having is None else self.having.sum(dim=1).tolist()

    def per_prompt(self) -> Float[Tensor, "patch prompt"]:
        """The effect on each prompt by itself, as a share of its own gap; NaN where the prompt lacks the position."""
        start, end = self._ends()
        shares = (self.scores - start) / (end - start)
        return shares if self.having is None else shares.masked_fill(~self.having, torch.nan)

    def effect(self) -> Float[Tensor, " patch"]:
        """Every patch's effect, over all prompts that have its position."""
        start, end = self._ends()
        if self.having is None:
            return (self.scores - start).mean(dim=1) / (end - start).mean()
        return ((self.scores - start) * self.having).sum(dim=1) / ((end - start) * self.having).sum(dim=1)

    def intervals(self) -> list[Effect]:
        """Every patch's effect with its 95 % bootstrap interval over the prompts that have its position."""
        start, end = self._ends()
        if self.having is None:
            return ratio_intervals(self.scores - start, end - start, seed=self.seed)
        found: list[Effect] = [Effect(0.0, 0.0, 0.0)] * len(self)
        for there in self.having.unique(dim=0):
            rows = (self.having == there).all(dim=1).nonzero()[:, 0].tolist()
            changes = (self.scores - start)[rows][:, there]
            for row, one in zip(rows, ratio_intervals(changes, (end - start)[there], seed=self.seed), strict=True):
                found[row] = one
        return found

    def chosen(self, rows: Sequence[int]) -> "Effects":
        """Some of the patches."""
        names = tuple(self.names[row] for row in rows)
        having = None if self.having is None else self.having[list(rows)]
        return dataclasses.replace(self, names=names, scores=self.scores[list(rows)], having=having)

    def of(self, name: str) -> Effect:
        """One patch's effect with its interval. Raises CircuitsError for a name that was not patched."""
        if name not in self.names:
            raise CircuitsError(f"{name!r} was not patched; there are {len(self)} patches, such as {self.names[0]}")
        return self.chosen([self.names.index(name)]).intervals()[0]

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k patches of largest effect, by size, either sign."""
        effects = self.effect()
        order = effects.abs().argsort(descending=True, stable=True)[:k].tolist()
        return [(self.names[row], float(effects[row])) for row in order]

    def _ends(self) -> tuple[Tensor, Tensor]:
        return (self.corrupt, self.clean) if self.direction == "denoising" else (self.clean, self.corrupt)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a patch: name, effect, low, high (95 %), mean metric, number of prompts that have its position."""
        found, counts = self.intervals(), self.counts
        means = self.scores.mean(dim=1).tolist()
        if self.having is not None:
            means = ((self.scores * self.having).sum(dim=1) / self.having.sum(dim=1)).tolist()
        rows = [
            {"patch": name, "effect": e.effect, "low": e.low, "high": e.high, "metric": score, "prompts": count}
            for name, e, score, count in zip(self.names, found, means, counts, strict=True)
        ]
        return pd.DataFrame(rows)


def effects_of(
    names: list[str],
    scores: Tensor,
    ends: tuple[Tensor, Tensor],
    pairs: PromptPairs,
    direction: Direction,
    metadata: dict[str, Any],
    seed: int = 0,
    *,
    having: Bool[Tensor, "label prompt"] | None = None,
) -> Effects:
    """Effects from scores and the metric on the clean and the corrupt prompts. `having`: which prompts have each position,
    where some lack one; `names` go through the positions of each site in turn. Raises PromptError where a pair has no gap."""
    clean, corrupt = (end.double().cpu() for end in ends)
    refuse_zero_gap(*ends, pairs)
    gaps = clean - corrupt
    for there in torch.ones(1, len(gaps), dtype=torch.bool) if having is None else having:
        if float(gaps[there].mean().abs()) <= 1e-6 * float(gaps[there].abs().mean()):
            raise PromptError(
                "the gaps between the clean and the corrupt metric cancel over prompts: nothing is left to share out"
            )
    rows = None if having is None else having.repeat(len(names) // len(having), 1)
    return Effects(tuple(names), scores.double().cpu(), clean, corrupt, direction, pairs.labels, metadata, seed, rows)
