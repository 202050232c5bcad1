"""How far circuits of given sizes meet by chance: exactly, without a draw.

A null draws each circuit anew, without replacement, from the edges of its graph, and keeps how many edges it has: in all, of
each pair of layers, into each reader, or out of each writer. Within such a block the number of edges that two circuits share is
hypergeometric, and blocks are independent, so that its distribution is theirs convolved.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.graph import Graph
from circuits.graph.places import reads_from
from circuits.patching.subgraphs.members import is_edge
from circuits.statistics import Effect, t_interval

Null = Literal["size", "layers", "readers", "writers"]
NULLS: tuple[Null, ...] = get_args(Null)
"""What a random circuit has in common with the one in whose place it stands: its number of edges in all, between each two
layers, into each reader, out of each writer. Between roles of tokens the roles at the other end are kept too: how many edges
there are from each role in one layer to each role in another, from each role into each reader, out of each writer into each
role."""


def layer_of_writers(graph: Graph) -> Int[Tensor, " writer"]:
    """The layer of every node that writes, by its place in the graph without roles; the input is 0, the first layer 1."""
    step = graph.n_heads + graph.mlp_writers
    count = graph.writer_count // graph.role_count - 1
    return torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.arange(count) // max(step, 1)])


def layer_of_readers(graph: Graph) -> Int[Tensor, " reader"]:
    """Where every reader stands, by its place in the graph without roles: a number for a layer's attention, the next for its
    MLP, the last the logits."""
    step = graph.head_readers + graph.mlp_writers
    places = torch.arange((graph.reader_count - 1) // graph.role_count)
    inside = 2 * (places // max(step, 1)) + (places % max(step, 1) >= graph.head_readers).long()
    return torch.cat([inside, torch.full((1,), 2 * graph.n_layers)])


def blocks_of(
    graph: Graph, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"], null: Null
) -> tuple[Int[Tensor, " edge"], dict[int, int]]:
    """The block of each of these edges, and how many edges of the graph each of their blocks has."""
    if null not in NULLS:
        raise CircuitsError(f"unknown null {null!r}: there are {', '.join(NULLS)}")
    if null == "size":
        return torch.zeros_like(writers), {0: graph.edge_count}
    if graph.roles is not None:
        found, every = _role_blocks(graph, writers, readers, null), _sizes_between_roles(graph, null)
        return found, {block: every[block] for block in found.unique().tolist()}
    before = torch.tensor(reads_from(graph))
    if null == "readers":
        return readers, {block: int(before[block]) for block in readers.unique().tolist()}
    if null == "writers":
        return writers, {block: int((before > block).sum()) for block in writers.unique().tolist()}
    first, second = layer_of_writers(graph), layer_of_readers(graph)
    width, sizes = int(second.max()) + 1, dict[int, int]()
    found = first[writers] * width + second[readers]
    for block in found.unique().tolist():
        into = before[second == block % width]
        own = (first == block // width).nonzero()[:, 0]
        # A reader reads the first so many writers: of those of the layer as many as come before that.
        sizes[block] = int((into[:, None] > own[None]).sum()) if len(own) < 4096 else _count(into, own)
    return found, sizes


def _role_blocks(
    graph: Graph, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"], null: Null
) -> Int[Tensor, " edge"]:
    """The block of each edge between roles; the logits are at the last role."""
    count = graph.role_count
    source, target = writers % count, torch.where(readers == graph.reader_count - 1, count - 1, readers % count)
    if null == "readers":
        return readers * count + source
    if null == "writers":
        return writers * count + target
    first, second = layer_of_writers(graph), layer_of_readers(graph)
    layers = first[writers // count] * (int(second.max()) + 1) + second[readers // count]
    return (layers * count + source) * count + target


@functools.lru_cache(maxsize=8)
def _sizes_between_roles(graph: Graph, null: Null) -> dict[int, int]:
    """How many edges each block of a graph with roles has."""
    writers, readers = is_edge(graph).nonzero(as_tuple=True)
    blocks, sizes = _role_blocks(graph, writers, readers, null).unique(return_counts=True)
    return dict(zip(blocks.tolist(), sizes.tolist(), strict=True))


def _count(before: Int[Tensor, " reader"], writers: Int[Tensor, " writer"]) -> int:
    """Edges from writers, a run of places, to readers that read the first so many: without a table of both."""
    return int((before - int(writers[0])).clamp(0, len(writers)).sum())


def counts_in(blocks: Int[Tensor, " edge"], chosen: Bool[Tensor, "run edge"]) -> list[dict[int, int]]:
    """How many edges each run has of each block."""
    found = []
    for row in chosen:
        names, counts = blocks[row].unique(return_counts=True)
        found.append(dict(zip(names.tolist(), counts.tolist(), strict=True)))
    return found


@functools.lru_cache(maxsize=4096)
def hypergeometric(first: int, second: int, size: int) -> tuple[float, ...]:
    """The chance that so many of `size` things, drawn twice without replacement, are in both draws: of 0, 1, 2 … up to the
    smaller draw."""
    if not 0 <= first <= size or not 0 <= second <= size:
        raise CircuitsError(f"{first} and {second} of {size} edges: expected no more than there are")

    def ways(count: int, chosen: int) -> float:
        """The logarithm of a binomial coefficient."""
        return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)

    chances = []
    for both in range(min(first, second) + 1):
        apart = second - both
        possible = apart <= size - first
        there = ways(first, both) + ways(size - first, apart) - ways(size, second) if possible else -math.inf
        chances.append(math.exp(there))
    return tuple(chances)


def shared_by_chance(first: dict[int, int], second: dict[int, int], sizes: dict[int, int]) -> Float[Tensor, " shared"]:
    """The chance that two random circuits share 0, 1, 2 … edges, by how many each has of each block."""
    found = torch.ones(1, dtype=torch.float64)
    for block in sorted(set(first) & set(second)):
        own = torch.tensor(hypergeometric(first[block], second[block], sizes[block]), dtype=torch.float64)
        # A product of polynomials: the sum of independent counts.
        grown = torch.zeros(len(found) + len(own) - 1, dtype=torch.float64)
        for place, chance in enumerate(own.tolist()):
            grown[place : place + len(found)] += chance * found
        found = grown
    return found / found.sum()


def jaccard(shared: int, first: int, second: int) -> float:
    """Shared edges over all of either, 0 to 1; 1 of two empty circuits."""
    return shared / (first + second - shared) if first + second else 1.0


def expected_overlap(chances: Float[Tensor, " shared"], first: int, second: int) -> float:
    """The mean Jaccard index under a distribution of how many edges are shared."""
    return sum(chance * jaccard(shared, first, second) for shared, chance in enumerate(chances.tolist()))


def returning_by_chance(counts: Sequence[dict[int, int]], sizes: dict[int, int]) -> Float[Tensor, " times"]:
    """How many edges are expected to be in exactly 0, 1, 2 … of several random circuits, by how many each has of each block;
    edges of blocks in which none has any count as never there, where `sizes` tells of such blocks."""
    found = torch.zeros(len(counts) + 1, dtype=torch.float64)
    for block, size in sizes.items():
        chances = torch.zeros(len(counts) + 1, dtype=torch.float64)
        chances[0] = 1.0
        for one in counts:  # an edge of the block is in this circuit with the same chance as any other
            share = one.get(block, 0) / size
            chances[1:] = chances[1:] * (1 - share) + chances[:-1] * share
            chances[0] *= 1 - share
        found += size * chances
    return found


def mean_over_pairs(values: Float[Tensor, " pair"], members: Sequence[tuple[int, int]], count: int) -> Effect:
    """The mean over pairs of units (seeds), with the 95 % interval of a jackknife over units: without each in turn, all pairs
    that it is part of are left out (Arvesen 1969), and Student's interval is taken of the pseudo-values. Pairs that share a
    unit depend on each other, so an interval over pairs would be too narrow. A pair within a unit is (unit, unit).

    The interval is cut to 0 to 1. Raises CircuitsError where leaving out a unit leaves no pair.
    """
    values = values.double()
    without = []
    for unit in range(count):
        kept = torch.tensor([unit not in pair for pair in members])
        if not bool(kept.any()):
            raise CircuitsError(f"an interval over {count} units, of which one is in every pair: expected more of them")
        without.append(values[kept].mean())
    pseudo = count * values.mean() - (count - 1) * torch.stack(without)
    found = t_interval(pseudo)
    return Effect(float(values.mean()), max(0.0, found.low), min(1.0, found.high))
