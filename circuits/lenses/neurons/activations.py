"""Neuron activations over a text, layer by layer: a forward pass that holds one layer at a time and no logits."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError
from circuits.models import Model, TokenBatch
from circuits.models.choosing import refuse_without_mlps
from circuits.models.geometry import Geometry
from circuits.models.layers import (
    SLOTS,
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
