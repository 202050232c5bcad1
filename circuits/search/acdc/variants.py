"""Variants of a circuit, run as changes: each cuts other edges into one reader, and only what that reaches is computed."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models.folding import through_norm
from circuits.models.layers import Slot, mlp_output, neuron_activations, normalise
from circuits.patching.subgraphs.outside import scaled_heads
from circuits.search.acdc.plan import Plan, ReaderSet, Step
from circuits.search.acdc.state import LayerState, State


@dataclasses.dataclass
class LayerValues:
    """What variants computed in one layer, `[... variant prompt position width]`."""

    layer: int
    slots: dict[Slot, tuple[Tensor, Tensor]]
    """Indices within the slot, and values."""
    heads: Tensor | None = None
    z: Tensor | None = None
    mlp: Tensor | None = None


class Variants:
    """One pass. `cuts` `[variant candidate]`: which of the `writers` each variant cuts off from the plan's reader."""

    def __init__(self, state: State, plan: Plan, writers: list[int], cuts: Float[Tensor, "variant candidate"]) -> None:
        self.state, self.ground, self.plan = state, state.ground, plan
        self.cuts, self.writers = cuts, writers
        self.reads: list[tuple[list[int], Tensor]] = []
        self.computed: list[LayerValues] = []
        model, (prompts, width) = self.ground.model, self.ground.changes.shape[1:3]
        shape = (plan.moved, len(cuts), prompts, width if plan.wide else 0, model.d_model)
        # One array for all writers that will move, in order: what later readers read is one product with its first rows. It is
        # written once and never cleared; rows beyond `_moved` are not looked at.
        self._wide = torch.empty(shape, dtype=model.dtype, device=model.device)
        self._thin = torch.empty((*shape[:3], 1, model.d_model), dtype=model.dtype, device=model.device)
        self._moved = 0

    def run(self) -> Float[Tensor, " variant"]:
        """Every variant's loss."""
        for step in self.plan.steps:
            computed = LayerValues(step.layer, {})
            if step.readings:
                self._attention(step, computed)
            if step.mlp is not None:
                self._mlp(step, step.mlp, computed)
            self.computed.append(computed)
        if self.plan.final is None:
            return torch.full((len(self.cuts),), self.state.loss, dtype=torch.float64)
        return self.ground.loss(self._read(self.plan.final)[0]).cpu()

    def commit(self, variant: int, cut: list[int]) -> State:
        """The circuit as one variant has it, without the edges from `cut`."""
        reads = dict(self.state.reads)
        for places, values in self.reads:
            reads |= zip(places, values[:, variant].clone(), strict=True)
        layers = list(self.state.layers)
        for computed in self.computed:
            layers[computed.layer] = self._committed(layers[computed.layer], computed, variant)
        state = self.state.without(cut, self.plan.place)
        return dataclasses.replace(state, reads=reads, layers=tuple(layers))

    def _committed(self, layer: LayerState, computed: LayerValues, variant: int) -> LayerState:
        new: dict[str, Tensor] = {}
        for slot, (indices, values) in computed.slots.items():
            new[slot] = getattr(layer, slot).clone()
            new[slot][indices, :, (0 if slot == "q" else self.ground.slots.start) :] = values[:, variant]
        if computed.heads is not None and computed.z is not None:
            new["z"] = layer.z.clone()
            new["z"][computed.heads] = computed.z[:, variant]
        if computed.mlp is not None:
            new["mlp"] = computed.mlp[variant].clone()
        return dataclasses.replace(layer, **new)

    def _read(self, reading: ReaderSet) -> Float[Tensor, "reader variant prompt position d_model"]:
        """What readers read in every variant."""
        # What the reader reads in the circuit as it is, and on top what this variant moves: most of the sum is in it already.
        still = torch.stack([self.state.read(place) for place in reading.places])[:, None]
        if reading.mix is None:
            changes = (self.ground.picked if reading.thin else self.ground.changes)[self.writers]
            moved = self.cuts @ changes.flatten(1)
        else:
            moved = reading.mix @ (self._thin if reading.thin else self._wide)[: self._moved].flatten(1)
        reads = moved.reshape(-1, len(self.cuts), *still.shape[2:])
        reads = reads.add_(still)
        self.reads.append((reading.places, reads))
        return reads

    def _attention(self, step: Step, computed: LayerValues) -> None:
        ground, state = self.ground, self.state.layers[step.layer]
        for reading in step.readings:
            reads = self._read(reading)
            computed.slots |= ground.slots.project(step.layer, reading.indices, reads, thin=reading.thin)
        if not len(step.heads):
            return
        thin = step.layer == ground.graph.n_layers - 1
        q, k, v = (self._values(step, computed, slot) for slot in ("q", "k", "v"))
        computed.heads, computed.z = step.heads, ground.slots.attend(step.layer, step.heads, q, k, v, thin=thin)
        block = ground.model.weights.blocks[step.layer]
        if block.attention_post_norm is None:
            change = computed.z - state.z[step.heads][:, None]
        else:
            # The scale of a norm behind attention is that of all heads together, so the others are needed beside those that
            # changed.
            whole = state.z[:, None].repeat(1, len(self.cuts), 1, 1, 1)
            whole[step.heads] = computed.z
            scaled = (scaled_heads(z.movedim(0, -2), block).movedim(-2, 0) for z in (whole, state.z[:, None]))
            change = (next(scaled) - next(scaled))[step.written]
        W = through_norm(block.attention.W_O, block.attention_post_norm).unflatten(0, (ground.graph.n_heads, -1))
        W = W if len(step.written) == len(W) else W[step.written]
        self._write(torch.bmm(change.flatten(1, 3), W).unflatten(1, change.shape[1:4]), thin)

    def _values(self, step: Step, computed: LayerValues, slot: Slot) -> Float[Tensor, "head variant prompt position d_head"]:
        """Queries, keys or values of the heads that are computed anew."""
        state, graph = getattr(self.state.layers[step.layer], slot), self.ground.graph
        start = 0 if slot == "q" else self.ground.slots.start
        rows, sources = step.sources.get(slot, ([], []))
        if len(rows) == len(step.heads) and start == 0:
            values = computed.slots[slot][1]
            return values if sources == list(range(len(values))) else values[sources]
        groups = step.heads if slot == "q" else step.heads // (graph.n_heads // graph.n_key_value_heads)
        # Heads whose keys (or values) did not change keep the state's, and columns before the first that counts do in all.
        values = state[groups][:, None].expand(-1, len(self.cuts), -1, -1, -1)
        if rows:
            values = values.clone(memory_format=torch.contiguous_format)
            values[rows, :, :, start:] = computed.slots[slot][1][sources]
        return values

    def _mlp(self, step: Step, reading: ReaderSet, computed: LayerValues) -> None:
        block, state = self.ground.model.weights.blocks[step.layer], self.state.layers[step.layer].mlp
        assert block.mlp is not None and state is not None
        neurons = neuron_activations(normalise(self._read(reading)[0], block.mlp_norm), block.mlp)
        computed.mlp = mlp_output(neurons, block.mlp, block.mlp_post_norm)
        self._write((computed.mlp - state)[None], reading.thin)

    def _write(self, moves: Float[Tensor, "writer variant prompt position d_model"], thin: bool) -> None:
        """Hold how far some writers moved."""
        rows = slice(self._moved, self._moved + len(moves))
        if not thin and self.plan.wide:
            self._wide[rows] = moves
        self._thin[rows] = moves if thin else self.ground.slots.pick(moves)
        self._moved += len(moves)
