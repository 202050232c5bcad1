"""Edge attribution as its definition says: a zero added to what every single reader reads, and its gradient."""

import torch
from torch import Tensor

from circuits.graph import Graph, Node, Reader
from circuits.models import Model, node_output
from circuits.models.geometry import Geometry
from circuits.models.layers import attend, attention_output, mlp_output, neuron_activations, normalise, placed, project, unembed
from circuits.patching.engine.variant_mlp import single_neuron
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric

SLOTS = ("q", "k", "v")


def slopes(model: Model, pairs: PromptPairs, metric: Metric, graph: Graph, start: Tensor | None = None) -> dict[Reader, Tensor]:
    """The gradient of the metric's sum by a change of what each reader of a graph alone reads, on the clean prompts or with
    other embeddings to start from."""
    run = model.run(pairs.clean)
    own = run.residuals[0] if start is None else start
    leaves: dict[Reader, Tensor] = {}

    def read(reader: Reader, x: Tensor) -> Tensor:
        leaves[reader] = torch.zeros_like(x, requires_grad=True)
        return x + leaves[reader]

    weights, geometry, x = model.weights, Geometry(model.weights, run.tokens, model.dtype), own
    for layer, block in enumerate(weights.blocks):
        before, attention, parts = x, block.attention, []
        for slot in SLOTS:
            heads = []
            for index in range(graph.n_heads if slot == "q" else graph.n_key_value_heads):
                normed = normalise(read(Reader(Node("head", layer, index), slot), before), block.attention_norm)
                heads.append(project(normed, attention, slot)[:, :, index])
            parts.append(placed(torch.stack(heads, dim=2), slot, geometry.rotation(layer)))
        z = attend(*parts, attention, geometry.bias(attention.window))
        x = x + attention_output(z, attention, block.attention_post_norm)
        if block.mlp is not None:
            source = before if weights.parallel else x
            if graph.neurons:
                normed, each = normalise(source, block.mlp_norm), []
                for index in range(block.mlp.W_in.shape[1]):
                    moved = normalise(read(Reader(Node("neuron", layer, index)), source), block.mlp_norm)
                    each.append(single_neuron(moved, normed, block.mlp, index))
                neurons = torch.stack(each, dim=2)
            else:
                neurons = neuron_activations(normalise(read(Reader(Node("mlp", layer)), source), block.mlp_norm), block.mlp)
            x = x + mlp_output(neurons, block.mlp, block.mlp_post_norm)
    logits = unembed(weights, read(Reader(Node("logits")), x))
    rows = torch.arange(len(pairs))
    found = torch.autograd.grad(
        metric(logits[rows, pairs.answer_columns], pairs).sum(),
        list(leaves.values()),
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(leaves, found, strict=True))


def slow_scores(
    model: Model,
    pairs: PromptPairs,
    metric: Metric,
    *,
    neurons: bool = False,
    shares: tuple[float, ...] = (1.0,),
    mask: Tensor | None = None,
) -> dict[str, float]:
    """Every edge's score; `shares` say how much of the way from the corrupt embeddings to the clean ones the gradients are
    taken at."""
    graph = model.graph(neurons=neurons)
    own, other = model.run(pairs.clean), model.run(pairs.corrupt)
    real = pairs.clean.mask if mask is None else mask
    scores: dict[str, float] = {}
    for share in shares:
        found = slopes(model, pairs, metric, graph, torch.lerp(other.residuals[0], own.residuals[0], share))
        for edge in graph.edges():
            change = node_output(other, edge.writer) - node_output(own, edge.writer)
            value = float(((change * found[edge.target]).sum(dim=-1) * real).sum()) / len(pairs) / len(shares)
            scores[str(edge)] = scores.get(str(edge), 0.0) + value
    return scores
