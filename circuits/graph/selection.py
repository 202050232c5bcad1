"""Choosing among the edges of a circuit: those on a path through the model, those of largest score."""

from collections.abc import Iterable, Mapping

from circuits.errors import GraphError, shown
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node


def on_paths(graph: Graph, edges: Iterable[Edge]) -> tuple[list[Edge], list[Node]]:
    """Find the edges and nodes that lie on a path from the input to the logits.

    `edges` come in the order of computation. An edge into keys or values that heads share leads to each of these heads.
    """
    edges = list(edges)
    ends = {edge: graph.targets(edge) for edge in edges}
    reached: set[Node] = set()
    for edge in edges:
        if edge.writer.kind == "input" or edge.writer in reached:
            reached |= {edge.writer, *ends[edge]}
    reaching: set[Node] = set()
    for edge in reversed(edges):
        if edge.reader.kind == "logits" or not reaching.isdisjoint(ends[edge]):
            reaching |= {edge.writer, *(end for end in ends[edge] if end.kind == "logits")}
    kept = [edge for edge in edges if edge.writer in reached and not reaching.isdisjoint(ends[edge])]
    writers = {edge.writer for edge in kept}
    used = writers | {node for edge in kept for node in ends[edge] if node in writers or node.kind == "logits"}
    return kept, sorted(used)


def largest(scores: Mapping[Edge, float | None], k: int) -> list[Edge]:
    """Choose the k edges of largest |score|, of equal ones the earlier in the mapping's order; those without a score last.

    Raises GraphError for a k that is negative or no whole number.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 0:
        raise GraphError(f"top takes a whole number of edges from 0 on, got {shown(k)}")
    sizes = {edge: -1.0 if score is None else abs(score) for edge, score in scores.items()}
    return sorted(sizes, key=lambda edge: -sizes[edge])[:k]
