"""One pass of many circuits over some prompts: every reader reads what is outside its circuit, and how far its writers
inside have moved from that.

`move` of a writer is what it now writes minus what edges outside carry for it. A reader whose writers inside have not moved
computes what it computes at rest, so that only the others are run.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.folding import through_norm
from circuits.models.layers import (
    SLOTS,
    Geometry,
    Slot,
    activated,
    attend,
    headed,
    linear,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    projected,
)
from circuits.models.weights import Attention, Block, Weights
from circuits.patching.subgraphs.differences import Differences
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import LayerOutside, Outside, scaled_heads, scaled_neurons

AT_ONCE = 2**26
"""Bytes of residual streams that readers of one kind read at once."""


class CircuitPass:
    """Circuits of one graph, run together. `start`: the first column where anything moves."""

    def __init__(
        self, weights: Weights, geometry: Geometry, own_input: Tensor, outside: Outside, circuits: Sequence[Members], start: int
    ) -> None:
        self.weights, self.geometry, self.outside, self.start = weights, geometry, outside, start
        self.graph = circuits[0].graph
        self.differences = Differences(self.graph, circuits, own_input[:, start:] - outside.input[:, start:])

    def run(self, columns: Int[Tensor, "prompt read"] | None) -> Float[Tensor, "circuit prompt read d_model"]:
        """The final residual stream of every circuit at the columns that are read (None: all from `start` on)."""
        place = 0
        for layer, (block, rest) in enumerate(zip(self.weights.blocks, self.outside.layers, strict=True)):
            self._attention(layer, block, rest, place)
            place += self.graph.head_readers
            if block.mlp is not None:
                (self._neurons if self.graph.neurons else self._mlp)(layer, block, rest, place)
                place += self.graph.mlp_writers
        return self._final(place, columns)

    # Attention

    def _attention(self, layer: int, block: Block, rest: LayerOutside, place: int) -> None:
        moved = list(
            self.differences.reads(place, place + self.graph.head_readers, rest.attention_reads[:, self.start :], AT_ONCE)
        )
        # Where outside holds means or zeros, a head that reads only those does not give its own mean or zero: it has moved in
        # every circuit, whether or not something it reads has.
        running = sorted({circuit for circuit, _, _ in moved}) if self.outside.resting else list(range(self.differences.count))
        if not running:
            return
        slots = self._slots(layer, rest, place, moved, running)
        attention, rows = block.attention, len(running)
        bias = self._bias(attention.window, rows)
        q, k, v = (slots[slot].flatten(0, 1) for slot in SLOTS)
        z = attend(q, k, v, attention, bias).unflatten(0, (rows, -1))
        # Heads over the scale of the norm behind them, output weights through its gain: so heads add up to what attention
        # writes.
        change = scaled_heads(z, block) - rest.heads[:, self.start :]
        W = through_norm(attention.W_O, block.attention_post_norm).unflatten(0, (attention.n_heads, -1))
        # Behind a norm the heads share a scale: one that moves moves all. Elsewhere the others' difference is rounding, and to
        # call it a move would wake every reader after them.
        every = not self.outside.resting or block.attention_post_norm is not None
        touched = torch.ones(rows, attention.n_heads, dtype=torch.bool) if every else self._touched(place, moved, running)
        self.differences.set_heads(layer, running, torch.einsum("npchd,hdm->nhpcm", change, W), touched)

    def _slots(self, layer: int, rest: LayerOutside, place: int, moved: list, running: list[int]) -> dict[str, Tensor]:
        """Queries (from `start` on), keys and values of the circuits that run this layer."""
        block, rotation = self.geometry.weights.blocks[layer], self.geometry.rotation(layer)
        if rotation is not None:
            rotation = rotation.picked(lambda table: table[:, self.start :])
        values = {slot: rest.slots[slot][None].expand(len(running), *rest.slots[slot].shape) for slot in SLOTS}
        values["q"] = values["q"][:, :, self.start :]
        # `expand` made all circuits' rows one memory; each now gets values of its own.
        values = {slot: value.clone() for slot, value in values.items()}
        row_of = {circuit: row for row, circuit in enumerate(running)}
        for circuit, readers, reads in moved:
            normed = normalise(reads, block.attention_norm)
            for index, reader in enumerate(readers.tolist()):
                slot, head = self._slot(reader - place)
                value = placed(self._project(normed[index], block.attention, slot, head), slot, rotation)[:, :, 0]
                into = values[slot][row_of[circuit]]
                # Queries stand from `start` on, keys and values from column 0: what lies before is looked at and is as outside.
                (into if slot == "q" else into[:, self.start :])[:, :, head] = value
        return values

    def _slot(self, index: int) -> tuple[Slot, int]:
        heads, groups = self.graph.n_heads, self.graph.n_key_value_heads
        if index < heads:
            return "q", index
        return ("k", index - heads) if index < heads + groups else ("v", index - heads - groups)

    def _project(
        self, normed: Tensor, attention: Attention, slot: Slot, head: int
    ) -> Float[Tensor, "prompt position 1 d_head"]:
        """One head's queries, keys or values, rotary positions not applied yet."""
        norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
        # A norm over all heads (OLMo 2) needs all their projections though one is taken; else only this head's columns are.
        if attention.norm_over_heads:
            return headed(projected(normed, attention, slot), attention, slot)[:, :, head, None]
        width = slice(head * attention.d_head, (head + 1) * attention.d_head)
        W, b = getattr(attention, f"W_{slot.upper()}"), getattr(attention, f"b_{slot.upper()}")
        return normalise(linear(normed, W[:, width], None if b is None else b[width]), norm)[:, :, None]

    def _bias(self, window: int | None, rows: int) -> Tensor | None:
        """What is added to the scores of the queries from `start` on, for `rows` circuits."""
        width = self.geometry.tokens.ids.shape[1]
        if self.start == 0:
            bias = self.geometry.bias(window)
        else:
            bias = self.geometry.bias_at(window, torch.arange(self.start, width, device=self.geometry.tokens.ids.device)[None])
        if bias is None or bias.shape[0] == 1:
            return bias
        # Tiled, circuits outermost, as `flatten(0, 1)` lays out the rows of q, k and v.
        return bias.repeat(rows, 1, 1, 1)

    def _touched(self, place: int, moved: list, running: list[int]) -> Tensor:
        """Which heads of which running circuits read something that moved."""
        row_of = {circuit: row for row, circuit in enumerate(running)}
        touched = torch.zeros(len(running), self.graph.n_heads, dtype=torch.bool)
        size = self.graph.n_heads // self.graph.n_key_value_heads
        for circuit, readers, _ in moved:
            for reader in readers.tolist():
                slot, head = self._slot(reader - place)
                touched[row_of[circuit], slice(head, head + 1) if slot == "q" else slice(head * size, (head + 1) * size)] = True
        return touched

    # MLPs

    def _mlp(self, layer: int, block: Block, rest: LayerOutside, place: int) -> None:
        """A whole MLP."""
        assert block.mlp is not None and rest.mlp_reads is not None and rest.mlp is not None
        for circuits, reads in self._joined(self.differences.reads(place, place + 1, rest.mlp_reads[:, self.start :], AT_ONCE)):
            neurons = neuron_activations(normalise(reads, block.mlp_norm), block.mlp)
            written = mlp_output(neurons, block.mlp, block.mlp_post_norm)
            self.differences.set_mlp(layer, circuits, written - rest.mlp[:, self.start :])
        if not self.outside.resting:
            # As with heads: at rest an MLP writes something else than its mean or zero, the same in all circuits.
            others = [circuit for circuit in range(self.differences.count) if not self.differences.moved_mlp(layer, circuit)]
            written = mlp_output(activated(rest.pre, block.mlp), block.mlp, block.mlp_post_norm)
            at_rest = (written - rest.mlp)[None, :, self.start :]
            self.differences.set_mlp(layer, others, at_rest.expand(len(others), *at_rest.shape[1:]))

    @staticmethod
    def _joined(found: Iterator) -> Iterator[tuple[list[int], Tensor]]:
        parts = list(found)
        if parts:
            yield [circuit for circuit, _, _ in parts], torch.cat([reads for _, _, reads in parts])

    def _neurons(self, layer: int, block: Block, rest: LayerOutside, place: int) -> None:
        """Single neurons, each with a reading of its own."""
        mlp = block.mlp
        assert mlp is not None and rest.mlp_reads is not None and rest.neurons is not None
        pre: dict[int, list[Tensor]] = {}
        active: dict[int, list[Tensor]] = {}
        stop = place + self.graph.mlp_writers
        for circuit, readers, reads in self.differences.reads(place, stop, rest.mlp_reads[:, self.start :], AT_ONCE):
            if circuit not in pre:
                pre[circuit] = [part[:, self.start :].clone() for part in rest.pre]
            # Every neuron has a residual stream of its own, so the layer is no matrix product: one vector product a neuron.
            chosen, normed = readers - place, normalise(reads, block.mlp_norm).flatten(1, 2)
            pairs = ((mlp.W_in, mlp.b_in), (mlp.W_gate, mlp.b_gate))
            for part, (W, b) in zip(pre[circuit], pairs, strict=False):
                assert W is not None
                value = torch.bmm(normed, W.T[chosen][:, :, None])[:, :, 0]
                value = value if b is None else value + b[chosen][:, None]
                part[:, :, chosen] = value.T.unflatten(0, part.shape[:2])
            active.setdefault(circuit, []).append(chosen)
        # SoLU's softmax and a norm behind the MLP join neurons: where one moves, all do.
        every = mlp.activation == "solu" or block.mlp_post_norm is not None or not self.outside.resting
        resting = [part[:, self.start :] for part in rest.pre]
        for circuit in range(self.differences.count) if not self.outside.resting else sorted(pre):
            neurons = activated(tuple(pre.get(circuit, resting)), mlp)
            change = scaled_neurons(neurons, block) - rest.neurons[:, self.start :]
            chosen = torch.arange(change.shape[-1]) if every else torch.cat(active[circuit])
            self.differences.set_neurons(layer, circuit, chosen, change, through_norm(mlp.W_out, block.mlp_post_norm))

    # The end

    def _final(self, place: int, columns: Tensor | None) -> Tensor:
        rest = self.outside.final
        rows = torch.arange(len(rest), device=rest.device)[:, None]
        if columns is None:
            columns = torch.arange(self.start, rest.shape[1], device=rest.device)[None].expand(len(rest), -1)
        # Moves begin at `start`, the rest at column 0.
        picked = (rows, columns - self.start)
        still = rest[rows, columns]
        found = still[None].expand(self.differences.count, *still.shape).clone()
        for circuit, _, reads in self.differences.reads(place, place + 1, still, AT_ONCE, picked):
            found[circuit] = reads[0]
        return found
