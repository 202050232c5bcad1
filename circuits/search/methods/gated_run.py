"""A run in which every edge has a gate: how far its heads and MLPs move from what they read."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Graph
from circuits.models import Model, Run
from circuits.models.folding import through_norm
from circuits.models.geometry import Geometry
from circuits.models.layers import mlp_output, neuron_activations, normalise
from circuits.patching.engine.base import plain_run
from circuits.patching.subgraphs.members import is_edge
from circuits.patching.subgraphs.outside import LayerOutside, Outside, OutsideKind, outside_of, scaled_heads
from circuits.patching.subgraphs.subgraph import first_column
from circuits.search.acdc.slots import Slots
from circuits.tasks import PromptPairs


@dataclasses.dataclass(frozen=True, eq=False)
class GatedRun:
    """A graph of heads and MLPs whose readers read what is outside, plus each writer's move from that times the edge's gate:
    `read = rest + sum over writers of gate * (now - outside)`. The last layer's queries and MLP run at the answer columns
    alone."""

    model: Model
    graph: Graph
    own: Run
    rest: Outside
    slots: Slots

    @classmethod
    def of(cls, model: Model, pairs: PromptPairs, outside: OutsideKind, rest: Outside | None = None) -> "GatedRun":
        """Both runs; `rest`: what is outside, where that is known. Raises NonFiniteError, with the first site, where one of
        them is not finite."""
        own = plain_run(model, pairs.clean)
        rest = outside_of(outside, plain_run(model, pairs.corrupt)) if rest is None else rest
        geometry, start = Geometry(model.weights, own.tokens, model.dtype), first_column(model, pairs, outside)
        slots = Slots(model.weights, geometry, pairs.answer_columns[:, None].to(model.device), start)
        return cls(model, model.graph(), own, rest, slots)

    def gates(self, values: Float[Tensor, "given edge"]) -> Float[Tensor, "given writer reader"]:
        """Matrices of gates from one number an edge, by writer and then by reader; 0 where there is no edge."""
        there = is_edge(self.graph)
        gates = values.new_zeros(len(values), *there.shape)
        # One scatter, differentiable by the values; where there is no edge the gate stays 0 and its writer is not read.
        return gates.masked_scatter(there.to(values.device), values)

    def attention(self, layer: int, heads: Tensor, q: Tensor, kv: Tensor) -> Float[Tensor, "head prompt position d_model"]:
        """How far some of a layer's heads move, from what their queries and their groups' keys and values read."""
        graph, slots, block = self.graph, self.slots, self.model.weights.blocks[layer]
        last, size = layer == graph.n_layers - 1, graph.n_heads // graph.n_key_value_heads
        rest = self.rest.layers[layer]
        still = rest.heads[:, slots.start :]
        groups, row = (heads // size).unique(return_inverse=True)
        asked = slots.project(layer, heads, q[:, None], thin=last)["q"][1]
        readers = torch.cat([graph.n_heads + groups, graph.n_heads + graph.n_key_value_heads + groups])
        found = slots.project(layer, readers, kv[:, None], thin=False)
        k, v = (self._whole(rest, slot, groups, found[slot][1])[row] for slot in ("k", "v"))
        z = slots.attend(layer, heads, asked, k, v, thin=last)[:, 0].movedim(0, 2)
        still = slots.pick(still.flatten(2)).unflatten(2, still.shape[2:]) if last else still
        W = through_norm(block.attention.W_O, block.attention_post_norm).unflatten(0, (graph.n_heads, -1))
        if block.attention_post_norm is None:
            return torch.einsum("pchd,hdm->hpcm", z - still[:, :, heads], W[heads])
        # Behind a norm the heads share a scale: all of them are here (`moving`).
        return torch.einsum("pchd,hdm->hpcm", scaled_heads(z, block) - still, W)

    def _whole(self, rest: LayerOutside, slot: str, groups: Tensor, value: Tensor) -> Tensor:
        """Keys or values at all columns, `[group 1 prompt position d_head]`: those before the first that counts are as
        outside."""
        before = rest.slots[slot][:, : self.slots.start, groups].movedim(2, 0)[:, None]
        return torch.cat([before, value], dim=3)

    def mlp(self, layer: int, reads: Float[Tensor, "1 prompt position d_model"]) -> Float[Tensor, "1 prompt position d_model"]:
        """How far a layer's MLP moves, as the only row."""
        block, rest, slots = self.model.weights.blocks[layer], self.rest.layers[layer], self.slots
        assert block.mlp is not None and rest.mlp is not None
        written = rest.mlp[:, slots.start :]
        written = slots.pick(written) if layer == self.graph.n_layers - 1 else written
        neurons = neuron_activations(normalise(reads, block.mlp_norm), block.mlp)
        return mlp_output(neurons, block.mlp, block.mlp_post_norm) - written
