"""What tokens are to a head that reads nothing but their embedding: queries, keys, values, and what it writes as logits.

For a head of the first layer this is all it reads, but for learned positions, which are left out (a norm's scale is that
of the embedding alone). For later heads it is the part of what they read that the direct path brings.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.heads.composition import output_matrices
from circuits.heads.weight_tables.ranking import blocks
from circuits.models import Model
from circuits.models.folding import through_norm
from circuits.models.geometry import Rotation, rotate
from circuits.models.layers import linear, mlp_output, neuron_activations, norm_scale, normalise
from circuits.models.weights import Rotary, Weights


def embedded(weights: Weights, ids: Int[Tensor, " token"], *, through_mlp0: bool = False) -> Float[Tensor, "token d_model"]:
    """The residual stream of tokens by themselves, positions left out: the scaled and normed embedding and, with
    `through_mlp0`, what the first MLP adds where attention has added nothing ("effective embedding")."""
    x = weights.W_E[ids.to(weights.W_E.device)]
    if weights.embedding_scale != 1.0:
        x = x * torch.tensor(weights.embedding_scale, dtype=x.dtype, device=x.device)
    x = normalise(x, weights.embedding_norm)
    block = weights.blocks[0]
    if not through_mlp0 or block.mlp is None:
        return x
    return x + mlp_output(neuron_activations(normalise(x, block.mlp_norm), block.mlp), block.mlp, block.mlp_post_norm)


def typical_scale(weights: Weights, *, through_mlp0: bool = False) -> float:
    """By what the final norm would divide an embedding alone, the mean over the vocabulary; 1 without a final norm."""
    if weights.final_norm is None:
        return 1.0
    rows, width = weights.W_E.shape
    parts = [
        norm_scale(embedded(weights, ids, through_mlp0=through_mlp0), weights.final_norm).double().sum()
        for ids in blocks(rows, width)
    ]
    return float(torch.stack(parts).sum()) / rows


def projected_tokens(
    model: Model,
    place: tuple[int, int],
    slot: Literal["q", "k", "v"],
    ids: Int[Tensor, " token"],
    *,
    offset: int = 0,
    through_mlp0: bool = False,
) -> Float[Tensor, "token d_head"]:
    """Queries, keys or values of one head for tokens by themselves, with biases (values: without their own, which is the
    same for every source) and norms of queries and keys. Rotary positions: the query stands `offset` places after the key."""
    weights, (layer, head) = model.weights, place
    block = weights.blocks[layer]
    attention = block.attention
    x = normalise(embedded(weights, ids, through_mlp0=through_mlp0), block.attention_norm)
    index = head if slot == "q" else head // (attention.n_heads // attention.n_key_value_heads)
    own = slice(index * attention.d_head, (index + 1) * attention.d_head)
    norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
    W, b = getattr(attention, f"W_{slot.upper()}"), getattr(attention, f"b_{slot.upper()}")
    if attention.norm_over_heads and norm is not None:
        out = normalise(linear(x, W, b), norm)[:, own]
    else:
        out = linear(x, W[:, own], None if b is None or slot == "v" else b[own])
        out = normalise(out, norm)
    return _turned(out, weights.rotary_at(layer), offset) if slot == "q" else out


def _turned(q: Float[Tensor, "token d_head"], rotary: Rotary | None, offset: int) -> Float[Tensor, "token d_head"]:
    if rotary is None:
        return q
    angles = (torch.tensor(float(offset)) / rotary.position_scale) * rotary.inverse_frequencies.float().cpu()
    angles = angles.repeat_interleave(2) if rotary.adjacent else torch.cat([angles, angles])
    # a model that stretches cos and sin does so for queries and for keys, of which only the query is turned here
    cos, sin = (turn.to(q) * rotary.scaling**2 for turn in (angles.cos(), angles.sin()))
    return rotate(q[:, None], Rotation(cos[None, None], sin[None, None], rotary.adjacent))[:, 0]


def written_logits(model: Model, place: tuple[int, int], scale: float) -> Float[Tensor, "d_head d_vocab_out"]:
    """What each entry of a head's z adds to the logits through W_O, the norms' gains and centring, the final norm's scale as
    given, and W_U; less its mean over the vocabulary, which no probability sees."""
    weights, (layer, head) = model.weights, place
    block = weights.blocks[layer]
    matrix = through_norm(output_matrices(block)[head], weights.final_norm, scale) @ weights.W_U
    return matrix - matrix.mean(dim=1, keepdim=True)


def stacked(
    model: Model, place: tuple[int, int], slot: Literal["q", "k", "v"], *, offset: int = 0, through_mlp0: bool = False
) -> Float[Tensor, "token d_head"]:
    """`projected_tokens` of the whole vocabulary, made in blocks."""
    widest = max(model.d_model, model.d_mlp if through_mlp0 else 0, model.weights.blocks[place[0]].attention.W_Q.shape[1])
    parts = blocks(model.d_vocab, widest)
    return torch.cat([projected_tokens(model, place, slot, ids, offset=offset, through_mlp0=through_mlp0) for ids in parts])
