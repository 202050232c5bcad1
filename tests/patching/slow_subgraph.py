"""Running a subgraph as its definition says: one reader after the other, one writer after the other."""

import torch
from torch import Tensor

from circuits.graph import Circuit, Edge, Graph, Node, Reader
from circuits.models import Model, Run, attention_bias, node_output
from circuits.models.geometry import Geometry
from circuits.models.layers import attend, mlp_output, neuron_activations, normalise, placed, project, unembed
from circuits.patching.engine.variant_mlp import single_neuron


def slow_subgraph(model: Model, own: Run, circuit: Circuit, theirs: dict[Node, Tensor]) -> Tensor:
    """Logits when readers take what `theirs` says of writers outside the circuit, and the others as they now are."""
    graph, weights, geometry = circuit.graph, model.weights, Geometry(model.weights, own.tokens, model.dtype)
    now: dict[Node, Tensor] = {Node("input"): own.residuals[0]}
    biases = torch.zeros_like(own.residuals[0])

    def read(reader: Reader) -> Tensor:
        total = biases
        for writer in graph.writers(reader):
            inside = Edge(writer, reader.node, reader.slot) in circuit.edges
            total = total + (now[writer] if inside else theirs[writer])
        return total

    for layer, block in enumerate(weights.blocks):
        slots, before = [], biases
        for slot in ("q", "k", "v"):
            parts = []
            for index in range(graph.n_heads if slot == "q" else graph.n_key_value_heads):
                normed = normalise(read(Reader(Node("head", layer, index), slot)), block.attention_norm)
                parts.append(project(normed, block.attention, slot)[:, :, index])
            slots.append(placed(torch.stack(parts, dim=2), slot, geometry.rotation(layer)))
        z = attend(*slots, block.attention, geometry.bias(block.attention.window))
        run = changed(own, layer, "z", z)
        now |= {node: node_output(run, node) for node in (Node("head", layer, h) for h in range(graph.n_heads))}
        after = biases + attention_bias(run, layer)
        if block.mlp is None:
            biases = after
            continue
        biases = before if weights.parallel else after
        if graph.neurons:
            neurons = neurons_alone(graph, layer, read, block)
            run = changed(own, layer, "neurons", neurons)
            now |= {node: node_output(run, node) for node in (Node("neuron", layer, n) for n in range(neurons.shape[2]))}
            shared = block.mlp.b_out if block.mlp_post_norm is None else block.mlp_post_norm.bias
            biases = after if shared is None else after + shared
        else:
            neurons = neuron_activations(normalise(read(Reader(Node("mlp", layer))), block.mlp_norm), block.mlp)
            now[Node("mlp", layer)] = mlp_output(neurons, block.mlp, block.mlp_post_norm)
            biases = after
    return unembed(weights, read(Reader(Node("logits"))))


def neurons_alone(graph: Graph, layer: int, read, block) -> Tensor:
    """Activations of neurons that read each for itself; in a SoLU layer they share one softmax of what each reads."""
    moved = [normalise(read(Reader(Node("neuron", layer, n))), block.mlp_norm) for n in range(graph.mlp_writers)]
    if block.mlp.activation != "solu":
        return torch.stack([single_neuron(x, x, block.mlp, n) for n, x in enumerate(moved)], dim=2)
    whole = [(x @ block.mlp.W_in + (0 if block.mlp.b_in is None else block.mlp.b_in))[..., n] for n, x in enumerate(moved)]
    linear = torch.stack(whole, dim=2)
    if block.mlp.W_gate is None:
        return linear * linear.softmax(dim=-1)
    b_gate = 0 if block.mlp.b_gate is None else block.mlp.b_gate
    gate = torch.stack([(x @ block.mlp.W_gate + b_gate)[..., n] for n, x in enumerate(moved)], dim=2)
    return gate * gate.softmax(dim=-1) * linear


def changed(run: Run, layer: int, field: str, value: Tensor) -> Run:
    """A run with one factor of one layer in place of its own."""
    kept = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    kept[field] = (*kept[field][:layer], value, *kept[field][layer + 1 :])
    return Run(**kept)
