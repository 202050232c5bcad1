"""Intervals and p-values for effects measured once a prompt."""

import dataclasses

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


def bootstrap(values: Float[Tensor, " prompt"], *, seed: int = 0, resamples: int = 2000) -> Effect:
    """Mean over prompts and the percentile interval of the means of resampled prompts (Efron 1979)."""
    values = values.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    low, high = values[drawn].mean(dim=1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Effect(float(values.mean()), low, high)


def p_value(effect: float, null: list[float]) -> float:
    """Chance of an effect at least as large under the null: (1 + how many null effects reach it) / (1 + how many)."""
    return (1 + sum(other >= effect for other in null)) / (1 + len(null))
