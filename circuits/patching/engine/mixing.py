"""Attention of patched runs: values averaged by the pattern, for rows that start at some column of their prompts."""

import torch
from torch import Tensor

from circuits.models.layers import attend
from circuits.patching.engine.base import Base
from circuits.patching.engine.stream import StreamBlock


def mixed(
    base: Base, block: StreamBlock, layer: int, q: Tensor, k: Tensor, v: Tensor, *, freeze_patterns: bool = False
) -> Tensor:
    """z `[stream prompt query head d_head]` of the first streams of a block, as many as there are queries."""
    count, attention = q.shape[0], base.run.weights.blocks[layer].attention
    if not count:
        return q
    # Queries stand from `start` on, but look at every column before it.
    k, v = (_with_prefix(block, kept[layer], new) for kept, new in ((base.run.k, k), (base.run.v, v)))
    groups = attention.n_heads // attention.n_key_value_heads
    if freeze_patterns:
        # Queries first, as in every tensor that `pick` takes columns of.
        pattern = base.run.pattern(layer).transpose(1, 2)
        rows = block.pick(pattern, block.queries)
        z = torch.einsum("pchk,spkhd->spchd", rows, v.repeat_interleave(groups, dim=3))
    else:
        bias = _bias(base, block, layer, count)
        z = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attention, bias).unflatten(0, q.shape[:2])
    for row, stream in enumerate(block.streams[:count]):
        for change in stream.of("pattern"):
            # A pattern from elsewhere may have weight on pads, whose values belong to no token: unmasked, a padded prompt
            # would give another number than alone.
            rows = block.pick(change.value, block.queries)
            new = (rows * base.run.tokens.mask[:, None]) @ v[row, :, :, (change.index or 0) // groups]
            mask = block.pick(change.mask, block.queries)[..., None]
            z[row, :, :, change.index] = torch.where(mask, new, z[row, :, :, change.index])
    return z


def _with_prefix(block: StreamBlock, kept: Tensor, new: Tensor) -> Tensor:
    """Keys or values of all columns: the base run's before `start`."""
    if not block.start:
        return new
    prefix = kept[:, : block.start]
    return torch.cat([prefix.expand(new.shape[0], *prefix.shape), new], dim=2)


def _bias(base: Base, block: StreamBlock, layer: int, count: int) -> Tensor:
    """What is added to scores, `[stream·prompt|1 head|1 column key]`."""
    attention, prompts = base.run.weights.blocks[layer].attention, len(base.run.tokens)
    # Written out always: masking by `is_causal` would line up the first query with the first key, and here the first query
    # stands at `start`.
    bias = base.geometry.bias_at(attention.window, block.queries)
    out = {row: stream.of("knockout") for row, stream in enumerate(block.streams[:count])}
    if not any(out.values()):
        return bias if bias.shape[0] == 1 else bias.expand(count, *bias.shape).flatten(0, 1)
    # With a head axis only where somebody knocks out edges: it multiplies the bias by heads and rows, which a pass without
    # knockouts would pay in memory.
    bias = bias.expand(prompts, attention.n_heads, *bias.shape[2:])
    whole = bias.expand(count, *bias.shape).clone()
    for row, changes in out.items():
        for change in changes:
            blocked = block.pick(change.value & change.mask[..., None], block.queries)[:, None]
            heads = slice(None) if change.index is None else slice(change.index, change.index + 1)
            whole[row, :, heads].masked_fill_(blocked, -torch.inf)
    return whole.flatten(0, 1)
