"""Whether causal tracing tells in which layer an edit succeeds (Hase et al. 2023), on the model at hand."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.words import counted
from circuits.statistics import Effect, percentile_interval, spearman
from circuits.uses.editing.results import EditScores

PUBLISHED_R2 = (0.947, 0.948)
"""Of another model and another set of facts: R² of edit success by the layer alone, and with the tracing effect besides, as
Hase et al. (2023) give them."""

FEWEST_FACTS = 3
"""Facts from which on it is told how much of their success a layer explains: of one fact it explains all."""


@dataclasses.dataclass(frozen=True)
class Localisation:
    """How edit success and a tracing effect go together, over facts and layers."""

    kind: str
    """What was restored in tracing."""
    facts: int
    layers: int
    over_layers: float
    """Spearman's correlation of the two means of each layer; NaN for fewer than two layers, or where one never varies."""
    over_all: Effect | None
    """Pearson's correlation over all facts in all layers, with the interval over resampled facts."""
    within_layers: float
    """Pearson's correlation of what each fact has above its layer's mean."""
    by_layer: float
    """Share of the variance of success that the layer alone accounts for (R²)."""
    with_tracing: float
    """The same with the tracing effect besides."""

    @property
    def summary(self) -> str:
        """The figures, and what they come to."""
        over = "not defined" if math.isnan(self.over_layers) else f"{self.over_layers:+.2f}"
        every = (
            "not defined"
            if self.over_all is None
            else f"{self.over_all.effect:+.2f} ({self.over_all.low:+.2f} to {self.over_all.high:+.2f})"
        )
        gained = self.with_tracing - self.by_layer
        told = f"{self.by_layer:.3f}, with tracing {self.with_tracing:.3f} ({gained:+.3f})"
        return (
            f"tracing ({self.kind}) and edit success over {counted(self.facts, 'fact')} in {counted(self.layers, 'layer')}: "
            f"correlation of the layers' means {over}, over facts and layers {every}; R² of the layer alone "
            f"{told if math.isfinite(self.by_layer) else f'not defined for fewer than {FEWEST_FACTS} facts'}"
        )


def localisation(scores: EditScores, kind: str) -> Localisation:
    """How the success of edits goes with a kind of tracing effect. Raises CircuitsError where that kind was not traced."""
    if kind not in scores.kinds:
        raise CircuitsError(f"no tracing of {kind!r} beside the edits; there is {', '.join(scores.kinds) or 'none'}")
    layers = scores.layers
    traced = torch.tensor([[(one.traced or {})[kind] for one in scores.at(layer)] for layer in layers]).double().T
    success = torch.tensor([[one.success for one in scores.at(layer)] for layer in layers]).double().T
    facts = len(success)
    apart, below = success - success.mean(dim=0), traced - traced.mean(dim=0)
    total, left = float((success - success.mean()).square().sum()), float(apart.square().sum())
    size = float(below.square().sum())
    explained = float((apart * below).sum()) ** 2 / size if size > 1e-12 else 0.0
    draws = torch.randint(facts, (1000, facts), generator=torch.Generator().manual_seed(0))
    resampled = torch.stack([_pearson(traced[rows], success[rows]) for rows in draws])
    known = resampled[resampled.isfinite()]
    enough = facts >= FEWEST_FACTS
    whole, within = float(_pearson(traced, success)), float(_pearson(below, apart))
    low, high = percentile_interval(known) if len(known) else (torch.tensor(math.nan),) * 2
    return Localisation(
        kind,
        facts,
        len(layers),
        spearman(traced.mean(dim=0), success.mean(dim=0)),
        Effect(whole, float(low), float(high)) if math.isfinite(whole) and enough else None,
        within,
        math.nan if not enough else 1 - left / total if total > 1e-12 else 0.0,
        math.nan if not enough else 1 - (left - explained) / total if total > 1e-12 else 0.0,
    )


def _pearson(one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """NaN where either never varies."""
    one, other = one.flatten() - one.mean(), other.flatten() - other.mean()
    size = (one.square().sum() * other.square().sum()).sqrt()
    return (one * other).sum() / size if float(size) > 1e-12 else one.new_tensor(math.nan)
