"""How sure changes are that are paired by text."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.statistics import bootstrap, t_test


def two_sided(values: Float[Tensor, " text"]) -> float:
    """The chance of a mean so far from zero, by Student's test."""
    return min(1.0, 2 * min(t_test(values), t_test(-values)))


def intervals(values: Float[Tensor, "node text"], seed: int) -> Float[Tensor, "3 node"]:
    """Means, and the ends of their 95 % bootstrap intervals over texts."""
    several = [bootstrap(row, seed=seed) for row in values]
    return torch.tensor([[one.effect, one.low, one.high] for one in several], dtype=torch.float64).T
