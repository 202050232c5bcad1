"""What patches did to a metric."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.statistics import Effect, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.prompts import refuse_zero_gap

Direction = Literal["denoising", "noising"]


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

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.clean))
        if tuple(self.scores.shape) != shape or self.clean.shape != self.corrupt.shape:
            raise CircuitsError(f"{shape[0]} names and {shape[1]} prompts, but scores of shape {tuple(self.scores.shape)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def summary(self) -> str:
        """How many patches, and the largest effect."""
        largest = "".join(f"; largest {name} {effect:+.3g}" for name, effect in self.top(1))
        return f"{self.direction}, {counted(len(self), 'patch')} on {counted(len(self.clean), 'prompt')}{largest}."

    def per_prompt(self) -> Float[Tensor, "patch prompt"]:
        """The effect on each prompt by itself, as a share of its own gap."""
        start, end = self._ends()
        return (self.scores - start) / (end - start)

    def effect(self) -> Float[Tensor, " patch"]:
        """Every patch's effect, over all prompts."""
        start, end = self._ends()
        return (self.scores - start).mean(dim=1) / (end - start).mean()

    def intervals(self) -> list[Effect]:
        """Every patch's effect with its 95 % bootstrap interval over prompts."""
        start, end = self._ends()
        return ratio_intervals(self.scores - start, end - start, seed=self.seed)

    def of(self, name: str) -> Effect:
        """One patch's effect with its interval. Raises CircuitsError for a name that was not patched."""
        if name not in self.names:
            raise CircuitsError(f"{name!r} was not patched; there are {len(self)} patches, such as {self.names[0]}")
        row = self.names.index(name)
        return dataclasses.replace(self, names=(name,), scores=self.scores[row : row + 1]).intervals()[0]

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k patches of largest effect, by size, either sign."""
        effects = self.effect()
        order = effects.abs().argsort(descending=True, stable=True)[:k].tolist()
        return [(self.names[row], float(effects[row])) for row in order]

    def _ends(self) -> tuple[Tensor, Tensor]:
        return (self.corrupt, self.clean) if self.direction == "denoising" else (self.clean, self.corrupt)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a patch: name, effect, low, high (95 %), mean metric, number of prompts."""
        found, count = self.intervals(), len(self.clean)
        means = self.scores.mean(dim=1).tolist()
        rows = [
            {"patch": name, "effect": e.effect, "low": e.low, "high": e.high, "metric": score, "prompts": count}
            for name, e, score in zip(self.names, found, means, strict=True)
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
) -> Effects:
    """Effects from scores and the metric on the clean and the corrupt prompts. Raises PromptError where a pair has no gap."""
    clean, corrupt = (end.double().cpu() for end in ends)
    refuse_zero_gap(*ends, pairs)
    gaps = clean - corrupt
    if float(gaps.mean().abs()) <= 1e-6 * float(gaps.abs().mean()):
        raise PromptError("the gaps between the clean and the corrupt metric cancel over prompts: nothing is left to share out")
    return Effects(tuple(names), scores.double().cpu(), clean, corrupt, direction, pairs.labels, metadata, seed)
