"""How far each writer's output differs between two runs, as factors: coordinates times output weights."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Run
from circuits.models.folding import through_norm
from circuits.models.layers import mlp_output
from circuits.patching.subgraphs.outside import scaled_heads, scaled_neurons


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
    change = scaled_heads(other.z[layer], block) - scaled_heads(own.z[layer], block)
    return Writing(change.flatten(2), through_norm(block.attention.W_O, block.attention_post_norm), block.attention.d_head)


def neuron_writing(own: Run, other: Run, layer: int) -> Writing:
    """The neurons of a layer: the other run's minus this one's."""
    block = own.weights.blocks[layer]
    assert block.mlp is not None
    change = scaled_neurons(other.neurons[layer], block) - scaled_neurons(own.neurons[layer], block)
    return Writing(change, through_norm(block.mlp.W_out, block.mlp_post_norm), 1)


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
