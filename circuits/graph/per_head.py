"""Circuits of shared keys and values as other tools count them: a k and a v edge for every query head, not for every group.

Where heads share keys (grouped-query attention), MIB and EAP-IG still name an edge for each query head, `a2.h5<k>`, and a
score for each. A group's input is one tensor here, and its heads' parts of an effect add up to the whole: the scores of a
group's query heads **sum** to the score of the group's edge. The names collide: `a2.h0<k>` is query head 0 there and group 0
here.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from circuits.errors import GraphError
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge

SCORES = "by_query_head"
"""Where the evidence of an edge keeps its score by query head, if that is known."""
CHOSEN = "query_heads_in_circuit"
"""Where it keeps the query heads that are in the circuit, if others of the group are not."""
_CLOSE = 1e-9


@dataclasses.dataclass(frozen=True)
class PerHead:
    """A circuit's edges, and its graph's, counted with a k and a v edge for every query head."""

    edges: int
    graph_edges: int
    divided: int = 0
    """Edges of a group of which some query heads are in the circuit and some are not; here they are in it."""
    unsaid: bool = False
    """Whether a file did not say how many key-value heads there are, so that every head was taken to have its own."""

    @classmethod
    def of(cls, graph: Graph, edges: Iterable[Edge], *, unsaid: bool = False) -> "PerHead":
        """The counts of some edges of a graph; a group's edge counts once for every head of the group."""
        return cls(sum(len(graph.targets(edge)) for edge in edges), separate(graph).edge_count, unsaid=unsaid)

    def describe(self) -> str:
        """The counts in words."""
        if self.unsaid:
            return "the file does not say how many key-value heads there are: every head is taken to have keys of its own"
        said = f"{self.edges:,} of {self.graph_edges:,} edges with keys and values counted by query head, as in MIB and EAP-IG"
        if not self.divided:
            return said
        some = "1 group's edge is" if self.divided == 1 else f"{self.divided:,} groups' edges are"
        return f"{said}; {some} in it by some heads of the group only, and taken whole"


def separate(graph: Graph) -> Graph:
    """The graph with keys and values for every head."""
    return dataclasses.replace(graph, n_key_value_heads=graph.n_heads)


def shares(graph: Graph, edge: Edge, score: float | None, known: Mapping[str, object]) -> dict[Edge, tuple[float | None, bool]]:
    """A circuit's edge as it stands by query head: for each, its part of the score, and whether it is in the circuit.

    The parts are those that the edge's evidence (`known`) holds, else equal ones; they add up to the score to its last bit."""
    heads = [Edge(edge.writer, head, edge.slot) for head in graph.targets(edge)]
    if len(heads) == 1:
        return {edge: (score, True)}
    names, parts, chosen = [str(head.reader) for head in heads], known.get(SCORES), known.get(CHOSEN)
    if not isinstance(chosen, Sequence) or isinstance(chosen, str) or not set(names) & set(chosen):
        chosen = names
    if score is None:
        return {head: (None, name in chosen) for head, name in zip(heads, names, strict=True)}
    split = _known(parts, names, score)
    split = even(score, len(heads)) if split is None else split
    return {head: (part, name in chosen) for head, name, part in zip(heads, names, split, strict=True)}


def _known(parts: object, names: Sequence[str], score: float) -> list[float] | None:
    """The parts that evidence holds; None where it holds none, or none that make this score (it has been scored anew)."""
    if not isinstance(parts, Mapping) or set(parts) != set(names):
        return None
    values = [parts[name] for name in names if isinstance(parts[name], (int, float)) and not isinstance(parts[name], bool)]
    if len(values) < len(names) or abs(total(values) - score) > _CLOSE * max(1.0, abs(score)):
        return None
    return [float(value) for value in values]


def even(score: float, count: int) -> list[float]:
    """A score in equal parts; the last makes up for what rounding took, so that the exact sum rounds to the score."""
    part = score / count
    return [part] * (count - 1) + [float(Fraction(score) - (count - 1) * Fraction(part))]


def total(scores: Sequence[float]) -> float:
    """The sum of scores by query head. Raises GraphError where it is too large for a float."""
    try:
        return math.fsum(scores)
    except OverflowError:
        raise GraphError("the scores of a group's query heads add up to more than a float holds") from None
