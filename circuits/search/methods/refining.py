"""Refining: what attribution proposed, run as a circuit and scored again inside it until it gives what the model gives."""

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution import EdgeScores, attribute_edges
from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards
from circuits.search.methods.gates import Gated, gated
from circuits.tasks import PromptPairs
from circuits.tasks.gaps import refuse_zero_gap
from circuits.tasks.metric import AnyMetric, fitted

START = 0.04
"""Share of all edges that the first circuit has, where fewer are asked for."""
RATE = 0.5
"""How far a round moves scores: the part of the gradient by an edge's gate, times what the circuit lacks."""
CANCELLED = 0.01
"""The mean gap, as a share of the mean size of gaps, below which they cancel."""
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
    found: Found | None = None,
) -> Circuit:
    """Begin with the edges that support the metric most by EAP-IG, run them as a circuit, and score all edges again inside it.

    Every round moves each edge's score by the gradient by its gate, mean over prompts, times what the circuit lacks of the
    model's metric, as a share of the gap to the empty circuit's: where it does too much, edges that oppose the metric come in.
    So the circuit does on average what the model does, not on each prompt (`metadata["apart"]`: the mean distance on single
    prompts, as a share of the gap). Circuits shrink to `edges` in the first half of the rounds; of those of that size the
    nearest is the result, and one within 1 % ends the search; all lie on paths from input to logits. An edge's score is its
    support at the end, in the metric's unit: positive where it brings the metric towards the model's. Raises CircuitsError,
    PromptError where a pair has no gap or the pairs' gaps cancel, NonFiniteError, MemoryBudgetError.

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
        found: hears EAP-IG's scores of all edges, with which it begins.
    """
    graph, hear = model.graph(), heard(found)
    if isinstance(edges, bool) or not isinstance(edges, int) or not 1 <= edges <= graph.edge_count:
        raise CircuitsError(f"refining takes 1 to {graph.edge_count:,} edges, got {edges!r}")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1 or not rate > 0:
        raise CircuitsError(f"refining takes rounds from 1 on and a positive rate, got {rounds!r} and {rate!r}")
    metric, report = fitted(metric, model, pairs, gradient=True), progress or silent
    proposed = attribute_edges(model, pairs, metric, method="eap-ig", budget=budget, progress=progress)
    hear(proposed)
    runs = gated(model, pairs, metric, outside, budget)
    search, taken = _Refining.begin(runs, proposed, pairs), 0
    for size in _sizes(edges, graph.edge_count, rounds):
        report("refining the circuit", taken, rounds)
        taken += 1
        if search.round(size, edges, rate):
            break
    report("refining the circuit", rounds, rounds)
    details = about(model, metric, method="refine", outside=outside, rounds=taken, rate=rate, target=edges)
    details |= {"prompts": len(pairs), "searched_faithfulness": 1 - search.lacking, "apart": search.apart}
    return dataclasses.replace(search.ranked, metadata=details).circuit(search.inside)


def _sizes(edges: int, all_edges: int, rounds: int) -> list[int]:
    """How many edges the circuit of each round has: down to those asked for in the first half of the rounds."""
    start, down = max(edges, round(START * all_edges)), rounds // 2
    sizes = [max(edges, round(start * (edges / start) ** (done / down))) for done in range(down)]
    return sizes + [edges] * (rounds - down)


@dataclasses.dataclass(eq=False)
class _Refining:
    """Scores under way, and the circuit of the size asked for that came nearest to the model."""

    runs: Gated
    support: EdgeScores
    """How much each edge brings the metric towards the model's."""
    clean: Float[Tensor, " prompt"]
    start: Float[Tensor, " prompt"]
    """The metric of the empty circuit."""
    lacking: float = math.inf
    """What the nearest circuit lacks of the model's metric, as a share of the gap; negative: it does too much."""
    apart: float = math.inf
    """How far it is from the model on single prompts, mean over them, as a share of the gap."""
    inside: Int[Tensor, " inside"] = dataclasses.field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """The rows of its edges."""

    def __post_init__(self) -> None:
        self.ranked = self.support
        """The scores that they were chosen by."""

    @classmethod
    def begin(cls, runs: Gated, proposed: EdgeScores, pairs: PromptPairs) -> "_Refining":
        """From attribution's scores, turned so that support is positive."""
        none = runs.gates(torch.zeros(len(proposed)))
        with torch.no_grad():
            clean, start = (runs.whole(gates) for gates in (none + 1, none))
        refuse_zero_gap(clean, start, pairs)
        gaps = clean - start
        if float(gaps.mean().abs()) < CANCELLED * float(gaps.abs().mean()):
            raise PromptError(
                f"the metric moves both ways between corrupt and clean prompts, {float(gaps.mean()):+.3g} on average: "
                "refining needs pairs that move it one way"
            )
        values = -math.copysign(1.0, float(gaps.mean())) * proposed.values[None]
        support = dataclasses.replace(proposed, by_label=values, errors=torch.full_like(values, torch.nan))
        return cls(runs, support, clean, start)

    def round(self, size: int, edges: int, rate: float) -> bool:
        """Run the circuit of the best edges, keep it where it is the nearest so far, and move all scores; whether it is of the
        size asked for and near enough."""
        # What is worth nothing but rounding is made equal, or its order would depend on the batches.
        values = self.support.values
        values = values.masked_fill(values.abs() <= 64 * torch.finfo(self.runs.dtype).eps * values.abs().max(), 0.0)
        # Negated: by support, scores that are most negative come first.
        inside = dataclasses.replace(self.support, by_label=-values[None]).rows(size, by="support", connected=True)
        gates = self.runs.gates(torch.zeros_like(values).index_fill(0, inside, 1.0)).requires_grad_(True)
        found, slopes = torch.zeros_like(self.clean), torch.zeros_like(values)
        part = self.runs.part(gates)

        def scored(place: int) -> tuple[int, Tensor, Tensor]:
            """Of some prompts, where they begin, their scores, and the slope of each edge's gate."""
            rows, scores = part(place)
            return rows.start, scores.detach(), torch.autograd.grad(scores.sum(), gates)[0][0].double().cpu()

        for start, scores, slope in shards("refining the circuit", len(self.runs.rows), scored):
            found[start : start + len(scores)] = scores.to(found)
            slopes += slope / len(self.clean)
        if not bool(slopes.isfinite().all()):
            raise NonFiniteError("a gradient by an edge's gate is NaN or infinite")
        gap = float((self.clean - self.start).mean())
        # The mean over prompts, not each prompt's own: edges chosen to fit every prompt are chosen for these prompts, and keep
        # less of others.
        lacking = float((self.clean - found).mean()) / gap
        if size == edges and abs(lacking) < abs(self.lacking):
            self.lacking, self.inside, self.ranked = lacking, inside, self.support
            self.apart = float((found - self.clean).abs().mean()) / abs(gap)
        values = values + rate * lacking * math.copysign(1.0, gap) * slopes
        self.support = dataclasses.replace(self.support, by_label=values[None])
        return size == edges and abs(self.lacking) < NEAR
