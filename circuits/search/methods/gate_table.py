"""A run by gates and its gradient by them, in little memory: how far every writer moved, in one table."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.devices import meeting
from circuits.search.methods.gated_run import GatedRun


def final_stream(run: GatedRun, gates: Float[Tensor, "given writer reader"]) -> Float[Tensor, "prompt 1 d_model"]:
    """The final residual stream at the answer columns; gates of its own for every prompt, or (a first axis of 1) one for
    all. Differentiable by all gates."""
    return Final.apply(gates, run)  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Who moves in a layer: some heads (q: the readers that are their queries, kv: their groups' keys and values, by place),
    and perhaps the MLP; and where their rows stand in a table of all that move."""

    heads: Int[Tensor, " head"]
    q: Int[Tensor, " head"]
    kv: Int[Tensor, " reader"]
    mlp: Int[Tensor, " mlp"]
    before: int
    """Rows of the writers before the layer; then stand the heads, then the MLP."""
    own_heads: bool
    """Whether the MLP reads the heads of its own layer."""

    @property
    def readers(self) -> Int[Tensor, " all"]:
        """All of them."""
        return torch.cat([self.q, self.kv, self.mlp])

    @property
    def rows(self) -> slice:
        """The heads' rows."""
        return slice(self.before, self.before + len(self.heads))

    @property
    def after(self) -> int:
        """Rows up to the layer's end."""
        return self.rows.stop + len(self.mlp)


