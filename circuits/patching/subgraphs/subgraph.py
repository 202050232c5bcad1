"""Running subgraphs: edges inside a circuit carry the present run's values, edges outside it others."""

import copy
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.graph import Circuit, Graph
from circuits.models import Model, Run, TokenBatch
from circuits.models.geometry import Geometry
from circuits.models.layers import unembed
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run, some_prompts
from circuits.patching.engine.reading import Reading, read_within
from circuits.patching.engine.sites import differing
from circuits.patching.subgraphs.circuit_pass import CircuitPass
from circuits.patching.subgraphs.members import Members, check
from circuits.patching.subgraphs.outside import Outside, OutsideKind, outside_of, prompts_outside
from circuits.patching.subgraphs.sharing import Sharing
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted
from circuits.tasks.role_columns import RoleColumns


@torch.no_grad()
def run_subgraph(
    model: Model,
    own: Run,
    other: Run,
    circuit: Circuit | Members,
    *,
    outside: OutsideKind = "corrupt",
    roles: RoleColumns | None = None,
) -> Float[Tensor, "prompt position d_vocab"]:
    """Logits of the prompts of `own` when every reader takes the writers that feed it inside the circuit as they now are,
    and all others from the run `other` (Conmy et al. 2023). The full graph gives `own`, the empty one `other`.

    The circuit's graph may be that of heads and MLPs, with roles of tokens (which tokens have which: `roles`, of the pairs) or
    without, or of neurons. `outside` as in `run_circuits`. Exact; models with a norm
    after a sublayer and a bias inside it share the bias's change with no writer. Raises GraphError for another graph.
    """
    members = Members.of(circuit)
    graph = members.graph
    check(model.graph(neurons=graph.neurons, roles=graph.roles), [members])
    geometry = Geometry(model.weights, own.tokens, model.dtype)
    rest = outside_of(outside, other, neurons=graph.neurons)
    masks = role_masks(graph, roles)
    moves = input_moves(own.residuals[0] != rest.input, masks)
    circuits = Sharing(graph, model.weights.blocks, input_moves=moves, resting=rest.resting)
    circuits.take(members)
    carried = CircuitPass(model.weights, geometry, own.residuals[0], rest, circuits, 0, masks)
    return unembed(model.weights, carried.run(None)[0])


def role_masks(graph: Graph, roles: RoleColumns | None) -> Bool[Tensor, "role prompt position"] | None:
    """Which tokens have each role of a graph; None for a graph without. Raises PromptError where the prompts have no such
    roles, or look at one another where the graph's do not."""
    if graph.roles is None:
        return None
    if roles is None:
        raise PromptError("the circuit is one of roles of tokens, and these prompts have none: circuits.tasks.roles names them")
    for query, seen in zip(roles.names, roles.roles.looks, strict=True):
        known = graph.roles.looks[graph.roles.place(query)] if query in graph.roles.names else ()
        looked = [
            roles.names[place] for place in seen if query in graph.roles.names and roles.names[place] in graph.roles.names
        ]
        if behind := [name for name in looked if graph.roles.place(name) not in known]:
            raise PromptError(
                f"in these prompts {query} comes after {behind[0]}, in those that the circuit is of it never does"
            )
    return roles.masks(graph.roles)


def input_moves(
    moved: Bool[Tensor, "prompt position d_model"], masks: Bool[Tensor, "role prompt position"] | None
) -> list[bool]:
    """Whether the input differs from what edges outside carry, for each role."""
    if masks is None:
        return [bool(moved.any())]
    return (masks & moved.any(dim=2)).any(dim=(1, 2)).tolist()


_PARTS = 4
"""Passes that the prompts of some circuits are run in at least, where that leaves each its rows."""
_ROWS = 96
"""Tokens that a pass takes at least, where there are as many."""


