"""What a circuit is made from: names, scores, positions, evidence and roles, each checked against the graph."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from circuits.errors import GraphError, shown
from circuits.files import plain
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node

Element = Node | Edge
Position = int | str
Known = Mapping[Edge, object] | Mapping[Node, object] | Mapping[Element, object] | Mapping[str, object]
_Kind = TypeVar("_Kind", Node, Edge)
Names = Mapping[Edge, object] | Mapping[Node, object] | Mapping[str, object] | Iterable[Edge | Node | str]


def element(graph: Graph, name: object) -> Element:
    """Return the node or edge of a graph that a name stands for; raises GraphError where there is none."""
    if isinstance(name, Edge) or (isinstance(name, str) and "->" in name):
        return graph.edge(name)
    if isinstance(name, (Node, str)):
        return graph.node(name)
    raise GraphError(f"expected a node, an edge or a name, got {shown(name)}")


def _items(values: Names) -> Iterable[tuple[object, object]]:
    if isinstance(values, str):
        raise GraphError(f"expected several names, got the text {shown(values)}; put it into a list")
    return values.items() if isinstance(values, Mapping) else ((name, None) for name in values)


def ends(graph: Graph, edge: Edge) -> tuple[Node, ...]:
    """Return the nodes that an edge brings into a circuit: both ends, or the writer where heads share the reader."""
    return (edge.writer,) if graph.grouped and edge.slot in ("k", "v") else (edge.writer, edge.reader)


def _chosen(graph: Graph, names: Names, kind: type[_Kind], wrong: str) -> dict[_Kind, float | None]:
    """The nodes or edges of these names with their scores; `wrong`: what one of the other kind is, and what was expected."""
    found: dict[_Kind, float | None] = {}
    for name, value in _items(names):
        one = element(graph, name)
        if not isinstance(one, kind):
            raise GraphError(f"{one} is {wrong}")
        if one in found:
            raise GraphError(f"the {kind.__name__.lower()} {one} is given twice")
        found[one] = plain.score(value, where=str(one))
    return found


def edge_scores(graph: Graph, edges: Names) -> dict[Edge, float | None]:
    """Check chosen edges and their scores, and sort them; raises GraphError and NonFiniteError, naming the edge."""
    found = _chosen(graph, edges, Edge, "a node; expected edges, such as a0.h1->m3")
    return {edge: found[edge] for edge in sorted(found, key=lambda edge: edge.rank)}


def node_scores(graph: Graph, nodes: Names, edges: Iterable[Edge]) -> dict[Node, float | None]:
    """Check chosen nodes and their scores, add the edges' ends, and sort; raises GraphError and NonFiniteError."""
    found = _chosen(graph, nodes, Node, "an edge; expected nodes, such as a0.h1")
    for edge in edges:
        for node in ends(graph, edge):
            found.setdefault(node, None)
    return {node: found[node] for node in sorted(found, key=lambda node: node.rank)}


def positions(value: object, where: Element) -> tuple[Position, ...]:
    """Check the positions of an edge or node: numbers, then names of roles, each once and sorted; raises GraphError."""
    if isinstance(value, (str, int)) or not isinstance(value, Iterable):
        raise GraphError(f"the positions of {where} are {shown(value)}; expected a list of numbers or names of roles")
    numbers, names = set(), set()
    for position in value:
        if isinstance(position, str) and position:
            names.add(plain.text(position, where=f"a position of {where}"))
        elif isinstance(position, int) and not isinstance(position, bool) and abs(position) < plain.LARGEST:
            numbers.add(int(position))
        else:
            raise GraphError(f"{shown(position)} is no position of {where}; expected a number or the name of a role")
    if not numbers and not names:
        raise GraphError(f"{where} is restricted to no position at all; leave it out of the circuit instead")
    return (*sorted(numbers), *sorted(names))


def evidence(value: object, where: Element) -> Mapping[str, object]:
    """Check and freeze what is known about an edge or node; raises GraphError and NonFiniteError."""
    return plain.freeze_mapping(value, where=f"the evidence of {where}")


def role(value: object, where: Element) -> str:
    """Check what a node does, in words; raises GraphError for what is no text, and for edges."""
    if isinstance(where, Edge):
        raise GraphError(f"a role is given for the edge {where}; only nodes have one")
    return plain.text(value, where=f"the role of {where}")