class Final(torch.autograd.Function):
    """The final residual stream by gates, and its gradient by them.

    Backwards layer by layer, each computed once more: autograd would keep, in every layer, what all writers before it moved by
    and what all its readers read, some twenty times as much as the two tables that are kept here, a row a writer: how far it
    moved, and the gradient by that.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, run: GatedRun) -> Tensor:
        """Run layer by layer, keeping how far each writer moved."""
        ctx.table = GateTable(run, gates.detach())
        return ctx.table.final()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """The gradient by the gates."""
        with meeting():
            return ctx.table.gradient(slopes[0].to(ctx.table.moves.device)), None


TOGETHER = 4
"""Layers whose readers take what lies before all of them from the table in one product: reading it costs more than
the products."""


class GateTable:
    """How far every writer that moves has moved, `[writer prompt position d_model]`, from column `start` on; and, for what only
    the answer columns are read of, at these, `[writer prompt 1 d_model]`."""

    def __init__(self, run: GatedRun, gates: Float[Tensor, "given writer reader"]) -> None:
        self.run, self.every = run, gates
        self.layers, self.writers = moving(run, gates)
        self.last = len(self.layers) - 1
        input_moves = (run.own.residuals[0] - run.rest.input)[:, run.slots.start :]
        self.moves = input_moves.new_zeros(self.layers[-1].before if self.layers else 1, *input_moves.shape)
        self.moves[0] = input_moves
        for group in self.groups():
            reads = self._reads_before(group)
            for index in group:
                self._run(index, self.moves, *self._reads(index, group, reads))
        self.picked = run.slots.pick(self.moves)
        if self.layers:
            new = self.picked.new_zeros(self.layers[-1].after - self.layers[-1].before, *self.picked.shape[1:])
            self.picked = torch.cat([self.picked, new])
            self._run(self.last, self.picked, *self._last_reads())

    def groups(self) -> list[range]:
        """The layers before the last, some at a time."""
        return [range(first, min(first + TOGETHER, self.last)) for first in range(0, self.last, TOGETHER)]

    def gates(self, writers: slice, readers: Tensor) -> Float[Tensor, "given moving reader"]:
        """Those between rows of the table and some readers."""
        return self.every[:, self.writers[writers]][:, :, readers]

    def _run(self, index: int, moves: Tensor, q: Tensor, kv: Tensor, mlp: Tensor) -> None:
        """Compute a layer's rows of the table."""
        layer = self.layers[index]
        if len(layer.heads):
            moves[layer.rows] = self.run.attention(index, layer.heads, q, kv)
        if len(layer.mlp):
            moves[layer.after - 1] = self.run.mlp(index, self.with_heads(layer, mlp, moves))[0]

    def _reads_before(self, group: range) -> Float[Tensor, "reader prompt position d_model"]:
        """What the readers of some layers read of the writers before these layers."""
        before = slice(0, self.layers[group[0]].before)
        return mixed(self.gates(before, self._readers(group)), self.moves[before])

    def _readers(self, group: range) -> Int[Tensor, " reader"]:
        return torch.cat([self.layers[index].readers for index in group])

    def _reads(self, index: int, group: range, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a layer's queries, keys and values, and MLP read of what lies before the layer; `before`: of what lies before
        the group, all its readers."""
        layer, first = self.layers[index], sum(len(self.layers[other].readers) for other in range(group[0], index))
        found = before[first : first + len(layer.readers)]
        inside = slice(self.layers[group[0]].before, layer.before)
        if inside.stop > inside.start:
            found = found + mixed(self.gates(inside, layer.readers), self.moves[inside])
        q, kv, mlp = found.split([len(layer.q), len(layer.kv), len(layer.mlp)])
        rest, mlp_rest = self._rest(index)
        return q + rest, kv + rest, mlp + mlp_rest

    def _last_reads(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the last layer, whose queries and MLP are at the answer columns."""
        layer, before, pick = self.layers[-1], slice(0, self.layers[-1].before), self.run.slots.pick
        rest, mlp_rest = self._rest(self.last)
        q, mlp = (mixed(self.gates(before, readers), self.picked[before]) for readers in (layer.q, layer.mlp))
        return pick(rest) + q, rest + mixed(self.gates(before, layer.kv), self.moves), pick(mlp_rest) + mlp

    def _rest(self, index: int) -> tuple[Tensor, Tensor]:
        """What attention and MLP read where nothing has moved."""
        rest, start = self.run.rest.layers[index], self.run.slots.start
        reads = rest.attention_reads[:, start:]
        return reads, reads if rest.mlp_reads is None else rest.mlp_reads[:, start:]

    def with_heads(self, layer: Layer, reads: Tensor, moves: Tensor) -> Tensor:
        """What the MLP reads, with what the heads of its own layer bring, where it reads them."""
        if not layer.own_heads or not len(layer.heads):
            return reads
        return reads + mixed(self.gates(layer.rows, layer.mlp), moves[layer.rows])

    def final(self) -> Float[Tensor, "prompt 1 d_model"]:
        """The residual stream that the logits read."""
        rest = self.run.slots.pick(self.run.rest.final[:, self.run.slots.start :])
        return rest + mixed(self.gates(slice(None), self._logits), self.picked)[0]

    @property
    def _logits(self) -> Int[Tensor, " reader"]:
        return torch.tensor([self.every.shape[2] - 1])

    def gradient(self, slope: Float[Tensor, "prompt 1 d_model"]) -> Float[Tensor, "given writer reader"]:
        """The gradient by the gates, from that by the final residual stream; 0 at gates of nodes that nothing reads, or
        that read nothing."""
        back = Backward(self, torch.zeros_like(self.every), torch.zeros_like(self.moves), torch.zeros_like(self.picked))
        back.take(slice(0, len(self.writers)), self._logits, slope[None], thin=True)
        if self.layers:
            q, kv, mlp = back.layer(self.last, self.picked, back.picked, *self._last_reads())
            layer, before = self.layers[-1], slice(0, self.layers[-1].before)
            back.take(before, torch.cat([layer.q, layer.mlp]), torch.cat([q, mlp]), thin=True)
            back.take(before, layer.kv, kv, thin=False)
        # What was read at the answer columns alone stands there in the whole table, too.
        slots = self.run.slots
        back.slopes[:, slots.rows, slots.columns - slots.start] += back.picked[: len(back.slopes)]
        for group in reversed(self.groups()):
            reads, found = self._reads_before(group), []
            for index in reversed(group):
                layer, inside = self.layers[index], slice(self.layers[group[0]].before, self.layers[index].before)
                by = torch.cat(back.layer(index, self.moves, back.slopes, *self._reads(index, group, reads)))
                back.take(inside, layer.readers, by, thin=False)
                found.append(by)
            before = slice(0, self.layers[group[0]].before)
            back.take(before, self._readers(group), torch.cat(found[::-1]), thin=False)
        return back.found


@dataclasses.dataclass(frozen=True, eq=False)
class Backward:
    """Gradients under way: by gates, and by what writers moved, in the whole table and at the answer columns."""

    table: GateTable
    found: Float[Tensor, "given writer reader"]
    slopes: Float[Tensor, "moving prompt position d_model"]
    picked: Float[Tensor, "moves prompt one d_model"]

    def take(self, writers: slice, readers: Tensor, slope: Tensor, *, thin: bool) -> None:
        """Take in the gradient by what some readers read of some writers."""
        if writers.stop <= writers.start or not len(readers):
            return
        moves, into = (self.table.picked, self.picked) if thin else (self.table.moves, self.slopes)
        by_gates = met(moves[writers], slope, shared=len(self.found) == 1)
        self.found[:, self.table.writers[writers, None], readers] += by_gates
        spread(into[writers], self.table.gates(writers, readers), slope)

    def layer(
        self, index: int, moves: Tensor, into: Tensor, q: Tensor, kv: Tensor, mlp: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients by what a layer's queries, keys and values, and MLP read of what lies before the layer."""
        run, layer = self.table.run, self.table.layers[index]
        by_mlp, by_q, by_kv = torch.zeros_like(mlp), torch.zeros_like(q), torch.zeros_like(kv)
        if len(layer.mlp):
            reads = self.table.with_heads(layer, mlp, moves)
            (by_mlp,) = pulled(lambda x: run.mlp(index, x), into[layer.after - 1, None], reads)
            if layer.own_heads:
                self.take(layer.rows, layer.mlp, by_mlp, thin=moves is self.table.picked)
        if len(layer.heads):
            by_q, by_kv = pulled(lambda a, b: run.attention(index, layer.heads, a, b), into[layer.rows], q, kv)
        return by_q, by_kv, by_mlp


def moving(run: GatedRun, gates: Float[Tensor, "given writer reader"]) -> tuple[list[Layer], Int[Tensor, " moving"]]:
    """Who has a row, layer by layer, and the places of all writers that do: the input, and nodes that read something, or are
    read, by a gate that is not closed (one that is read alone rests, but gates into it have a gradient). Where outside holds
    means or zeros all do: what a node gives that reads these alone is another thing."""
    graph, layers, writers = run.graph, [], [torch.zeros(1, dtype=torch.long)]
    is_open = (gates != 0).any(dim=0).cpu()
    open_readers, read = is_open.any(dim=0) | (not run.rest.resting), is_open.any(dim=1)
    size, place, writer, rows = graph.n_heads // graph.n_key_value_heads, 0, 1, 1
    for block in run.model.weights.blocks:
        q, k, v = open_readers[place : place + graph.head_readers].split([graph.n_heads, *[graph.n_key_value_heads] * 2])
        there = q | (k | v).repeat_interleave(size) | read[writer : writer + graph.n_heads]
        # A norm behind attention divides all its heads by one number, which any of them moves.
        heads = (there | (there.any() & (block.attention_post_norm is not None))).nonzero()[:, 0]
        groups = (heads // size).unique()
        kv = torch.cat([graph.n_heads + groups, graph.n_heads + graph.n_key_value_heads + groups])
        mlps = torch.arange(graph.mlp_writers)
        mlp = mlps[open_readers[place + graph.head_readers + mlps] | read[writer + graph.n_heads + mlps]]
        own = slice(place + graph.head_readers, place + graph.head_readers + graph.mlp_writers)
        before = rows
        rows += len(heads) + len(mlp)
        layers.append(Layer(heads, place + heads, place + kv, own.start + mlp, before, not graph.parallel))
        writers += [writer + heads, writer + graph.n_heads + mlp]
        place, writer = own.stop, writer + graph.n_heads + graph.mlp_writers
    return layers, torch.cat(writers)


def mixed(gates: Float[Tensor, "given writer reader"], moves: Tensor) -> Float[Tensor, "reader prompt position d_model"]:
    """What readers read: the sum over writers of their moves times the gates."""
    if len(gates) == 1:
        return (gates[0].T @ moves.flatten(1)).unflatten(1, moves.shape[1:])
    return torch.einsum("pwr,wpcd->rpcd", gates, moves)


def spread(into: Tensor, gates: Float[Tensor, "given writer reader"], slopes: Tensor) -> None:
    """Add, in place, the gradients by what writers moved, from those by what readers read."""
    if len(gates) == 1:
        into.view(len(into), -1).addmm_(gates[0], slopes.flatten(1))
    else:
        into += torch.einsum("pwr,rpcd->wpcd", gates, slopes)


def met(moves: Tensor, slopes: Tensor, *, shared: bool) -> Float[Tensor, "given writer reader"]:
    """The gradients by gates: each writer's move times each reader's gradient, summed over positions, and over prompts where
    these share their gates."""
    if shared:
        return (moves.flatten(1) @ slopes.flatten(1).T)[None]
    return torch.einsum("wpcd,rpcd->pwr", moves, slopes)


def pulled(function: Callable[..., Tensor], slope: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients by some inputs, from that by what a function makes of them."""
    with torch.enable_grad():
        given = [x.detach().requires_grad_(True) for x in inputs]
        found = function(*given)
        return torch.autograd.grad(found, given, slope.to(found.device))
