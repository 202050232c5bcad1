"""Refining as a search."""

from typing import TYPE_CHECKING

from circuits.progress import Found, Progress
from circuits.search.methods.method import Method

if TYPE_CHECKING:
    from circuits.graph import Circuit
    from circuits.models import Model
    from circuits.tasks import PromptPairs
    from circuits.tasks.metric import Metric


def _run(
    model: "Model",
    pairs: "PromptPairs",
    metric: "Metric",
    *,
    edges: int,
    seed: int,
    budget: int,
    progress: Progress | None,
    found: Found | None = None,
) -> "Circuit":
    from circuits.search.methods.refining import refine

    return refine(model, pairs, metric, edges=edges, budget=budget, progress=progress, found=found)


REFINE = Method(
    name="refine",
    summary="by running what eap-ig proposes and scoring again inside it, as near to the model as so many edges come",
    run=_run,
    score="score: support of the metric, in its unit; negative = the edge opposes it",
    sign=1,
    gradient=True,
    gives_circuit=True,
    proposes=True,
)
