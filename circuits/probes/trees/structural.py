"""The structural probe (Hewitt & Manning 2019): a projection in which squared distances are distances in the tree, and one in
which squared lengths are depths."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.probes.trees.gold import GoldTree, TreeBatch, batches

TreeKind = Literal["distance", "depth"]
RATE = 1e-2


def fit_tree(
    x: Float[Tensor, "word width"],
    train: Sequence[GoldTree],
    kind: TreeKind,
    *,
    rank: int = 64,
    epochs: int = 24,
    seed: int = 0,
) -> Float[Tensor, "width rank"]:
    """B with the least sum over sentences of the mean of abs(tree distance - abs2(B (h_i - h_j))) over pairs of words, or of
    abs(depth - abs2(B h_i)) over words. By Adam, batches of 24 sentences, the step falling to 0; what is drawn is decided by
    `seed`.

    Raises CircuitsError without sentences and for numbers below 1.

    Args:
        x: a vector a word of the text, each direction of deviation about 1, as the model has them: not centred.
        train: trees of sentences to train on.
        kind: what the tree is told by.
        rank: directions of the projection at most.
        epochs: how often each sentence is seen.
        seed: that of the first projection and of the order.
    """
    if not train or rank < 1 or epochs < 1:
        raise CircuitsError(f"{len(train)} sentences, rank={rank}, epochs={epochs}: expected at least 1 of each")
    generator = torch.Generator().manual_seed(seed)
    width = x.shape[1]
    rank = min(rank, width)
    drawn = torch.randn(width, rank, generator=generator) / width**0.5
    B = drawn.to(x).requires_grad_()
    ready = list(batches(train))
    optimiser = torch.optim.Adam([B], lr=RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=epochs * len(ready))
    for _ in range(epochs):
        for place in torch.randperm(len(ready), generator=generator).tolist():
            with torch.enable_grad():
                _loss(x, ready[place], B, kind).backward()
            optimiser.step()
            optimiser.zero_grad()
            falling.step()
    return B.detach()


def _loss(x: Tensor, batch: TreeBatch, B: Tensor, kind: TreeKind) -> Tensor:
    """The mean over sentences of the mean over their pairs, or words."""
    projected = x[batch.words] @ B
    mask = batch.mask
    if kind == "depth":
        off = (batch.depth - projected.square().sum(dim=2)).abs() * mask
        return (off.sum(dim=1) / mask.sum(dim=1)).mean()
    pairs = mask[:, :, None] & mask[:, None, :]
    off = (batch.distance - squared_distances(projected)).abs() * pairs
    return (off.sum(dim=(1, 2)) / mask.sum(dim=1).square()).mean()


def squared_distances(projected: Float[Tensor, "*sentence word rank"]) -> Float[Tensor, "*sentence word word"]:
    """Between each two words."""
    lengths = projected.square().sum(dim=-1)
    products = torch.einsum("...ir,...jr->...ij", projected, projected)
    return (lengths[..., :, None] + lengths[..., None, :] - 2 * products).clamp(min=0)
