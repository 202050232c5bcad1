"""How well simulated activations follow real ones: one correlation over all tokens of the excerpts (Bills et al. 2023)."""

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.statistics import FEWEST, percentile_interval


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of simulated and real activations, -1 to 1: 1 = alike but for scale and shift."""

    value: float | None
    """None where it is undefined."""
    low: float | None
    """The ends of the 95 % bootstrap interval over excerpts; None for fewer than five."""
    high: float | None
    tokens: int
    excerpts: int
    undefined: str = ""
    """Why there is no value."""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.undefined) or (self.low is None) != (self.high is None):
            raise CircuitsError("a correlation has a value or says why it has none, and both ends of an interval or none")

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.undefined})"
        return f"{self.value:.2f}" + (f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None else "")


def correlation(
    real: Sequence[Sequence[float]], simulated: Sequence[Sequence[float]], *, seed: int = 0, resamples: int = 2000
) -> Correlation:
    """One Pearson correlation over all tokens of some excerpts, with the percentile interval over resampled excerpts, from five
    excerpts on (tokens of one excerpt depend on each other). Undefined where either side has one value everywhere, which is
    said. Resamples in which it is undefined are left out. Raises CircuitsError where the two sides differ in length."""
    if [len(one) for one in real] != [len(one) for one in simulated]:
        raise CircuitsError("simulated activations of other lengths than the excerpts: expected one number a token")
    tokens = sum(map(len, real))
    sides = [torch.tensor([*itertools.chain(*side)], dtype=torch.float64) for side in (real, simulated)]
    for side, what in zip(sides, ("the real activations are", "what is simulated is"), strict=True):
        if not tokens or bool((side == side[0]).all()):
            why = f"{what} the same at every token" if tokens else "there are no excerpts"
            return Correlation(None, None, None, tokens, len(real), why)
    x, y = ((side - side.mean()) / side.std() for side in sides)
    lengths = [len(one) for one in real]
    parts = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1).split(lengths)
    moments = torch.stack([part.sum(dim=0) for part in parts])
    value = float(_pearson(moments.sum(dim=0)))
    if len(real) < FEWEST:
        return Correlation(value, None, None, tokens, len(real))
    drawn = torch.randint(len(real), (resamples, len(real)), generator=torch.Generator().manual_seed(seed))
    # How often each excerpt was drawn: the sums of a resample are then one product.
    weights = torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    values = _pearson(weights @ moments)
    low, high = percentile_interval(values[values.isfinite()])
    return Correlation(value, float(low), float(high), tokens, len(real))


def _pearson(moments: Float[Tensor, "*draw 6"]) -> Float[Tensor, "*draw"]:
    """From the sums of 1, x, y, x², y² and xy; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy = moments.unbind(dim=-1)
    size = (xx - x * x / n) * (yy - y * y / n)
    return torch.where(size > 1e-18 * n * n, (xy - x * y / n) / size.clamp(min=1e-300).sqrt(), torch.nan).clamp(-1, 1)
