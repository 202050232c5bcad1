"""One pass of many circuits over some prompts: every reader reads what is outside its circuit, and how far its writers
inside have moved from that.

A node's value here is what it now writes minus what edges outside carry for it. A reader whose writers inside have not moved
computes what it computes at rest, and what circuits have in common is computed once (`sharing.py`): only the rest is run.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.models.folding import through_norm
from circuits.models.geometry import Geometry, Rotation
from circuits.models.layers import (
    SLOTS,
    Slot,
    activated,
    attend,
    headed,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    projected,
)
from circuits.models.weights import MLP, Attention, Block, Weights
from circuits.patching.subgraphs.differences import Differences
from circuits.patching.subgraphs.outside import LayerOutside, Outside, scaled_heads, scaled_neurons
from circuits.patching.subgraphs.sharing import HeadWork, NeuronWork, Reads, Sharing

AT_ONCE = 2**26
"""Bytes of residual streams that readers of one kind read at once."""
_LARGE = 2**13
"""Numbers in a reading from which on a product of its own is worth being started."""
Projected = dict[tuple[Slot, int, Reads], Tensor]
"""Queries, keys and values `[prompt position d_head]` by slot, head (group) and what was read."""


class CircuitPass:
    """Circuits of one graph, run together. `start`: the first column where anything moves. `roles`: of a graph with roles,
    which tokens each has."""

    def __init__(
        self,
        weights: Weights,
        geometry: Geometry,
        own_input: Tensor,
        outside: Outside,
        circuits: Sharing,
        start: int,
        roles: Bool[Tensor, "role prompt position"] | None = None,
    ) -> None:
        self.weights, self.geometry, self.outside, self.start = weights, geometry, outside, start
        self.circuits, (dense, neurons) = circuits, circuits.needed()
        self.work = circuits.work([*dense, *neurons])
        moved = own_input[:, start:] - outside.input[:, start:]
        self.differences = Differences(moved, dense, neurons)
        self._roles = None if roles is None else roles[:, :, start:, None].to(moved.dtype)
        """1 where a role has a token, which is where its values are not zero."""
        for role, value in enumerate(circuits.inputs):
            if value is not None and value in dense:
                self.differences.place(value).copy_(moved if self._roles is None else moved * self._roles[role])

    def run(self, columns: Int[Tensor, "prompt read"] | None) -> Float[Tensor, "circuit prompt read d_model"]:
        """The final residual stream of every circuit at the columns that are read (None: all from `start` on)."""
        layers = zip(self.weights.blocks, self.outside.layers, self.work, strict=True)
        for layer, (block, rest, work) in enumerate(layers):
            if work.heads:
                self._attention(layer, block, rest, work.heads)
            if work.mlps:
                self._mlps(block, rest, work.mlps)
            if work.neurons:
                self._neurons(block, rest, work.neurons)
        return self._final(columns)

    # Attention

    def _attention(self, layer: int, block: Block, rest: LayerOutside, heads: list[HeadWork]) -> None:
        """What some heads of a layer, each in some circuits, now write."""
        attention = block.attention
        values = {slot: self._at_rest(attention, rest, slot, heads) for slot in SLOTS}
        found = self._projected(layer, block, rest, heads)
        for place, slot in enumerate(SLOTS):
            rows = [row for row, head in enumerate(heads) if head.slots[place]]
            if rows:
                # Queries stand from `start` on, keys and values from column 0: what lies before is looked at, as outside.
                into = values[slot] if slot == "q" else values[slot][:, self.start :]
                some = ((_index(attention, slot, heads[row].index), heads[row].slots[place]) for row in rows)
                into[:, :, rows] = torch.stack([found[slot, index, reads] for index, reads in some], dim=2)
        # Heads of however many circuits stand beside each other as heads of one layer do, each with keys of its own.
        alone = dataclasses.replace(attention, n_heads=1, n_key_value_heads=1)
        z = attend(values["q"], values["k"], values["v"], alone, self._bias(attention.window, heads))
        index = [head.index for head in heads]
        if block.attention_post_norm is not None:
            # Heads over the scale of the norm behind them, output weights through its gain: so heads add up to what attention
            # writes.
            z = scaled_heads(z.unflatten(2, (-1, attention.n_heads)), block).flatten(2, 3)
        change = (z - rest.heads[:, self.start :, index]).permute(2, 0, 1, 3).flatten(1, 2)
        if self._roles is not None:
            change *= self._roles[[head.role for head in heads]].flatten(1, 2)
        W = through_norm(attention.W_O, block.attention_post_norm).unflatten(0, (attention.n_heads, -1))
        for moved, head in zip(change, heads, strict=True):
            if head.value is not None:
                torch.mm(moved, W[head.index], out=self.differences.place(head.value).flatten(0, 1))

    def _at_rest(self, attention: Attention, rest: LayerOutside, slot: Slot, heads: list[HeadWork]) -> Tensor:
        """Queries (from `start` on), keys or values of these heads where nothing that they read has moved, a copy."""
        value = rest.slots[slot][:, self.start :] if slot == "q" else rest.slots[slot]
        return value[:, :, [_index(attention, slot, head.index) for head in heads]]

    def _projected(self, layer: int, block: Block, rest: LayerOutside, heads: list[HeadWork]) -> Projected:
        """Queries, keys and values where what is read has moved, each once."""
        wanted: dict[Reads, dict[tuple[Slot, int], None]] = {}
        for head in heads:
            for slot, reads in zip(SLOTS, head.slots, strict=True):
                if reads:
                    wanted.setdefault(reads, {})[slot, _index(block.attention, slot, head.index)] = None
        rotation = self.geometry.rotation(layer)
        if rotation is not None:
            rotation = rotation.picked(lambda table: table[:, self.start :])
        found: Projected = {}
        for part, streams in self.differences.streams(list(wanted), rest.attention_reads[:, self.start :], AT_ONCE):
            normed = normalise(streams, block.attention_norm)
            for slot in SLOTS:
                asked = [(row, index) for row, reads in enumerate(part) for kind, index in wanted[reads] if kind == slot]
                if asked:
                    values = _projections(normed, block.attention, slot, asked, rotation)
                    found |= {(slot, index, part[row]): one for (row, index), one in zip(asked, values, strict=True)}
        return found

    def _bias(self, window: int | None, heads: list[HeadWork]) -> Tensor | None:
        """What is added to the scores of the queries from `start` on, of these heads."""
        bias = self.geometry.bias(window)
        if self.start:
            width = self.geometry.tokens.ids.shape[1]
            bias = self.geometry.bias_at(window, torch.arange(self.start, width, device=self.geometry.tokens.ids.device)[None])
        if bias is None or bias.shape[1] == 1:
            return bias
        return bias[:, [head.index for head in heads]]

    # MLPs

    def _mlps(self, block: Block, rest: LayerOutside, wanted: list[tuple[Reads, int, int]]) -> None:
        """What a whole MLP now writes, in some circuits."""
        mlp = block.mlp
        assert mlp is not None and rest.mlp_reads is not None and rest.mlp is not None
        still, values = rest.mlp[:, self.start :], {reads: (role, value) for reads, role, value in wanted if reads}
        if any(not reads for reads, _, _ in wanted):
            # Where outside holds means or zeros, an MLP that reads only those does not give its own mean or zero.
            written = mlp_output(activated(rest.pre, mlp), mlp, block.mlp_post_norm)[:, self.start :]
            for role, value in ((role, value) for reads, role, value in wanted if not reads):
                self._moved_mlp(written, still, role, value)
        for part, streams in self.differences.streams(list(values), rest.mlp_reads[:, self.start :], AT_ONCE):
            neurons = neuron_activations(normalise(streams, block.mlp_norm), mlp)
            for reads, written in zip(part, mlp_output(neurons, mlp, block.mlp_post_norm), strict=True):
                self._moved_mlp(written, still, *values[reads])

    def _moved_mlp(self, written: Tensor, still: Tensor, role: int, value: int) -> None:
        place = self.differences.place(value)
        torch.sub(written, still, out=place)
        if self._roles is not None:
            place *= self._roles[role]

    def _neurons(self, block: Block, rest: LayerOutside, units: list[NeuronWork]) -> None:
        """Single neurons, each with a reading of its own."""
        mlp = block.mlp
        assert mlp is not None and rest.neurons is not None
        W = through_norm(mlp.W_out, block.mlp_post_norm)
        pre = self._pre_activations(block, rest, units)
        joined = mlp.activation == "solu" or block.mlp_post_norm is not None
        for unit in units if joined else ():
            parts = [part[:, self.start :].clone() for part in rest.pre]
            for neuron, reads in unit.reads:
                for part, value in zip(parts, pre[neuron, reads], strict=True):
                    part[:, :, neuron] = value
            change = scaled_neurons(activated(tuple(parts), mlp), block) - rest.neurons[:, self.start :]
            index = list(unit.values)
            self.differences.set_neurons(list(unit.values.values()), change[:, :, index].permute(2, 0, 1), W[index])
        if not joined:
            index, values = zip(*((neuron, value) for unit in units for neuron, value in unit.values.items()), strict=True)
            rows = [pre[unit.reads[0]] if unit.reads else self._pre_at_rest(rest, *unit.values) for unit in units]
            active = activated(tuple(torch.stack(part) for part in zip(*rows, strict=True)), mlp)
            still = rest.neurons[:, self.start :, list(index)].permute(2, 0, 1)
            self.differences.set_neurons(values, active - still, W[list(index)])

    def _pre_at_rest(self, rest: LayerOutside, neuron: int) -> tuple[Tensor, ...]:
        return tuple(part[:, self.start :, neuron] for part in rest.pre)

    def _pre_activations(
        self, block: Block, rest: LayerOutside, units: list[NeuronWork]
    ) -> dict[tuple[int, Reads], tuple[Tensor, ...]]:
        """What neurons compute with, `[prompt position]` by neuron and what was read: linear part and gate."""
        mlp = block.mlp
        assert mlp is not None and rest.mlp_reads is not None
        wanted: dict[Reads, dict[int, None]] = {}
        for unit in units:
            for neuron, reads in unit.reads:
                wanted.setdefault(reads, {})[neuron] = None
        found: dict[tuple[int, Reads], tuple[Tensor, ...]] = {}
        for part, streams in self.differences.streams(list(wanted), rest.mlp_reads[:, self.start :], AT_ONCE):
            asked = [(row, neuron) for row, reads in enumerate(part) for neuron in wanted[reads]]
            normed = normalise(streams, block.mlp_norm)
            for some in (asked[first : first + len(part)] for first in range(0, len(asked), len(part))):
                pre = zip(*_neuron_parts(normed, mlp, some), strict=True)
                found |= {(neuron, part[row]): one for (row, neuron), one in zip(some, pre, strict=True)}
        return found

    # The end

    def _final(self, columns: Tensor | None) -> Tensor:
        rest = self.outside.final
        rows = torch.arange(len(rest), device=rest.device)[:, None]
        if columns is None:
            columns = torch.arange(self.start, rest.shape[1], device=rest.device)[None].expand(len(rest), -1)
        # What moves begins at `start`, the rest at column 0.
        picked, still = (rows, columns - self.start), rest[rows, columns]
        streams: dict[Reads, Tensor] = {(): still}
        wanted = [reads for reads in dict.fromkeys(self.circuits.finals) if reads]
        for part, found in self.differences.streams(wanted, still, AT_ONCE, picked):
            streams |= dict(zip(part, found, strict=True))
        return torch.stack([streams[reads] for reads in self.circuits.finals])


def _index(attention: Attention, slot: Slot, head: int) -> int:
    """The reader of a head's slot: the head itself, or its group of keys and values."""
    return head if slot == "q" else head // (attention.n_heads // attention.n_key_value_heads)


