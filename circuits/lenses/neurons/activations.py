"""Neuron activations over a text, layer by layer: a forward pass that holds one layer at a time and no logits."""

from collections.abc import Iterable, Iterator

from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError, PromptError
from circuits.graph import Node
from circuits.models import Model, TokenBatch
from circuits.models.layers import (
    SLOTS,
    Geometry,
    attend,
    attention_output,
    embed,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    project,
)
from circuits.models.weights import MLP, Block, Weights


def mlp_of(model: Model, layer: int) -> MLP:
    """The MLP of a layer. Raises PromptError for a model without MLPs, GraphError for a layer that it lacks."""
    refuse_without_mlps(model)
    if not 0 <= layer < model.n_layers:
        raise GraphError(f"{model.name} has no layer {layer}: it has {model.n_layers} layers, numbered from 0")
    mlp = model.weights.blocks[layer].mlp
    assert mlp is not None
    return mlp


def refuse_without_mlps(model: Model) -> None:
    """Raise PromptError for an attention-only model."""
    if not model.d_mlp:
        raise PromptError(f"{model.name} has attention alone: there are no MLP neurons to read")


def parse_neuron(model: Model, name: str | Node) -> Node:
    """The neuron of that name (`m3.n7`). Raises GraphError for another node or one that the model lacks."""
    node = Node.parse(name) if isinstance(name, str) else name
    refuse_without_mlps(model)
    if node.kind != "neuron":
        raise GraphError(f"{node} is no neuron: expected a name such as m0.n7")
    return model.graph(neurons=True).node(node)


def chosen_neurons(model: Model, neurons: Iterable[str | Node] | None) -> dict[int, list[int]]:
    """Layer → indices of the chosen neurons, both ascending: of all neurons (None), or of those named (`m3.n7`) or whose
    layer is (`m3`). Raises GraphError for names of other nodes, and where none is given."""
    refuse_without_mlps(model)
    if neurons is None:
        return {layer: list(range(model.d_mlp)) for layer in range(model.n_layers)}
    found: dict[int, set[int]] = {}
    for name in [neurons] if isinstance(neurons, str | Node) else neurons:
        node = Node.parse(name) if isinstance(name, str) else name
        if node.kind == "mlp":
            layer = model.graph().node(node).layer
            found.setdefault(layer or 0, set()).update(range(model.d_mlp))
        else:
            node = parse_neuron(model, node)
            found.setdefault(node.layer or 0, set()).add(node.index or 0)
    if not found:
        raise GraphError("no neurons are named: give names such as m0.n7, or layers such as m0")
    return {layer: sorted(found[layer]) for layer in sorted(found)}


def neuron_layers(
    weights: Weights, tokens: TokenBatch, *, last: int | None = None
) -> Iterator[tuple[int, Float[Tensor, "prompt position d_mlp"]]]:
    """Each layer with its neurons' activations, in turn, up to layer `last`; nothing else is computed or held. The caller
    turns gradients off."""
    geometry = Geometry(weights, tokens, weights.W_E.dtype)
    x = embed(weights, tokens)
    last = len(weights.blocks) - 1 if last is None else last
    for layer, block in enumerate(weights.blocks[: last + 1]):
        alone = weights.parallel and layer == last  # the last neurons do not read this attention
        middle = x if alone else x + _attended(block, x, geometry, layer)
        if block.mlp is None:
            x = middle
            continue
        neurons = neuron_activations(normalise(x if weights.parallel else middle, block.mlp_norm), block.mlp)
        yield layer, neurons
        if layer < last:
            x = middle + mlp_output(neurons, block.mlp, block.mlp_post_norm)


def _attended(block: Block, x: Tensor, geometry: Geometry, layer: int) -> Float[Tensor, "prompt position d_model"]:
    """What a layer's attention adds to the residual stream."""
    attention, normed = block.attention, normalise(x, block.attention_norm)
    q, k, v = (placed(project(normed, attention, slot), slot, geometry.rotation(layer)) for slot in SLOTS)
    z = attend(q, k, v, attention, geometry.bias(attention.window))
    return attention_output(z, attention, block.attention_post_norm)
