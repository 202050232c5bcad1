"""Weights whose heads have W_QK or W_OV of lower rank, nearest to the old ones in Frobenius norm."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.heads.composition import output_matrices, reading_matrices
from circuits.models.geometry import Rotation, rotate
from circuits.models.weights import Attention, Block, Rotary, Weights

HeadPart = Literal["qk", "ov"]
PartOf = tuple[int, int, HeadPart]
Ranks = Mapping[PartOf, int]
"""Rank by layer, head and part; what is not named stays whole."""

OFFSETS = 64
"""Relative places, from 0 on, over which rotary scores are averaged."""


def with_ranks(weights: Weights, ranks: Ranks) -> Weights:
    """The same weights with these parts of heads at lower rank.

    W_OV = W_V W_O becomes the nearest matrix of that rank (norms' gains folded in) by a change of W_O alone; what values'
    bias adds stays, in the output's bias. W_QK = W_Q W_K^T becomes the nearest one by a change of W_Q alone, and so do keys
    that heads share stay as they are. Where rotary positions or norms stand between queries and keys, W_QK is near on
    average over OFFSETS relative places (norms left aside), and keys that no other head shares are changed likewise.
    """
    layers = {layer for layer, _, _ in ranks}
    blocks = list(weights.blocks)
    for layer in layers:
        held: dict[tuple[int, HeadPart], int] = {(head, part): rank for (at, head, part), rank in ranks.items() if at == layer}
        blocks[layer] = _block(blocks[layer], held, weights.rotary_at(layer))
    return dataclasses.replace(weights, blocks=tuple(blocks))


def unmerged(attention: Attention, rotary: Rotary | None) -> bool:
    """Whether rotary positions or norms stand between queries and keys, so that W_Q and W_K are not one matrix."""
    return rotary is not None or attention.q_norm is not None or attention.k_norm is not None


def parameters(attention: Attention, d_model: int, rotary: Rotary | None, part: HeadPart, rank: int | None = None) -> int:
    """Numbers that a head needs for W_QK or W_OV at a rank (None: as it is now), biases left aside; shared keys and values
    count for each of their heads."""
    if rank is None:
        return 2 * d_model * attention.d_head
    if part == "qk" and unmerged(attention, rotary):
        one = min(rank * (d_model + attention.d_head), d_model * attention.d_head)
        shared = attention.n_heads != attention.n_key_value_heads
        return one + (d_model * attention.d_head if shared else one)
    return 2 * d_model * rank


def _block(block: Block, held: Mapping[tuple[int, HeadPart], int], rotary: Rotary | None) -> Block:
    attention = block.attention
    W_Q, W_K, W_O = attention.W_Q.clone(), attention.W_K.clone(), attention.W_O.clone()
    b_O = torch.zeros_like(W_O[0]) if attention.b_O is None else attention.b_O.clone()
    d_head, groups = attention.d_head, attention.n_heads // attention.n_key_value_heads
    queries, keys = _gram(block, "W_Q"), _gram(block, "W_K")
    values, outputs = _gram(block, "W_V"), output_matrices(block).double()
    changed_bias = False
    for (head, part), rank in held.items():
        own = slice(head * d_head, (head + 1) * d_head)
        if part == "qk":
            seen, asked = _over_places(keys[head], rotary, 1), _over_places(queries[head], rotary, -1)
            W_Q[:, own] = W_Q[:, own] @ projector(queries[head], seen, rank).to(W_Q)
            if unmerged(attention, rotary) and groups == 1:
                W_K[:, own] = W_K[:, own] @ projector(keys[head], asked, rank).to(W_K)
            continue
        written = outputs[head] @ outputs[head].T
        kept = projector(written, values[head], rank).T.to(W_O)
        whole = W_O[own].clone()
        W_O[own] = kept @ whole
        if attention.b_V is not None:
            group = head // groups
            bias = attention.b_V[group * d_head : (group + 1) * d_head]
            b_O, changed_bias = b_O + bias @ (whole - W_O[own]), True
    new_bias = b_O if changed_bias or attention.b_O is not None else None
    return dataclasses.replace(block, attention=dataclasses.replace(attention, W_Q=W_Q, W_K=W_K, W_O=W_O, b_O=new_bias))


def projector(
    gram: Float[Tensor, "d_head d_head"], metric: Float[Tensor, "d_head d_head"], rank: int
) -> Float[Tensor, "d_head d_head"]:
    """P of this rank for which A P B^T is nearest to A B^T, given `gram` = A^T A and `metric` = B^T B: G^½ V V^T G^-½ with G
    the metric and V the leading right singular vectors of A G^½."""
    d_head = len(gram)
    if rank >= d_head:
        return torch.eye(d_head, dtype=gram.dtype, device=gram.device)
    sizes, axes = torch.linalg.eigh(metric)
    root = sizes.clamp(min=0).sqrt()
    inverse = torch.where(root > 1e-7 * root.max(), 1 / root.clamp(min=1e-300), 0.0)
    half, back = (axes * root) @ axes.T, (axes * inverse) @ axes.T
    leading = torch.linalg.eigh(half @ gram @ half).eigenvectors[:, d_head - rank :]
    return half @ leading @ leading.T @ back


def _gram(block: Block, name: Literal["W_Q", "W_K", "W_V"]) -> Float[Tensor, "head d_head d_head"]:
    matrix = reading_matrices(block, name).double()
    return torch.einsum("hmd,hme->hde", matrix, matrix)


def _over_places(gram: Float[Tensor, "d_head d_head"], rotary: Rotary | None, sign: int) -> Float[Tensor, "d_head d_head"]:
    """The Gram matrix of the other side, turned by each relative place and averaged."""
    if rotary is None:
        return gram
    places = torch.arange(OFFSETS, dtype=torch.float64, device=gram.device) * sign / rotary.position_scale
    angles = places[:, None] * rotary.inverse_frequencies.to(places)
    angles = angles.repeat_interleave(2, dim=-1) if rotary.adjacent else torch.cat([angles, angles], dim=-1)
    rotation = Rotation(angles.cos()[:, None], angles.sin()[:, None], rotary.adjacent)
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device).expand(OFFSETS, -1, -1)
    turns = rotate(identity, rotation)
    return torch.einsum("pde,ef,pgf->dg", turns, gram, turns) / OFFSETS
