"""Shrinking: attribution inside the circuit that is left, again and again, while the weakest edges go."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution import EdgeScores
from circuits.errors import CircuitsError, NonFiniteError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.patching.subgraphs.members import is_edge
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Progress, silent
from circuits.search.methods.gates import Gated, gated
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted

SHARES = (0.25, 0.75)
"""How far the gates of the edges that are left stand open where gradients are taken."""


def shrink(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    edges: int,
    keep: float = 0.8,
    outside: OutsideKind = "corrupt",
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> EdgeScores:
    """Drop the edges that support the metric least inside the circuit that is left, a part at a time, down to `edges`: scores
    made on the whole model say what an edge is worth there, not in a small circuit.

    An edge's score tells the rounds it outlived and, within the last round, how much it supported the metric: larger = kept
    longer, so `.top(edges)` is the circuit; never negative. Gradients by gates at a quarter and three quarters of the way
    between outside values and the run's own (after Hanna et al. 2024, inside a circuit). Raises CircuitsError,
    NonFiniteError, MemoryBudgetError.

    Args:
        model: the model whose edges are dropped.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        edges: how many edges are left at the end.
        keep: share of the edges that a round keeps.
        outside: what dropped edges carry, as in `run_circuits`.
        budget: bytes of a run and its gradients.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    graph = model.graph()
    if isinstance(edges, bool) or not isinstance(edges, int) or not 1 <= edges <= graph.edge_count or not 0 < keep < 1:
        raise CircuitsError(f"shrinking takes 1 to {graph.edge_count:,} edges and a part to keep between 0 and 1")
    metric = fitted(metric, model, pairs, gradient=True)
    runs = gated(model, pairs, metric, outside, budget)
    inside = torch.ones(graph.edge_count, dtype=torch.bool, device=model.device)
    scores = torch.zeros(graph.edge_count, dtype=torch.float64)
    left, rounds, report = graph.edge_count, 0, progress or silent
    while left:
        report("shrinking the circuit", graph.edge_count - left, max(1, graph.edge_count - edges))
        worth = _worth(model, runs, inside, len(pairs)).masked_fill(~inside, -torch.inf)
        order = worth.argsort(descending=True, stable=True)
        scores[order[:left].cpu()] = rounds + torch.linspace(1.0, 0.5, left, dtype=torch.float64)
        if left <= edges:
            break
        left, rounds = max(edges, int(left * keep)), rounds + 1
        inside = torch.zeros_like(inside)
        inside[order[:left]] = True
    writers, readers = is_edge(graph).nonzero(as_tuple=True)
    details = about(model, metric, method="shrink", outside=outside, rounds=rounds, target=edges, prompts=len(pairs))
    unknown = torch.full_like(scores, float("nan"))[None]
    return EdgeScores(graph, writers, readers, scores[None], unknown, metadata=details)


def _worth(model: Model, runs: Gated, inside: Tensor, prompts: int) -> Float[Tensor, " edge"]:
    """How much each edge of the circuit raises the metric, mean over prompts, to first order between its ends."""
    total = torch.zeros(len(inside), dtype=model.dtype, device=model.device)
    for share in SHARES:
        gates = (inside.to(model.dtype) * share).requires_grad_(True)
        for _, scores in runs.scores(gates[None]):
            total += torch.autograd.grad(scores.sum(), gates)[0] / (len(SHARES) * prompts)
    if not bool(total.isfinite().all()):
        raise NonFiniteError("a gradient by an edge's gate is NaN or infinite")
    # What no longer reaches the logits is worth nothing but rounding: made equal, or its order would depend on the batches.
    rounding = 8 * torch.finfo(total.dtype).eps * total.abs().max()
    return total.masked_fill(total.abs() <= rounding, 0.0)
