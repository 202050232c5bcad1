"""Circuits with roles of tokens as their definition says: one reader, one writer, one role after the other."""

import random

import torch
from torch import Tensor

from circuits.graph import Circuit, Edge, Graph, Node, Reader
from circuits.models import Model, Run, attention_bias, node_output
from circuits.models.geometry import Geometry
from circuits.models.layers import attend, mlp_output, neuron_activations, normalise, placed, project, unembed
from circuits.tasks import PromptPairs
from circuits.tasks.roles import with_roles
from tests.patching.slow_subgraph import changed


def random_roles(rng: random.Random, pairs: PromptPairs, *, causal: bool = True) -> PromptPairs:
    """Up to two roles on any tokens of each prompt, and whatever lies between."""
    names = rng.choice([["a"], ["a", "b"], []]) if int(pairs.clean.mask.sum(dim=1).min()) > 2 else []
    spans = {name: torch.zeros_like(pairs.clean.mask) for name in names}
    for row, mask in enumerate(pairs.clean.mask.tolist()):
        columns = [column for column, there in enumerate(mask) if there]
        for number, column in enumerate(columns[:-1]):
            # The first tokens have one each, so that no prompt lacks a role.
            name = names[number] if number < len(names) else rng.choice([*names, None])
            if name is not None:
                spans[name][row, column] = True
    return with_roles(pairs, spans, causal=causal)


class SlowRoles:
    """Logits where readers take what `theirs` says of writers outside the circuit; `leaves`: zeros that are added to what each
    reader reads, to be told gradients by."""

    def __init__(self, model: Model, own: Run, pairs: PromptPairs, circuit: Circuit, theirs: dict[Node, Tensor]) -> None:
        assert pairs.roles is not None
        self.model, self.own, self.circuit, self.theirs = model, own, circuit, theirs
        self.graph: Graph = circuit.graph
        self.masks = {name: pairs.roles.columns == place for place, name in enumerate(pairs.roles.names)}
        self.leaves: dict[Reader, Tensor] = {}
        self.now: dict[Node, Tensor] = {Node("input"): own.residuals[0]}

    def read(self, reader: Reader, biases: Tensor) -> Tensor:
        total = biases
        for writer in self.now:
            if not self.model.graph().has_edge(Edge(writer, reader.node.everywhere, reader.slot)):
                continue
            part = self.theirs[writer]
            for role, mask in self.masks.items():
                at = Node(writer.kind, writer.layer, writer.index, role)
                if reader.slot not in ("k", "v") and role != reader.node.at:
                    continue
                if Edge(at, reader.node, reader.slot) in self.circuit.edges:
                    part = torch.where(mask[:, :, None], self.now[writer], part)
            total = total + part
        self.leaves[reader] = torch.zeros_like(total, requires_grad=True)
        return total + self.leaves[reader]

    def logits(self) -> Tensor:
        model, own, graph = self.model, self.own, self.model.graph()
        weights, geometry = model.weights, Geometry(model.weights, own.tokens, model.dtype)
        biases = torch.zeros_like(own.residuals[0])
        for layer, block in enumerate(weights.blocks):
            z, before = torch.zeros_like(own.z[layer]), biases
            for role, mask in self.masks.items():
                slots = []
                for slot in ("q", "k", "v"):
                    parts = []
                    for index in range(graph.n_heads if slot == "q" else graph.n_key_value_heads):
                        x = normalise(self.read(Reader(Node("head", layer, index, role), slot), biases), block.attention_norm)
                        parts.append(project(x, block.attention, slot)[:, :, index])
                    slots.append(placed(torch.stack(parts, dim=2), slot, geometry.rotation(layer)))
                some = attend(*slots, block.attention, geometry.bias(block.attention.window))
                z = torch.where(mask[:, :, None, None], some, z)
            run = changed(own, layer, "z", z)
            heads = {node: node_output(run, node) for node in (Node("head", layer, h) for h in range(graph.n_heads))}
            after = biases + attention_bias(run, layer)
            if weights.parallel:
                mlp = self._mlp(layer, before)
                self.now |= heads
            else:
                self.now |= heads
                mlp = self._mlp(layer, after)
            self.now |= mlp
            biases = after
        last = list(self.masks)[-1]
        return unembed(weights, self.read(Reader(Node("logits", at=last)), biases))

    def _mlp(self, layer: int, biases: Tensor) -> dict[Node, Tensor]:
        block = self.model.weights.blocks[layer]
        if block.mlp is None:
            return {}
        written = torch.zeros_like(biases)
        for role, mask in self.masks.items():
            x = normalise(self.read(Reader(Node("mlp", layer, at=role)), biases), block.mlp_norm)
            some = mlp_output(neuron_activations(x, block.mlp), block.mlp, block.mlp_post_norm)
            written = torch.where(mask[:, :, None], some, written)
        return {Node("mlp", layer): written}
