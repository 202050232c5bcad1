"""How far every writer of every circuit has moved from what edges outside carry, and what readers read of it."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.graph import Graph
from circuits.patching.subgraphs.members import Members

Picked = tuple[Tensor, Tensor]
"""Indices of prompts and columns, of one shape together."""


class Differences:
    """Input, heads and whole MLPs are held as what they write; neurons as activations beside their output weights."""

    def __init__(self, graph: Graph, circuits: Sequence[Members], first: Float[Tensor, "prompt position d_model"]) -> None:
        self.graph, self.count = graph, len(circuits)
        self._edges = [_by_reader(members) for members in circuits]
        self._layer_writers = graph.n_heads + graph.mlp_writers
        self._dense_layer = graph.n_heads + (0 if graph.neurons else graph.mlp_writers)
        # Writers stand before prompts and positions, so that all that one circuit's readers read is one product: a 0-1 matrix
        # of edges times this table, flattened without a copy.
        self._dense = first.new_zeros(self.count, 1 + graph.n_layers * self._dense_layer, *first.shape)
        self._dense[:, 0] = first
        self._moved: Bool[Tensor, "circuit writer"] = torch.zeros(self.count, graph.writer_count, dtype=torch.bool)
        # An input that is what edges outside carry moves nothing: then every node that reads only it is at rest and is not run.
        self._moved[:, 0] = bool((first != 0).any())
        self._neurons = [_Neurons(first) for _ in circuits]
        self._row = torch.full((self.count, graph.writer_count), -1) if graph.neurons else None

    def set_heads(self, layer: int, circuits: list[int], moves: Tensor, touched: Bool[Tensor, "circuit head"]) -> None:
        """What the heads of a layer now write less what is outside, `[circuit head prompt position d_model]`."""
        start, place = 1 + layer * self._dense_layer, 1 + layer * self._layer_writers
        self._dense[circuits, start : start + self.graph.n_heads] = moves
        self._moved[circuits, place : place + self.graph.n_heads] = touched

    def set_mlp(self, layer: int, circuits: list[int], moves: Float[Tensor, "circuit prompt position d_model"]) -> None:
        """The same of a whole MLP."""
        self._dense[circuits, 1 + layer * self._dense_layer + self.graph.n_heads] = moves
        self._moved[circuits, self._mlp_place(layer)] = True

    def moved_mlp(self, layer: int, circuit: int) -> bool:
        """Whether a whole MLP has moved."""
        return bool(self._moved[circuit, self._mlp_place(layer)])

    def _mlp_place(self, layer: int) -> int:
        return 1 + layer * self._layer_writers + self.graph.n_heads

    def set_neurons(
        self,
        layer: int,
        circuit: int,
        chosen: Int[Tensor, " neuron"],
        change: Float[Tensor, "prompt position d_mlp"],
        W: Float[Tensor, "d_mlp d_model"],
    ) -> None:
        """The changes of activations of some neurons of a layer."""
        assert self._row is not None
        # Activation and output weights instead of their product: of every neuron that would be prompts x positions x d_model.
        places = self._mlp_place(layer) + chosen
        first = self._neurons[circuit].add(change[:, :, chosen].flatten(0, 1).T, W[chosen])
        self._row[circuit, places] = first + torch.arange(len(places))
        self._moved[circuit, places] = True

    def reads(
        self,
        start: int,
        stop: int,
        rest: Float[Tensor, "prompt position d_model"],
        budget: int,
        picked: Picked | None = None,
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each circuit the readers from one place up to another whose writers inside have moved, and what they read,
        `[reader prompt position d_model]`, in parts within a budget of bytes. `rest`: what they read at rest. `picked`: the
        prompts and positions that are wanted."""
        # Three arrays of that size are alive at once: what is read, and two within a norm.
        at_once = max(1, budget // (3 * rest.numel() * rest.element_size()))
        for circuit, (writers, readers) in enumerate(self._edges):
            low, high = torch.searchsorted(readers, torch.tensor([start, stop])).tolist()
            if low == high:
                continue
            # A writer that did not move adds zero, and a reader none of whose writers moved computes what it does at rest: in a
            # small circuit that is nearly all of them.
            kept = self._moved[circuit, writers[low:high]]
            edge_writers, edge_readers = writers[low:high][kept], readers[low:high][kept]
            chosen, rows = edge_readers.unique(return_inverse=True)
            for first in range(0, len(chosen), at_once):
                inside = (rows >= first) & (rows < first + at_once)
                part = chosen[first : first + at_once]
                yield circuit, part, self._read(circuit, edge_writers[inside], rows[inside] - first, len(part), rest, picked)

    def _read(
        self, circuit: int, writers: Tensor, rows: Tensor, count: int, rest: Tensor, picked: Picked | None
    ) -> Float[Tensor, "reader prompt position d_model"]:
        layer, index = (writers - 1) // self._layer_writers, (writers - 1) % self._layer_writers
        dense = (writers == 0) | (index < self._dense_layer)
        column = torch.where(writers == 0, 0, 1 + layer * self._dense_layer + index)[dense]
        # Later writers hold nothing yet: the product stops at the latest one that is read.
        used = int(column.max()) + 1 if len(column) else 0
        table = self._dense[circuit, :used]
        table = table if picked is None else table[:, picked[0], picked[1]]
        mask = rest.new_zeros(count, used)
        mask[rows[dense], column] = 1.0
        # `repeat`, not `expand`: neurons are added in place below, and rows of one memory would all get all of them.
        read = torch.addmm(rest.flatten()[None], mask, table.flatten(1)) if used else rest.flatten()[None].repeat(count, 1)
        if not bool(dense.all()):
            assert self._row is not None
            self._neurons[circuit].add_to(read, self._row[circuit, writers[~dense]], rows[~dense], picked)
        return read.unflatten(1, rest.shape)


class _Neurons:
    """The neurons of one circuit that moved: changes of activation and output weights, a row each."""

    def __init__(self, like: Float[Tensor, "prompt position d_model"]) -> None:
        prompts, positions, d_model = like.shape
        self._shape = (prompts, positions)
        # Row 0 is the neuron that fills up readers of fewer neurons than their size: zero on both sides.
        self._changes = like.new_zeros(1, prompts * positions)
        self._weights = like.new_zeros(1, d_model)

    def add(self, changes: Float[Tensor, "neuron row"], W: Float[Tensor, "neuron d_model"]) -> int:
        """Take in some neurons; gives the row of the first. Row 0 is a neuron that does nothing."""
        first = len(self._changes)
        self._changes, self._weights = torch.cat([self._changes, changes]), torch.cat([self._weights, W])
        return first

    def add_to(self, read: Float[Tensor, "reader flat"], neurons: Tensor, rows: Tensor, picked: Picked | None) -> None:
        """Add what neurons (by their rows here) write to what readers read, in place. Readers are taken together by how many
        neurons they read, rounded up to a power of two."""
        changes = self._changes
        if picked is not None:
            changes = changes.unflatten(1, self._shape)[:, picked[0], picked[1]].flatten(1)
        # bmm wants equally many neurons a reader. Padding all to the longest would cost readers x longest; by powers of two it
        # costs less than twice the edges, in few products.
        order = rows.argsort(stable=True)
        neurons, rows = neurons[order], rows[order]
        counts = torch.bincount(rows, minlength=len(read))
        firsts = counts.cumsum(0) - counts
        # In float64: log2 of 2^21 + 1 is 21 in float32, the size came out too small, and neurons were left out unsaid.
        sizes = torch.where(counts > 0, 2 ** counts.clamp(min=1).double().log2().ceil().long(), 0)
        for size in sizes.unique().tolist():
            if size == 0:
                continue
            which = (sizes == size).nonzero()[:, 0]
            offsets = torch.arange(size)[None]
            taken = firsts[which][:, None] + offsets
            table = torch.where(offsets < counts[which][:, None], neurons[taken.clamp(max=len(neurons) - 1)], 0)
            at_once = max(1, 2**24 // (size * (changes.shape[1] + self._weights.shape[1])))
            for part, into in zip(table.split(at_once), which.split(at_once), strict=True):
                moved = torch.bmm(changes[part].transpose(1, 2), self._weights[part])
                read[into] += moved.flatten(1)


def _by_reader(members: Members) -> tuple[Tensor, Tensor]:
    """A circuit's edges, sorted by reader."""
    # By reader, so that a layer's edges are one slice (found by bisection); stable, so that a reader's writers stay in the
    # order of computation and sums do not depend on how the circuit was put together.
    order = members.readers.argsort(stable=True)
    return members.writers[order], members.readers[order].contiguous()
