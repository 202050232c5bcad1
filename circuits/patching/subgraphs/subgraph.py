"""Running subgraphs: edges inside a circuit carry the present run's values, edges outside it others."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.graph import Circuit, Graph
from circuits.models import Model, Run, TokenBatch
from circuits.models.layers import Geometry, unembed
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading, read_within
from circuits.patching.engine.sites import differing
from circuits.patching.subgraphs.circuit_pass import CircuitPass
from circuits.patching.subgraphs.members import Members, check
from circuits.patching.subgraphs.outside import Outside, OutsideKind, outside_of, prompts_outside
from circuits.progress import Progress, silent
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import AnyMetric, fitted


@torch.no_grad()
def run_subgraph(
    model: Model, own: Run, other: Run, circuit: Circuit | Members, *, outside: OutsideKind = "corrupt"
) -> Float[Tensor, "prompt position d_vocab"]:
    """Logits of the prompts of `own` when every reader takes the writers that feed it inside the circuit as they now are,
    and all others from the run `other` (Conmy et al. 2023). The full graph gives `own`, the empty one `other`.

    The circuit's graph may be that of heads and MLPs or of neurons. `outside` as in `run_circuits`. Exact; models with a norm
    after a sublayer and a bias inside it share the bias's change with no writer. Raises GraphError for another graph.
    """
    members = Members.of(circuit)
    check(model.graph(neurons=members.graph.neurons), [members])
    geometry = Geometry(model.weights, own.tokens, model.dtype)
    rest = outside_of(outside, other, neurons=members.graph.neurons)
    carried = CircuitPass(model.weights, geometry, own.residuals[0], rest, [members], 0)
    return unembed(model.weights, carried.run(None)[0])


class Circuits:
    """Clean and corrupt runs that serve any number of circuits (a graph of heads and MLPs, or of neurons)."""

    def __init__(
        self, model: Model, pairs: PromptPairs, metric: AnyMetric, *, outside: OutsideKind = "corrupt", budget: int = BUDGET
    ) -> None:
        self.model, self.pairs, self.metric, self.budget = model, pairs, fitted(metric, model, pairs), budget
        with torch.no_grad():
            self.own, self.other = (plain_run(model, side) for side in (pairs.clean, pairs.corrupt))
        self.outside: OutsideKind = outside
        self._rest: dict[bool, Outside] = {}
        self.start = first_column(model, pairs, outside)
        self.reading = Reading.of(self.metric, pairs)
        self.clean, self.corrupt = (self._scores(run.residuals[-1]) for run in (self.own, self.other))

    def rest(self, neurons: bool) -> Outside:
        """What edges outside carry, in a graph of neurons or of whole MLPs."""
        if neurons not in self._rest:
            self._rest[neurons] = outside_of(self.outside, self.other, neurons=neurons)
        return self._rest[neurons]

    def baseline(self, *, neurons: bool = False) -> Float[Tensor, " prompt"]:
        """The metric of the empty circuit, from which faithfulness counts: the corrupt run's where its values are outside."""
        if self.outside == "corrupt":
            return self.corrupt
        nothing = torch.zeros(0, dtype=torch.long)
        return self.scores([Members(self.model.graph(neurons=neurons), nothing, nothing)])[0]

    def _scores(self, final: Tensor) -> Float[Tensor, " prompt"]:
        return self.reading.scores(self.model.weights, self.reading.at_columns(final)[None])[0]

    @torch.no_grad()
    def scores(
        self, circuits: Sequence[Circuit | Members], *, progress: Progress | None = None, what: str = "running circuits"
    ) -> Float[Tensor, "circuit prompt"]:
        """The metric of every circuit on every prompt. Raises GraphError for circuits of another graph, NonFiniteError where
        the metric is not a number."""
        members = [Members.of(circuit) for circuit in circuits]
        report = progress or silent
        found = self.clean.new_zeros(len(members), len(self.pairs))
        for neurons in (False, True):
            rows = [row for row, one in enumerate(members) if one.graph.neurons == neurons]
            graph = self.model.graph(neurons=neurons)
            check(graph, [members[row] for row in rows])
            whole = [row for row in rows if len(members[row]) == graph.edge_count]
            # A circuit of all edges is the clean run: the numbers that are at hand, not their like after another order of sums.
            found[whole] = self.clean
            self._run([row for row in rows if row not in set(whole)], members, found, report, what)
        report(what, len(members), len(members))
        if not bool(found.isfinite().all()):
            circuit, prompt = (~found.isfinite()).nonzero()[0].tolist()
            raise NonFiniteError(f"the metric is {float(found[circuit, prompt])} on prompt {prompt} with circuit {circuit}")
        return found

    def _run(self, rows: list[int], members: list[Members], found: Tensor, report: Progress, what: str) -> None:
        if not rows:
            return
        # Many circuits on few prompts before few circuits on many: what is at rest is shared by the circuits of a pass.
        together, prompts = self._at_once(members[rows[0]].graph, len(rows))
        for first in range(0, len(rows), together):
            report(what, first, len(members))
            chosen = rows[first : first + together]
            starts = range(0, len(self.pairs), prompts)
            parts = (slice(start, min(start + prompts, len(self.pairs))) for start in starts)
            final = torch.cat([self._pass([members[row] for row in chosen], part) for part in parts], dim=1)
            found[chosen] = read_within(self.budget, self.metric, self.pairs, self.model.weights, final)

    def _at_once(self, graph: Graph, circuits: int) -> tuple[int, int]:
        """How many circuits and prompts one pass takes."""
        width = self.pairs.clean.ids.shape[1] - self.start
        # What every writer moved by, and at the widest point (q, k, v, z of a layer) four streams a head.
        dense = 1 + graph.n_layers * (graph.n_heads + (0 if graph.neurons else graph.mlp_writers))
        one = (dense + 4 * graph.n_heads + 8) * width * self.model.d_model * torch.finfo(self.model.dtype).bits // 8
        room = max(1, self.budget // one)
        together = min(circuits, room)
        return together, max(1, min(len(self.pairs), room // together))

    def _pass(self, members: list[Members], part: slice) -> Float[Tensor, "circuit prompt 1 d_model"]:
        """Final residual streams of some prompts at their answer columns."""
        tokens = TokenBatch(self.own.tokens.ids[part], self.own.tokens.mask[part])
        geometry = Geometry(self.model.weights, tokens, self.model.dtype)
        rest = prompts_outside(self.rest(members[0].graph.neurons), part)
        carried = CircuitPass(self.model.weights, geometry, self.own.residuals[0][part], rest, members, self.start)
        return carried.run(self.reading.columns[part])


def first_column(model: Model, pairs: PromptPairs, outside: OutsideKind) -> int:
    """The first column where clean values and those outside can differ."""
    # Means and zeros differ from the clean run at the first token already; without a causal mask so does everything.
    if outside != "corrupt" or not model.weights.causal:
        return 0
    used = differing(pairs, causal=True).any(dim=0).nonzero()[:, 0]
    first = int(used[0]) if len(used) else pairs.clean.ids.shape[1] - 1
    # Streams are kept from here on, and the answer columns must be among them even where nothing moves by then.
    return min(first, int(pairs.answer_columns.min()))


def run_circuits(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    circuits: Sequence[Circuit | Members],
    *,
    outside: OutsideKind = "corrupt",
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Float[Tensor, "circuit prompt"]:
    """The metric of every circuit on every clean prompt, with other values on the edges outside it: `[circuit prompt]`.

    All circuits ride together and share both base runs. Graphs of heads and MLPs and of neurons may be mixed. Exact. Raises
    GraphError for circuits of another model's graph.

    Args:
        model: the model that the circuits are of.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        circuits: the circuits, each a set of edges.
        outside: what edges outside a circuit carry: the corrupt prompts' values, their mean over prompts, or zero ("corrupt",
            "mean", "zero").
        budget: bytes of a pass.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    return Circuits(model, pairs, metric, outside=outside, budget=budget).scores(circuits, progress=progress)