class Circuits:
    """Clean and corrupt runs that serve any number of circuits (of a graph of heads and MLPs, of neurons, or with the roles
    that the pairs have)."""

    def __init__(
        self, model: Model, pairs: PromptPairs, metric: AnyMetric, *, outside: OutsideKind = "corrupt", budget: int = BUDGET
    ) -> None:
        self.model, self.pairs, self.metric, self.budget = model, pairs, fitted(metric, model, pairs), budget
        with torch.no_grad():
            self.own, self.other = (plain_run(model, side) for side in (pairs.clean, pairs.corrupt))
        self.outside: OutsideKind = outside
        self._rest: dict[bool, Outside] = {}
        self._whole: tuple[Circuits, slice] | None = None
        self.start = first_column(model, pairs, outside)
        self.reading = Reading.of(self.metric, pairs)
        self.clean, self.corrupt = (self._scores(run.residuals[-1]) for run in (self.own, self.other))

    def on(self, rows: slice) -> "Circuits":
        """The same on some of the prompts, whose runs are not made again. Raises CircuitsError where the metric has to see all
        prompts."""
        if not self.metric.by_prompt:
            raise CircuitsError(f"{self.metric.name} does not score each prompt by itself: it cannot be cut to some of them")
        some = copy.copy(self)
        some.pairs, some.metric = self.pairs[rows], self.metric.on(rows)
        some.own, some.other = some_prompts(self.own, rows), some_prompts(self.other, rows)
        # What is outside stays what it is on all prompts: their mean, for one.
        some._whole, some._rest = (self, rows), {}
        some.reading = Reading.of(some.metric, some.pairs)
        some.clean, some.corrupt = self.clean[rows], self.corrupt[rows]
        return some

    def rest(self, neurons: bool) -> Outside:
        """What edges outside carry, in a graph of neurons or of whole MLPs."""
        if neurons not in self._rest and self._whole is not None:
            whole, rows = self._whole
            self._rest[neurons] = prompts_outside(whole.rest(neurons), rows)
        elif neurons not in self._rest:
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
        for given in dict.fromkeys(one.graph for one in members):
            rows = [row for row, one in enumerate(members) if one.graph == given]
            graph = self.model.graph(neurons=given.neurons, roles=given.roles)
            check(graph, [members[row] for row in rows])
            role_masks(graph, self.pairs.roles)
            # With roles that the prompts have besides, all edges of a graph are not the whole model.
            whole = [row for row in rows if len(members[row]) == graph.edge_count and graph.roles is None]
            # A circuit of all edges is the clean run: the numbers that are at hand, not their like after another order of sums.
            found[whole] = self.clean
            self._run([row for row in rows if row not in set(whole)], members, found, report, what)
        report(what, len(members), len(members))
        if not bool(found.isfinite().all()):
            circuit, prompt = (~found.isfinite()).nonzero()[0].tolist()
            raise NonFiniteError(f"the metric is {float(found[circuit, prompt])} on prompt {prompt} with circuit {circuit}")
        return found

    def _run(self, rows: list[int], members: list[Members], found: Tensor, report: Progress, what: str) -> None:
        groups = list(self._together(members, rows))
        passes = [(circuits, part) for circuits in groups for part in self._parts(circuits)]
        finals = shards(what, len(passes), lambda place: self._pass(*passes[place]))
        done = 0
        for circuits in groups:
            report(what, done, len(members))
            chosen = rows[done : done + len(circuits.finals)]
            done += len(chosen)
            final = torch.cat([next(finals) for _ in self._parts(circuits)], dim=1).to(self.clean.device)
            found[chosen] = read_within(self.budget, self.metric, self.pairs, self.model.weights, final)

    def _parts(self, circuits: Sharing) -> list[slice]:
        """The prompts of each pass of some circuits."""
        prompts = max(1, self._room(circuits.graph) // (len(circuits.needed()[0]) + self._widest(circuits.graph)))
        # Several passes where each still has rows enough: they can be kept, and shared by processes.
        width = self.pairs.clean.ids.shape[1] - self.start
        least = -(-_ROWS // (width * len(circuits.finals)))
        prompts = min(prompts, max(-(-len(self.pairs) // _PARTS), least))
        # Passes of like size: one of a few prompts that are left over takes nearly as long as a whole one.
        prompts = -(-len(self.pairs) // -(-len(self.pairs) // prompts))
        return [slice(start, min(start + prompts, len(self.pairs))) for start in range(0, len(self.pairs), prompts)]

    def _together(self, members: list[Members], rows: list[int]) -> Iterator[Sharing]:
        """The circuits of these rows, those together that one pass takes on a few prompts at least."""
        # Many circuits on few prompts before few circuits on many: what they have in common is computed once. But a product of
        # too few rows wastes the time in which its weights are fetched.
        width = self.pairs.clean.ids.shape[1] - self.start
        prompts = min(len(self.pairs), -(-_ROWS // width))
        circuits = None
        for row in rows:
            graph = members[row].graph
            room = self._room(graph) // prompts - self._widest(graph)
            if circuits is not None and circuits.take(members[row], room):
                continue
            if circuits is not None:
                yield circuits
            circuits = self._sharing(graph)
            circuits.take(members[row])
        if circuits is not None:
            yield circuits

    def _sharing(self, graph: Graph) -> Sharing:
        rest, masks = self.rest(graph.neurons), role_masks(graph, self.pairs.roles)
        masks = None if masks is None else masks[:, :, self.start :]
        moves = input_moves((self.own.residuals[0] != rest.input)[:, self.start :], masks)
        return Sharing(graph, self.model.weights.blocks, input_moves=moves, resting=rest.resting)

    def _room(self, graph: Graph) -> int:
        """How many residual streams of one prompt, from the first column that differs, fit the budget."""
        width = self.pairs.clean.ids.shape[1] - self.start
        return self.budget // (width * self.model.d_model * torch.finfo(self.model.dtype).bits // 8)

    @staticmethod
    def _widest(graph: Graph) -> int:
        """Streams of one prompt at the widest point of a pass, beside the values: q, k, v and z of a layer."""
        return 4 * graph.n_heads * graph.role_count + 8

    def _pass(self, circuits: Sharing, part: slice) -> Float[Tensor, "circuit prompt 1 d_model"]:
        """Final residual streams of some prompts at their answer columns."""
        tokens = TokenBatch(self.own.tokens.ids[part], self.own.tokens.mask[part])
        geometry = Geometry(self.model.weights, tokens, self.model.dtype)
        rest = prompts_outside(self.rest(circuits.graph.neurons), part)
        masks = role_masks(circuits.graph, self.pairs[part].roles)
        carried = CircuitPass(self.model.weights, geometry, self.own.residuals[0][part], rest, circuits, self.start, masks)
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
