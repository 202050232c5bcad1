"""Refining: what attribution proposed, run as a circuit and scored again inside it until it gives what the model gives."""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.attribution import EdgeScores, attribute_edges
from circuits.errors import CircuitsError, NonFiniteError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.patching.subgraphs.members import is_edge
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Progress, silent
from circuits.search.methods.gates import Gated, gated
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import AnyMetric, fitted

START = 0.04
"""Share of all edges that the first circuit has, where fewer are asked for."""
RATE = 0.5
"""How far a round moves scores: the part of the gradient by an edge's gate, times what the circuit lacks."""
NEAR = 0.01
"""What a circuit may lack of the gap, or do too much, to be the result at once."""


def refine(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    edges: int,
    rounds: int = 12,
    rate: float = RATE,
    outside: OutsideKind = "corrupt",
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> EdgeScores:
    """Begin with the edges that support the metric most by EAP-IG, run them as a circuit, and score all edges again inside it.

    Every round moves each edge's score by the gradient by its gate, mean over prompts, times what the circuit lacks of the
    model's metric, as a share of the gap to the empty circuit's: where it does too much, edges that oppose the metric come in.
    So the circuit does on average what the model does, not on each prompt (`metadata["apart"]`: the mean distance on single
    prompts, as a share of the gap). Circuits shrink to `edges` in the first half of the rounds; of those of that size the
    nearest is the result, and one within 1 % ends the search. An edge's score is above 1 where it is in the circuit, below
    where not, larger = more support, so `.top(edges)` is the circuit; never negative. Raises CircuitsError, NonFiniteError,
    MemoryBudgetError.

    Args:
        model: the model whose edges are searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        edges: how many edges the circuit has.
        rounds: how often the circuit is run and scored again at most; each costs a gradient by the gates of all edges.
        rate: how far a round moves scores.
        outside: what edges outside carry, as in `run_circuits`.
        budget: bytes of a run and its gradients.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    graph = model.graph()
    if isinstance(edges, bool) or not isinstance(edges, int) or not 1 <= edges <= graph.edge_count:
        raise CircuitsError(f"refining takes 1 to {graph.edge_count:,} edges, got {edges!r}")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1 or not rate > 0:
        raise CircuitsError(f"refining takes rounds from 1 on and a positive rate, got {rounds!r} and {rate!r}")
    metric, report = fitted(metric, model, pairs, gradient=True), progress or silent
    proposed = attribute_edges(model, pairs, metric, method="eap-ig", budget=budget, progress=progress)
    runs = gated(model, pairs, metric, outside, budget)
    search = _Refining.begin(runs, proposed, outside)
    sizes = _sizes(edges, graph.edge_count, rounds)
    for done, size in enumerate(sizes):
        report("refining the circuit", done, rounds)
        if search.round(size, edges, rate):
            break
    report("refining the circuit", rounds, rounds)
    writers, readers = is_edge(graph).nonzero(as_tuple=True)
    details = about(model, metric, method="refine", outside=outside, rounds=rounds, rate=rate, target=edges)
    details |= {"prompts": len(pairs), "faithfulness": 1 - search.lacking, "apart": search.apart}
    values = search.scores()
    unknown = torch.full_like(values, float("nan"))[None]
    return EdgeScores(graph, writers, readers, values[None], unknown, metadata=details)


def _sizes(edges: int, all_edges: int, rounds: int) -> list[int]:
    """How many edges the circuit of each round has: down to those asked for in the first half of the rounds."""
    start, down = max(edges, round(START * all_edges)), max(1, rounds // 2)
    return [max(edges, round(start * (edges / start) ** min(1.0, done / down))) for done in range(rounds)]


@dataclasses.dataclass(eq=False)
class _Refining:
    """Scores under way, and the circuit of the size asked for that came nearest to the model."""

    runs: Gated
    support: Float[Tensor, " edge"]
    """How much each edge brings the metric towards the model's."""
    clean: Float[Tensor, " prompt"]
    start: Float[Tensor, " prompt"]
    """The metric of the empty circuit."""
    lacking: float = math.inf
    """What the nearest circuit lacks of the model's metric, as a share of the gap; negative: it does too much."""
    apart: float = math.inf
    """How far it is from the model on single prompts, mean over them, as a share of the gap."""
    inside: Bool[Tensor, " edge"] | None = None
    ranked: Float[Tensor, " edge"] | None = None

    @classmethod
    def begin(cls, runs: Gated, proposed: EdgeScores, outside: OutsideKind) -> "_Refining":
        """From attribution's scores, turned so that support is positive."""
        none = torch.zeros(1, len(proposed), dtype=runs.dtype)
        with torch.no_grad():
            clean, start = (runs.whole(gates) for gates in (none + 1, none))
        way = 1.0 if float((clean - start).mean()) >= 0 else -1.0
        return cls(runs, -way * proposed.values, clean, start)

    def round(self, size: int, edges: int, rate: float) -> bool:
        """Run the circuit of the best edges, keep it where it is the nearest so far, and move all scores; whether it is of the
        size asked for and near enough."""
        # What is worth nothing but rounding is made equal, or its order would depend on the batches.
        rounding = 64 * torch.finfo(self.clean.dtype).eps * self.support.abs().max()
        self.support = self.support.masked_fill(self.support.abs() <= rounding, 0.0)
        inside = torch.zeros(len(self.support), dtype=torch.bool)
        inside[self.support.argsort(descending=True, stable=True)[:size]] = True
        gates = inside[None].to(self.clean.dtype).requires_grad_(True)
        found, slopes = torch.zeros_like(self.clean), torch.zeros_like(self.support)
        for rows, scores in self.runs.scores(gates):
            found[rows] = scores.detach()
            slopes += torch.autograd.grad(scores.sum(), gates)[0][0].double().cpu() / len(self.clean)
        if not bool(slopes.isfinite().all()):
            raise NonFiniteError("a gradient by an edge's gate is NaN or infinite")
        gap = float((self.clean - self.start).mean())
        # The mean over prompts, not each prompt's own: edges chosen to fit every prompt are chosen for these prompts (on
        # SmolLM2-135M such circuits kept .98 where they were searched and .70 elsewhere).
        lacking = float((self.clean - found).mean()) / gap
        if size == edges and abs(lacking) < abs(self.lacking):
            self.lacking, self.inside, self.ranked = lacking, inside, self.support.clone()
            self.apart = float((found - self.clean).abs().mean()) / abs(gap)
        self.support = self.support + rate * lacking * math.copysign(1.0, gap) * slopes
        return size == edges and abs(self.lacking) < NEAR

    def scores(self) -> Float[Tensor, " edge"]:
        """The nearest circuit's edges above 1, the others below, by their support."""
        assert self.inside is not None and self.ranked is not None, "the last round has the size asked for"
        least, most = self.ranked.aminmax()
        place = (self.ranked - least) / (most - least).clamp(min=torch.finfo(torch.float64).tiny)
        return place + self.inside.double()
