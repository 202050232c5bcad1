"""The structural probe: a projection in which squared distances are distances in the tree, and one in which squared lengths are
depths, in flat space (Hewitt & Manning 2019) or in the Poincare ball (Chen et al. 2021), where there is room for trees."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.probes.trees.gold import GoldTree, TreeBatch, batches

TreeKind = Literal["distance", "depth"]
TreeSpace = Literal["euclidean", "poincare"]
RATE = 1e-2
"""The first step of Adam."""


def fit_tree(
    x: Float[Tensor, "word width"],
    train: Sequence[GoldTree],
    kind: TreeKind,
    *,
    space: TreeSpace = "euclidean",
    rank: int = 64,
    epochs: int = 24,
    decay: float = 0.0,
    seed: int = 0,
) -> Float[Tensor, "width rank"]:
    """B with the least sum over sentences of the mean of abs(tree distance - abs2(B (h_i - h_j))) over pairs of words, or of
    abs(depth - abs2(B h_i)) over words. By Adam, batches of 24 sentences, the step falling to 0; what is drawn is decided by
    `seed`. In the Poincare ball abs2 is the squared hyperbolic distance of exp_0(B h_i) and exp_0(B h_j), or of one from 0.

    Raises CircuitsError without sentences and for numbers below 1.

    Args:
        x: a vector a word of the text, each direction of deviation about 1, as the model has them: not centred.
        train: trees of sentences to train on.
        kind: what the tree is told by.
        space: where distances are taken.
        rank: directions of the projection at most.
        epochs: how often each sentence is seen.
        decay: in each step this much of the step's size is taken off B (Loshchilov & Hutter 2019), so that what few words tell
            counts for less.
        seed: that of the first projection and of the order.
    """
    if not train or rank < 1 or epochs < 1:
        raise CircuitsError(f"{len(train)} sentences, rank={rank}, epochs={epochs}: expected at least 1 of each")
    generator = torch.Generator().manual_seed(seed)
    width = x.shape[1]
    rank = min(rank, width)
    drawn = (torch.randn(width, rank, generator=generator) / width**0.5).to(x)
    ready = list(batches(train))
    B = (drawn * _size(x, ready, drawn, kind, space)).requires_grad_()
    optimiser = torch.optim.AdamW([B], lr=RATE, weight_decay=decay)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=epochs * len(ready))
    for _ in range(epochs):
        for place in torch.randperm(len(ready), generator=generator).tolist():
            with torch.enable_grad():
                _loss(x, ready[place], B, kind, space).backward()
            optimiser.step()
            optimiser.zero_grad()
            falling.step()
    return B.detach()


def _size(x: Tensor, ready: Sequence[TreeBatch], B: Tensor, kind: TreeKind, space: TreeSpace) -> float:
    """By what a first projection is multiplied, so that what it tells is as large on average as what it is to tell; in the ball
    as if space were flat, which it is near 0."""
    told, gold = 0.0, 0.0
    for batch in ready:
        projected = x[batch.words] @ B
        if kind == "depth":
            told += float((told_depths(projected, space) * batch.mask).sum())
            gold += float((batch.depth * batch.mask).sum())
        else:
            pairs = batch.mask[:, :, None] & batch.mask[:, None, :]
            told += float((squared_distances(projected) * pairs).sum()) * (1 if space == "euclidean" else 4)
            gold += float((batch.distance * pairs).sum())
    return (gold / told) ** 0.5 if told > 0 else 1.0


def _loss(x: Tensor, batch: TreeBatch, B: Tensor, kind: TreeKind, space: TreeSpace) -> Tensor:
    """The mean over sentences of the mean over their pairs, or words."""
    projected = x[batch.words] @ B
    mask = batch.mask
    if kind == "depth":
        off = (batch.depth - told_depths(projected, space)).abs() * mask
        return (off.sum(dim=1) / mask.sum(dim=1)).mean()
    pairs = mask[:, :, None] & mask[:, None, :]
    off = (batch.distance - told_distances(projected, space)).abs() * pairs
    return (off.sum(dim=(1, 2)) / mask.sum(dim=1).square()).mean()


def squared_distances(projected: Float[Tensor, "*sentence word rank"]) -> Float[Tensor, "*sentence word word"]:
    """Between each two words."""
    lengths = projected.square().sum(dim=-1)
    products = torch.einsum("...ir,...jr->...ij", projected, projected)
    return (lengths[..., :, None] + lengths[..., None, :] - 2 * products).clamp(min=0)


def told_distances(
    projected: Float[Tensor, "*sentence word rank"], space: TreeSpace = "euclidean"
) -> Float[Tensor, "*sentence word word"]:
    """What is to be the distance in the tree between each two words. In the ball the law of cosines says it of their distances
    r = 2 abs(v) from 0, where v is what is mapped into the ball, and the angle between them:
    cosh d = cosh(r_i - r_j) + sinh r_i sinh r_j (1 - cos angle), which loses no digits where two words are near.

    A Moebius product with a second matrix Q adds nothing: Q (x) exp_0(P h) = exp_0(Q P h), so that one matrix stands for both.
    """
    if space == "euclidean":
        return squared_distances(projected)
    v = projected.double()
    length = v.square().sum(dim=-1).clamp(min=1e-12).sqrt()
    towards = v / length[..., None]
    r = (2 * length).clamp(max=_FARTHEST)
    apart = 1 - torch.einsum("...ir,...jr->...ij", towards, towards)
    beyond = (
        2 * ((r[..., :, None] - r[..., None, :]) / 2).sinh().square() + r.sinh()[..., :, None] * r.sinh()[..., None, :] * apart
    )
    t = beyond.clamp(min=1e-9)  # the root has no gradient at 0
    return torch.log1p(t + (t * (t + 2)).sqrt()).square().to(projected.dtype)


def told_depths(
    projected: Float[Tensor, "*sentence word rank"], space: TreeSpace = "euclidean"
) -> Float[Tensor, "*sentence word"]:
    """What is to be each word's depth; in the ball its squared distance from 0, (2 abs(v))^2."""
    return projected.square().sum(dim=-1) * (1.0 if space == "euclidean" else 4.0)


_FARTHEST = 20.0
"""Distances from 0 that are told apart: a sinh of more leaves a double's digits."""