def _projections(
    normed: Float[Tensor, "reading prompt position d_model"],
    attention: Attention,
    slot: Slot,
    asked: Sequence[tuple[int, int]],
    rotation: Rotation | None,
) -> Float[Tensor, "asked prompt position d_head"]:
    """Queries, keys or values of some heads (groups), each of one reading: pairs of reading and head."""
    rows, index = (list(part) for part in zip(*asked, strict=True))
    width = attention.d_head
    # A norm over all heads (OLMo 2) needs all their projections though one is taken; else only a head's columns are.
    if attention.norm_over_heads:
        parts = [headed(projected(normed[row], attention, slot), attention, slot)[:, :, head] for row, head in asked]
        return placed(torch.stack(parts)[..., None, :], slot, rotation)[..., 0, :]
    W, b = getattr(attention, f"W_{slot.upper()}"), getattr(attention, f"b_{slot.upper()}")
    found = _products(normed.flatten(1, 2), W.unflatten(1, (-1, width)).transpose(0, 1), rows, index)
    found = found if b is None else found + b.unflatten(0, (-1, width))[index][:, None]
    norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
    found = normalise(found.unflatten(1, normed.shape[1:3]), norm)
    return placed(found[..., None, :], slot, rotation)[..., 0, :]


def _products(
    source: Float[Tensor, "reading flat d_model"], W: Float[Tensor, "head d_model d_head"], rows: list[int], index: list[int]
) -> Float[Tensor, "asked flat d_head"]:
    """Some readings, each times the weights of some head."""
    if source[0].numel() < _LARGE:
        source = source if rows == list(range(len(source))) else source[rows]
        return torch.bmm(source, W[index])
    # One batch would first copy each reading and each head's weights, which takes longer than the products do.
    found = source.new_empty(len(rows), source.shape[1], W.shape[2])
    for row, head, into in zip(rows, index, found, strict=True):
        torch.mm(source[row], W[head], out=into)
    return found


def _neuron_parts(
    normed: Float[Tensor, "reading prompt position d_model"], mlp: MLP, asked: Sequence[tuple[int, int]]
) -> list[Float[Tensor, "asked prompt position"]]:
    """Linear part and gate of some neurons, each of one reading: pairs of reading and neuron."""
    rows, index = (list(part) for part in zip(*asked, strict=True))
    # Every neuron has a residual stream of its own, so the layer is no matrix product: one vector product a neuron.
    source, found = normed[rows].flatten(1, 2), []
    for W, b in ((mlp.W_in, mlp.b_in), (mlp.W_gate, mlp.b_gate)):
        if W is not None:
            value = torch.bmm(source, W.T[index][:, :, None])[:, :, 0]
            value = value if b is None else value + b[index][:, None]
            found.append(value.unflatten(1, normed.shape[1:3]))
    return found
