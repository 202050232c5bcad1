"""Whether attributions add up: the scores of the edges out of the input beside the gap that they are to explain.

All that differs between the clean and the corrupt prompts enters through the input, so that integrated gradients along the
straight way between the two embeddings leave nothing out (Sundararajan et al. 2017): with m the metric, e the embeddings and r
the readers of the input, which are all that the way passes through,

    sum_r score[input, r] = (e_corrupt - e_clean) . mean over the way of dm/de = m(corrupt) - m(clean)

but for the error of taking the mean over few points. A gradient at the clean prompts alone ("eap") promises no such sum: there
the difference is what a straight line misses. For "eap-ig-activations" the same holds of the input's edges and, with the layer
replaced as a whole, of the edges out of the heads of one layer, or out of one MLP (where no norm stands behind it), which add
up to what patching the layer brings. Edges out of any other set of nodes need not add up to anything.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.batches import Batch
from circuits.models import Model, Run
from circuits.patching.engine.reading import read_within
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

LARGE = 0.1
"""A completeness error that calls for more points."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ends:
    """What the metric is read from in the clean and in the corrupt run of some prompts, `[prompt read d_model]`."""

    clean: Float[Tensor, "prompt read d_model"]
    corrupt: Float[Tensor, "prompt read d_model"]


def ends_of(batch: Batch, own: Run, other: Run) -> Ends:
    """The ends of a batch's runs."""
    clean, corrupt = (batch.reading(0).at_columns(run.residuals[-1]) for run in (own, other))
    return Ends(clean, corrupt)


@torch.no_grad()
def completeness(
    model: Model, pairs: PromptPairs, metric: Metric, ends: Sequence[Ends], total: float, budget: int
) -> dict[str, Any]:
    """The sum of the input's edges (`total`), the gap of the metric between corrupt and clean prompts, means over prompts, and
    the error: their difference as a share of the gap (None where there is no gap)."""
    streams = torch.stack([torch.cat([getattr(end, side) for end in ends]) for side in ("clean", "corrupt")])
    return beside_gap(total, *read_within(budget, metric, pairs, model.weights, streams))


def beside_gap(total: float, clean: Float[Tensor, " prompt"], corrupt: Float[Tensor, " prompt"]) -> dict[str, Any]:
    """A sum that should be the gap of the metric, beside it."""
    gap = float((corrupt.double() - clean.double()).mean())
    return {"input_edges": total, "gap": gap, "error": abs(total - gap) / abs(gap) if gap else None}


def far(found: Mapping[str, Any]) -> bool:
    """Whether a sum is far enough from its gap that more points are worth their price."""
    return found["error"] is not None and found["error"] > LARGE


def said_of(found: object) -> str:
    """In words what `completeness` found, as results and reports say it; "" where nothing was found."""
    if not isinstance(found, Mapping) or found.get("error") is None:
        return ""
    return (
        f"the input's edges add up to {found['input_edges']:+.3g} where the metric moves by {found['gap']:+.3g} "
        f"(completeness error {found['error']:.0%})"
    )
