"""Shrinking as a search."""

from typing import TYPE_CHECKING

from circuits.progress import Progress
from circuits.search.methods.method import Method

if TYPE_CHECKING:
    from circuits.attribution import EdgeScores
    from circuits.models import Model
    from circuits.tasks import PromptPairs
    from circuits.tasks.metric import Metric


def _run(
    model: "Model", pairs: "PromptPairs", metric: "Metric", *, edges: int, seed: int, budget: int, progress: Progress | None
) -> "EdgeScores":
    from circuits.search.methods.shrinking import shrink

    return shrink(model, pairs, metric, edges=edges, budget=budget, progress=progress)


SHRINK = Method(
    name="shrink",
    summary="by scoring again and again in what is left, while the weakest go",
    run=_run,
    score="score: rounds that the edge outlived, and its place in the last one; larger = kept longer",
    sign=0,
    gradient=True,
)
