"""The probes of one place, and how much of judged sentences' trees they tell, beside what the order of words tells."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.probes.regression import Scale
from circuits.probes.trees.gold import GoldTree
from circuits.probes.trees.scoring import TreeScore, score_tree
from circuits.probes.trees.structural import TreeSpace, fit_tree, told_depths, told_distances

LONGEST = 2.0
"""Times the median length: vectors that are longer are shortened. Attention that has nothing to read rests on the first token
of a text, and some others; their vectors are a hundred times as long, in a few directions (Sun et al. 2024), and beside them
all differences between other words would be nothing."""
DECAY = 5.0
"""How much a probe is held back; chosen on sentences of the English Web Treebank."""


@dataclasses.dataclass(frozen=True, eq=False)
class TreeReader:
    """The probes of one place: what vectors are divided by, the projection for distances and, where asked for, for depths."""

    longest: float
    """Vectors that are longer are shortened to it."""
    deviation: Float[Tensor, " width"]
    distance: Float[Tensor, "width rank"]
    depth: Float[Tensor, "width rank"] | None
    space: TreeSpace

    def scores(self, x: Float[Tensor, "word width"], trees: Sequence[GoldTree]) -> list[TreeScore]:
        """How near what is read off the vectors of a text is to its trees."""
        scaled = shortened(x, self.longest) / self.deviation
        apart, deep = scaled @ self.distance, None if self.depth is None else told_depths(scaled @ self.depth, self.space)
        found = []
        for tree in trees:
            told = None if deep is None else deep[tree.words]
            found.append(score_tree(tree, told_distances(apart[tree.words], self.space), told))
        return found


def shortened(x: Float[Tensor, "word width"], longest: float) -> Float[Tensor, "word width"]:
    """Vectors with those that are longer cut to this length."""
    return x * (longest / x.norm(dim=1, keepdim=True).clamp(min=1e-30)).clamp(max=1.0)


def fit_reader(
    x: Float[Tensor, "word width"],
    train: Sequence[GoldTree],
    *,
    rank: int,
    epochs: int,
    seed: int,
    space: TreeSpace = "euclidean",
    depths: bool = True,
) -> TreeReader:
    """Fit both probes at a place, or that for distances alone."""
    words = torch.cat([tree.words for tree in train])
    longest = LONGEST * float(x[words].norm(dim=1).median())
    near = shortened(x, longest)
    deviation = Scale.of(near[words]).deviation
    scaled = near / deviation  # not centred: a root's length is to be 0 where the model has it so
    how: dict[str, Any] = {"rank": rank, "epochs": epochs, "seed": seed, "space": space, "decay": DECAY}
    depth = fit_tree(scaled, train, "depth", **how) if depths else None
    return TreeReader(longest, deviation, fit_tree(scaled, train, "distance", **how), depth, space)


def judge_trees(
    x: Float[Tensor, "word width"],
    train: Sequence[GoldTree],
    judge: Sequence[GoldTree],
    *,
    rank: int,
    epochs: int,
    seed: int,
    space: TreeSpace = "euclidean",
    depths: bool = True,
) -> list[TreeScore]:
    """Fit both probes at a place, and score the trees that are judged on."""
    return fit_reader(x, train, rank=rank, epochs=epochs, seed=seed, space=space, depths=depths).scores(x, judge)


def chain_score(tree: GoldTree) -> TreeScore:
    """What the order of words alone tells of a tree: each word that is no punctuation is attached to the next such one."""
    rank = torch.where(tree.scored, tree.scored.cumsum(0), torch.arange(len(tree.words)) + 1).float()
    place = torch.arange(len(tree.words)).float()
    chained = score_tree(tree, (rank[:, None] - rank).abs())
    return dataclasses.replace(chained, distance=score_tree(tree, (place[:, None] - place).abs()).distance)


def attachment(scores: Sequence[TreeScore]) -> tuple[float, float]:
    """UUAS, and its standard error with the relations of one sentence taken together."""
    attached, edges = (torch.tensor([getattr(one, name) for one in scores]).double() for name in ("attached", "edges"))
    share = float(attached.sum() / edges.sum())
    return share, float((attached - share * edges).square().sum().sqrt() / edges.sum())


def drop(plain: Sequence[TreeScore], changed: Sequence[TreeScore]) -> tuple[float, float]:
    """How much smaller UUAS of the same sentences is in the second place, and its standard error, sentence by sentence."""
    off = torch.zeros(len(plain), dtype=torch.float64)
    for scores, sign in ((plain, 1.0), (changed, -1.0)):
        attached, edges = (torch.tensor([getattr(one, name) for one in scores]).double() for name in ("attached", "edges"))
        off += sign * (attached - attached.sum() / edges.sum() * edges) / edges.sum()
    return attachment(plain)[0] - attachment(changed)[0], float(off.square().sum().sqrt())
