"""Edge pruning as a search."""

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
    from circuits.search.methods.pruning import prune_edges

    return prune_edges(model, pairs, edges=edges, seed=seed, budget=budget, progress=progress)


PRUNE = Method(
    name="prune",
    summary="by a gate an edge, trained so that few stay open",
    run=_run,
    score="score: chance that the edge's gate is open, 0 to 1, after training on KL to the clean run",
    sign=0,
    measures="KL to the clean run",
    recorded="edge-pruning",
)
