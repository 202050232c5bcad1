"""Running a subgraph: edges inside it carry the present run's values, edges outside it those of another run."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import Circuit, Edge, Graph, Node, Reader
from circuits.models import Model, Run
from circuits.models.layers import (
    Geometry,
    attend,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    project,
    unembed,
)
from circuits.models.outputs import attention_bias, node_output


def run_subgraph(model: Model, own: Run, other: Run, circuit: Circuit) -> Float[Tensor, "prompt position d_vocab"]:
    """Logits of the prompts of `own` when every reader takes the writers that feed it inside the circuit as they now are,
    and all others from the run `other` (Conmy et al. 2023). The full graph gives `own`, the empty one `other`.

    The circuit's graph must be that of heads and MLPs. Exact; models with a norm after a sublayer and a bias inside it
    share the bias's change with no writer. Raises GraphError for another graph.
    """
    graph = model.graph()
    writers = [node for node in graph.nodes() if node.kind != "logits"]
    place = {node: index for index, node in enumerate(writers)}
    outside = {reader: _outside(graph, circuit, reader, place) for reader in _readers(graph)}
    theirs = torch.stack([node_output(other, node) for node in writers])
    now = theirs.clone()
    weights, geometry = model.weights, Geometry(model.weights, own.tokens, model.dtype)

    def reads(reader: Reader, current: Tensor) -> Tensor:
        mask = outside[reader]
        return current + torch.einsum("w,wpcd->pcd", mask.to(theirs.dtype), theirs[: len(mask)] - now[: len(mask)])

    x = now[0] = own.residuals[0]
    for layer, block in enumerate(weights.blocks):
        before, attention = x, block.attention
        slots: dict[str, list[Tensor]] = {"q": [], "k": [], "v": []}
        for slot, parts in slots.items():
            for index in range(graph.n_heads if slot == "q" else graph.n_key_value_heads):
                reader = Reader(Node("head", layer, index), slot)  # type: ignore[arg-type]
                normed = normalise(reads(reader, before), block.attention_norm)
                parts.append(project(normed, attention, slot)[:, :, index])  # type: ignore[arg-type]
        q, k, v = (placed(torch.stack(slots[s], dim=2), s, weights, geometry.rotation) for s in ("q", "k", "v"))
        z = attend(q, k, v, attention, geometry.bias(attention.window))
        run = _with(own, layer, z=z)
        for head in range(graph.n_heads):
            now[place[Node("head", layer, head)]] = node_output(run, Node("head", layer, head))
            x = x + now[place[Node("head", layer, head)]]
        x = x + attention_bias(run, layer)
        if block.mlp is not None:
            node = Node("mlp", layer)
            source = reads(Reader(node), before if weights.parallel else x)
            neurons = neuron_activations(normalise(source, block.mlp_norm), block.mlp)
            now[place[node]] = mlp_output(neurons, block.mlp, block.mlp_post_norm)
            x = x + now[place[node]]
    return unembed(weights, reads(Reader(Node("logits")), x))


def _with(run: Run, layer: int, *, z: Tensor) -> Run:
    kept = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    kept["z"] = (*run.z[:layer], z, *run.z[layer + 1 :])
    return Run(**kept)


def _readers(graph: Graph) -> list[Reader]:
    found: dict[Reader, None] = {}
    for node in graph.nodes():
        if node.kind == "head":
            found |= {graph.reader_of(node, slot): None for slot in ("q", "k", "v")}
        elif node.kind != "input":
            found[Reader(node)] = None
    return list(found)


def _outside(graph: Graph, circuit: Circuit, reader: Reader, place: dict[Node, int]) -> Bool[Tensor, " writer"]:
    """Which of the writers before a reader feed it from outside the circuit."""
    writers = graph.writers(reader)
    mask = torch.zeros(1 + max(place[writer] for writer in writers), dtype=torch.bool)
    for writer in writers:
        mask[place[writer]] = Edge(writer, reader.node, reader.slot) not in circuit.edges
    return mask
