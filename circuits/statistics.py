"""Intervals and p-values for effects measured once a prompt."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Effect:
    """A mean over prompts with its 95 % bootstrap interval."""

    effect: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The three numbers, as they stand in circuit files."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Effect":
        """The same read back."""
        return cls(float(data["effect"]), float(data["low"]), float(data["high"]))


def bootstrap(values: Float[Tensor, " prompt"], *, seed: int = 0, resamples: int = 2000) -> Effect:
    """Mean over prompts and the percentile interval of the means of resampled prompts (Efron 1979)."""
    values = values.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    low, high = values[drawn].mean(dim=1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Effect(float(values.mean()), low, high)


def ratio_intervals(
    changes: Float[Tensor, "patch prompt"], gaps: Float[Tensor, " prompt"], *, seed: int = 0, resamples: int = 2000
) -> list[Effect]:
    """For each patch its mean change over the mean gap, with the percentile interval over resampled prompts; the same
    resamples serve every patch. With a single prompt nothing can be resampled: the interval is the effect itself."""
    changes, gaps = changes.double().cpu(), gaps.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(gaps), (resamples, len(gaps)), generator=generator)
    weights = torch.zeros(resamples, len(gaps), dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    effects: list[Effect] = []
    for part in changes.split(4096):
        ratios = (part @ weights.T) / (weights @ gaps)
        bounds = ratios.quantile(tails, dim=1)
        means = part.mean(dim=1) / gaps.mean()
        effects += [Effect(*values) for values in zip(means.tolist(), bounds[0].tolist(), bounds[1].tolist(), strict=True)]
    return effects


def p_value(effect: float, null: list[float]) -> float:
    """Chance of an effect at least as large under the null: (1 + how many null effects reach it) / (1 + how many)."""
    return (1 + sum(other >= effect for other in null)) / (1 + len(null))
