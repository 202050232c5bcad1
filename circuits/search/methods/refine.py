"""Refining as a search."""

from typing import TYPE_CHECKING

from circuits.progress import Progress
from circuits.search.methods.method import Method

if TYPE_CHECKING:
    from circuits.attribution import EdgeScores
    from circuits.models import Model
    from circuits.tasks import PromptPairs
    from circuits.tasks.metrics import Metric


def _run(
    model: "Model", pairs: "PromptPairs", metric: "Metric", *, edges: int, seed: int, budget: int, progress: Progress | None
) -> "EdgeScores":
    from circuits.search.methods.refining import refine

    return refine(model, pairs, metric, edges=edges, budget=budget, progress=progress)


REFINE = Method(
    name="refine",
    summary="by running what eap-ig proposes and scoring again inside it, until the circuit gives what the model gives",
    run=_run,
    score="score: above 1 in the circuit that came nearest to the model, below 1 outside; larger = more support",
    sign=0,
    gradient=True,
)
