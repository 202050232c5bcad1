"""What the circuits of several tasks share, against chance."""

import math
import random
from collections.abc import Mapping
from typing import Literal

from circuits.graph import Circuit, Graph
from circuits.graph.places import places
from circuits.search.judging.nulls import random_paths
from circuits.search.studying.results import Overlap
from circuits.statistics import p_value

DRAWS = 199
"""Random circuits that an overlap of edges is held against: where none reaches it, p is 0.005."""


def overlaps(circuits: Mapping[str, Circuit], *, seed: int = 0, draws: int = DRAWS) -> list[Overlap]:
    """For each two circuits of one graph the edges and the heads that are in both.

    Chance: for edges the first circuit against random circuits of as many edges as the second on random paths from input to
    logits (`random_paths`), and p counts those that share as many; for heads, as many heads as the second has drawn from all of
    the model, and p is exact (hypergeometric). A model uses some of its parts for nearly everything, so that circuits meet more
    often than this, whatever they do: an overlap says that the same parts are used, not that they do the same.
    """
    names, found = list(circuits), list[Overlap]()
    null: dict[int, list[set[tuple[int, int]]]] = {}
    own = {name: set(zip(*places(one.graph, one.edges), strict=True)) for name, one in circuits.items()}
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            size, graph = len(own[second]), circuits[second].graph
            if size not in null:
                null[size] = _random(graph, size, random.Random(f"{seed} {size}"), draws)
            shared = len(own[first] & own[second])
            by_chance = [float(len(own[first] & drawn)) for drawn in null[size]]
            edges, chance = (len(own[first]), size), p_value(float(shared), by_chance)
            found.append(_overlap(first, second, "edges", shared, edges, sum(by_chance) / draws, chance))
            heads = _heads(circuits[first]), _heads(circuits[second])
            both, count = tuple(head for head in heads[0] if head in heads[1]), graph.n_layers * graph.n_heads
            sizes = (len(heads[0]), len(heads[1]))
            chance = at_least(len(both), sizes, count)
            found.append(_overlap(first, second, "heads", len(both), sizes, sizes[0] * sizes[1] / count, chance, both))
    return found


def _overlap(
    first: str,
    second: str,
    kind: Literal["edges", "heads"],
    shared: int,
    sizes: tuple[int, int],
    expected: float,
    chance: float,
    names: tuple[str, ...] = (),
) -> Overlap:
    ends = {"first": first, "second": second}
    return Overlap(**ends, kind=kind, shared=shared, sizes=sizes, expected=expected, p_value=chance, names=names)


def at_least(shared: int, sizes: tuple[int, int], count: int) -> float:
    """The chance that two sets of these sizes, drawn from `count` things, have so many in common or more."""
    first, second = sizes
    ways = sum(math.comb(first, both) * math.comb(count - first, second - both) for both in range(shared, min(sizes) + 1))
    return ways / math.comb(count, second)


def _random(graph: Graph, size: int, draw: random.Random, draws: int) -> list[set[tuple[int, int]]]:
    """Random circuits as places of writers and readers."""
    members = (random_paths(graph, size, draw) for _ in range(draws))
    return [set(zip(one.writers.tolist(), one.readers.tolist(), strict=True)) for one in members]


def _heads(circuit: Circuit) -> dict[str, None]:
    return {str(node): None for node in circuit.nodes if node.kind == "head"}


def common_heads(circuits: Mapping[str, Circuit]) -> dict[str, tuple[str, ...]]:
    """Heads that are in at least two circuits → the tasks, those of most tasks first, then in the order of computation."""
    tasks: dict[str, list[str]] = {}
    for node in sorted({node for one in circuits.values() for node in one.nodes if node.kind == "head"}):
        tasks[str(node)] = [name for name, one in circuits.items() if node in one.nodes]
    several = [(head, tuple(names)) for head, names in tasks.items() if len(names) > 1]
    return dict(sorted(several, key=lambda item: -len(item[1])))
