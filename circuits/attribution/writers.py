"""How far each writer's output differs between two runs, as factors: coordinates times output weights."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Run
from circuits.models.layers import attention_output, linear, mlp_output, norm_scale
from circuits.patching.outside import output_weights


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """Writers of one layer's attention or MLP: writer w's output differs by the sum over its `width` coordinates of
    `change * W`."""

    change: Float[Tensor, "prompt position coordinate"]
    W: Float[Tensor, "coordinate d_model"]
    width: int
    """Coordinates of one writer: d_head for heads, 1 for neurons."""


def head_writing(own: Run, other: Run, layer: int) -> Writing:
    """The heads of a layer: the other run's minus this one's."""
    block = own.weights.blocks[layer]
    W, post = output_weights(block.attention.W_O, block.attention_post_norm), block.attention_post_norm
    z = [run.z[layer].flatten(2) for run in (own, other)]
    if post is not None:
        wholes = (attention_output(run.z[layer], block.attention, None) for run in (own, other))
        z = [value / norm_scale(whole, post) for value, whole in zip(z, wholes, strict=True)]
    return Writing(z[1] - z[0], W, block.attention.d_head)


def neuron_writing(own: Run, other: Run, layer: int) -> Writing:
    """The neurons of a layer: the other run's minus this one's."""
    block = own.weights.blocks[layer]
    assert block.mlp is not None
    W, post = output_weights(block.mlp.W_out, block.mlp_post_norm), block.mlp_post_norm
    neurons = [run.neurons[layer] for run in (own, other)]
    if post is not None:
        wholes = (linear(value, block.mlp.W_out, block.mlp.b_out) for value in neurons)
        neurons = [value / norm_scale(whole, post) for value, whole in zip(neurons, wholes, strict=True)]
    return Writing(neurons[1] - neurons[0], W, 1)


def deltas(own: Run, other: Run, columns: slice, *, mlps: bool = True) -> Float[Tensor, "prompt writer position d_model"]:
    """How far every writer's output differs at some columns, in the order of computation: input, then a layer's heads and
    its MLP."""
    parts = [(other.residuals[0] - own.residuals[0])[:, None, columns]]
    for layer, block in enumerate(own.weights.blocks):
        writing = head_writing(own, other, layer)
        change = writing.change[:, columns].unflatten(-1, (-1, writing.width))
        W = writing.W.unflatten(0, (-1, writing.width))
        parts.append(torch.einsum("pche,hed->phcd", change, W))
        if block.mlp is not None and mlps:
            parts.append(mlp_change(own, other, layer, columns)[:, None])
    return torch.cat(parts, dim=1)


def mlp_change(own: Run, other: Run, layer: int, columns: slice) -> Float[Tensor, "prompt position d_model"]:
    """How far the output of a whole MLP differs."""
    block = own.weights.blocks[layer]
    assert block.mlp is not None
    if layer not in own.edited_mlps and layer not in other.edited_mlps and block.mlp_post_norm is None:
        return (other.neurons[layer][:, columns] - own.neurons[layer][:, columns]) @ block.mlp.W_out
    ends = []
    for run in (own, other):
        written = run.edited_mlps.get(layer)
        whole = written if written is not None else mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)
        ends.append(whole[:, columns])
    return ends[1] - ends[0]
