"""How much of a tree distances and depths tell: attachment by minimum spanning tree, rank correlations, the root."""

import dataclasses
from collections.abc import Sequence

import networkx
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.probes.trees.gold import GoldTree

SHORTEST, LONGEST = 5, 50
"""Lengths of the sentences that rank correlations are averaged over."""


@dataclasses.dataclass(frozen=True)
class TreeScore:
    """Of one sentence: relations that the spanning tree has, of how many; rank correlations of distances and of depths (NaN
    where there is none); whether the word with the least depth is the root."""

    sentence: int
    length: int
    attached: int
    edges: int
    distance: float
    depth: float
    root: float
    told: tuple[tuple[int, int], ...] = ()
    """The edges of the spanning tree, pairs of words by their place in the tree's."""


def score_tree(tree: GoldTree, distance: Float[Tensor, "word word"], depth: Float[Tensor, " word"] | None = None) -> TreeScore:
    """How near distances (and depths) between a sentence's words are to its tree. Punctuation takes no part in the spanning
    tree and is no root; correlations are over all words."""
    words = tree.scored.nonzero()[:, 0].tolist()
    gold = {frozenset(edge) for edge in tree.edges if edge[0] in words and edge[1] in words}
    found = spanning_tree(distance[words][:, words])
    told = tuple((words[one], words[other]) for one, other in found)
    by_word = _correlations(distance, tree.distance)
    depths, root = float("nan"), float("nan")
    if depth is not None:
        depths = float(_correlations(depth[None], tree.depth[None])[0])
        least = words[int(depth[words].argmin())]
        root = float(tree.depth[least] == 0)
    mean = float(by_word[by_word.isfinite()].mean()) if bool(by_word.isfinite().any()) else float("nan")
    return TreeScore(
        tree.sentence, len(tree.words), len(gold & {frozenset(edge) for edge in told}), len(gold), mean, depths, root, told
    )


def spanning_tree(distance: Float[Tensor, "word word"]) -> list[tuple[int, int]]:
    """The edges of a minimum spanning tree; of equal ones those of earlier words."""
    rows, graph = distance.tolist(), networkx.Graph()
    graph.add_nodes_from(range(len(rows)))
    graph.add_weighted_edges_from((one, other, rows[one][other]) for other in range(len(rows)) for one in range(other))
    return [(min(edge), max(edge)) for edge in networkx.minimum_spanning_edges(graph, data=False)]


def _correlations(told: Float[Tensor, "row word"], gold: Float[Tensor, "row word"]) -> Float[Tensor, " row"]:
    """Spearman's rank correlation of each row; NaN where all of one side are equal."""
    from scipy.stats import rankdata

    first, second = (torch.from_numpy(rankdata(one.double().numpy(), axis=1)) for one in (told, gold))
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))


def by_length(scores: Sequence[TreeScore], name: str) -> float:
    """The mean over lengths from 5 to 50 of the means over sentences of each length; where no sentence is so long, over all
    lengths that there are. NaN where there is no number."""
    rows: dict[int, list[float]] = {}
    for score in scores:
        value = getattr(score, name)
        if value == value:
            rows.setdefault(score.length, []).append(value)
    kept = {length: values for length, values in rows.items() if SHORTEST <= length <= LONGEST} or rows
    means = [sum(values) / len(values) for values in kept.values()]
    return sum(means) / len(means) if means else float("nan")
