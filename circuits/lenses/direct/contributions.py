"""What each part of one layer adds to a logit: the answer direction, pulled back through output weights."""

import dataclasses

import einops
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models import Run
from circuits.models.folding import behind_norm
from circuits.models.geometry import Geometry
from circuits.models.layers import attention_output, attention_pattern, linear, norm_scale
from circuits.models.weights import Attention, Block, Norm


@dataclasses.dataclass(frozen=True, eq=False)
class LayerContributions:
    """What one layer adds, in logits. A bias is None where the layer has none; `neurons` has no rows without an MLP."""

    heads: Float[Tensor, "head prompt"]
    attention_bias: Float[Tensor, " prompt"] | None
    neurons: Float[Tensor, "neuron prompt"]
    mlp_bias: Float[Tensor, " prompt"] | None
    sources: Float[Tensor, "head prompt position"] | None
    """The heads by the column that they attend to, where asked for."""


def layer_contributions(
    run: Run,
    layer: int,
    direction: Float[Tensor, "prompt d_model"],
    columns: Int[Tensor, " prompt"],
    *,
    sources: bool = False,
    neurons: bool = False,
) -> LayerContributions:
    """What a layer's heads, neurons and biases write at `columns`, onto a direction of the residual stream.

    The direction goes back through a post-norm (with the scale of this run) and the output weights, so that no product of
    the size [prompt position node d_model] is made. `neurons=False` adds the neurons up to one row.
    """
    block = run.weights.blocks[layer]
    z = at_columns(run.z[layer], columns).to(direction.dtype)
    back, attention_bias = _through_attention(block, direction, z)
    by_source = _by_source(run, layer, back, columns) if sources else None
    heads = einops.einsum(z, back, "prompt head d_head, prompt head d_head -> head prompt")
    if block.mlp is None:
        return LayerContributions(heads, attention_bias, heads[:0], None, by_source)
    active = at_columns(run.neurons[layer], columns).to(direction.dtype)
    W_out, b_out = block.mlp.W_out.to(direction.dtype), _widened(block.mlp.b_out, direction)
    post = block.mlp_post_norm
    before = _before(post, direction, linear(active, W_out, b_out))
    split = active.T * einops.einsum(W_out, before, "neuron d_model, prompt d_model -> neuron prompt")
    split = split if neurons else split.sum(dim=0, keepdim=True)
    return LayerContributions(heads, attention_bias, split, _bias(b_out, before, post, direction), by_source)


def at_columns(
    values: Float[Tensor, "prompt position *rest"], columns: Int[Tensor, " prompt"]
) -> Float[Tensor, "prompt *rest"]:  # noqa: F821
    """What stands in one column of each prompt."""
    return values[torch.arange(len(columns), device=columns.device), columns]


def _through_attention(
    block: Block, direction: Float[Tensor, "prompt d_model"], z: Float[Tensor, "prompt head d_head"]
) -> tuple[Float[Tensor, "prompt head d_head"], Float[Tensor, " prompt"] | None]:
    """The direction as z meets it, and what the attention's biases add."""
    attention = _widened_output(block.attention, direction)
    post = block.attention_post_norm
    before = _before(post, direction, attention_output(z, attention, None))
    W_O = attention.per_head("W_O")
    back = einops.einsum(W_O, before, "head d_head d_model, prompt d_model -> prompt head d_head")
    return back, _bias(attention.b_O, before, post, direction)


def _by_source(
    run: Run, layer: int, back: Float[Tensor, "prompt head d_head"], columns: Int[Tensor, " prompt"]
) -> Float[Tensor, "head prompt position"]:
    """Each head by source: attention from the answer's column to a column, times what its value there adds."""
    attention = run.weights.blocks[layer].attention
    geometry = Geometry(run.weights, run.tokens, run.q[layer].dtype)
    query = at_columns(run.q[layer], columns)[:, None]
    pattern = attention_pattern(query, run.k[layer], attention, geometry.bias_at(attention.window, columns[:, None]))
    values = run.v[layer].to(back.dtype)
    grouped = einops.rearrange(back, "prompt (group head) d_head -> prompt group head d_head", group=values.shape[2])
    added = einops.einsum(
        values, grouped, "prompt position group d_head, prompt group head d_head -> group head prompt position"
    )
    weights = einops.rearrange(pattern.to(back.dtype), "prompt head 1 position -> head prompt position")
    return weights * einops.rearrange(added, "group head prompt position -> (group head) prompt position")


def _before(
    norm: Norm | None, direction: Float[Tensor, "prompt d_model"], whole: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "prompt d_model"]:
    """The direction as it reads what goes into a norm, whose scale is that of its whole input."""
    return direction if norm is None else behind_norm(direction.T, norm).T / norm_scale(whole, norm)


def _bias(
    bias: Tensor | None, before: Float[Tensor, "prompt d_model"], post: Norm | None, direction: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, " prompt"] | None:
    """What an output bias, and the bias of the norm after it, add."""
    parts = [] if bias is None else [before @ bias]
    if post is not None and post.bias is not None:
        parts.append(direction @ post.bias.to(direction.dtype))
    return None if not parts else sum(parts[1:], parts[0])


def _widened(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(like.dtype)


def _widened_output(attention: Attention, like: Tensor) -> Attention:
    return dataclasses.replace(attention, W_O=attention.W_O.to(like.dtype), b_O=_widened(attention.b_O, like))
