"""A circuit: chosen edges and nodes of a graph, with scores and what is known about them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from circuits.errors import GraphError
from circuits.files import plain
from circuits.files.results import Result
from circuits.graph import contents, selection
from circuits.graph.contents import Element, Known, Names, Position
from circuits.graph.graph import Graph
from circuits.graph.named import Named
from circuits.graph.nodes import Edge, Node

if TYPE_CHECKING:
    import networkx
    import pandas

_Key = TypeVar("_Key", Node, Edge)
_Value = TypeVar("_Value")


@dataclass(frozen=True, init=False)
class Circuit(Result, format="transformer-circuits/circuit"):
    """Chosen edges and nodes of one graph, immutable, in the order of computation.

    `edges` and `nodes` map each chosen one to its score (None: no score). They may be given by name, and without scores
    as a list. The nodes at the ends of chosen edges are always chosen too, except that an edge into keys or values that
    several heads share chooses none of these heads. What else may be known: `positions`, to which an edge or node is
    restricted, as numbers or names of roles (absent: everywhere); `evidence`, plain JSON values about an edge or node;
    `roles`, what a node does in words; `metadata`, plain JSON values about the whole (model, task, seed).

    `len` counts edges; `in` takes nodes, edges and their names. `|`, `&` and `-` combine circuits of equal graphs: of
    what is in both, the left score, role and evidence count, and the right ones where the left has none; positions are
    joined, intersected and subtracted; metadata keeps what both agree on (`-`: the left's).

    Raises GraphError for edges or nodes that the graph lacks and for values of the wrong kind, NonFiniteError for a NaN
    or an infinity.

    >>> import circuits
    >>> graph = circuits.Graph(n_layers=2, n_heads=1, n_key_value_heads=1, d_mlp=8)
    >>> circuit = circuits.Circuit(graph, {"input->a0.h0<v>": 0.5, "a0.h0->logits": 0.8})
    >>> circuit, "a0.h0" in circuit
    (Circuit(3 nodes and 2 edges of 6 nodes and 23 edges), True)
    """

    graph: Graph
    edges: Mapping[Edge, float | None]
    nodes: Mapping[Node, float | None]
    positions: Mapping[Element, tuple[Position, ...]]
    evidence: Mapping[Element, Mapping[str, object]]
    roles: Mapping[Element, str]
    metadata: Mapping[str, object]

    def __init__(
        self,
        graph: Graph,
        edges: Names = (),
        nodes: Names = (),
        *,
        positions: Known | None = None,
        evidence: Known | None = None,
        roles: Known | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        chosen = contents.edge_scores(graph, edges)
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "edges", Named(chosen))
        object.__setattr__(self, "nodes", Named(contents.node_scores(graph, nodes, chosen)))
        object.__setattr__(self, "positions", self._keyed(positions, contents.positions, "positions"))
        object.__setattr__(self, "evidence", self._keyed(evidence, contents.evidence, "evidence"))
        object.__setattr__(self, "roles", self._keyed(roles, contents.role, "a role"))
        object.__setattr__(self, "metadata", plain.freeze_mapping(metadata or {}, where="the metadata"))

    def _keyed(self, given: Known | None, check: Callable[[object, Element], _Value], what: str) -> Mapping[Element, _Value]:
        """Freeze a mapping from chosen elements to what is known about them; drop what says nothing."""
        found: dict[Element, _Value] = {}
        for name, value in (given or {}).items():
            element = contents.element(self.graph, name)
            if element not in self:
                raise GraphError(f"{what} given for {element}, which is not in the circuit; choose it first")
            if element in found:
                raise GraphError(f"{what} given twice for {element}")
            found[element] = check(value, element)
        chosen: list[Element] = [*self.nodes, *self.edges]
        return Named({element: found[element] for element in chosen if found.get(element)})

    def __len__(self) -> int:
        return len(self.edges)

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            try:
                item = contents.element(self.graph, item)
            except GraphError:
                return False
        return item in self.edges if isinstance(item, Edge) else isinstance(item, Node) and item in self.nodes

    def __hash__(self) -> int:
        return hash((self.graph, tuple(self.edges.items()), tuple(self.nodes.items())))

    @property
    def summary(self) -> str:
        """How many nodes and edges, and of how many."""
        whole = f"{self.graph.node_count:,} nodes and {self.graph.edge_count:,} edges"
        return f"{len(self.nodes):,} nodes and {len(self.edges):,} edges of {whole}."

    def __reduce__(self) -> tuple[Any, ...]:
        evidence = {element: plain.thaw(value) for element, value in self.evidence.items()}
        known = (dict(self.positions), evidence, dict(self.roles), plain.thaw(self.metadata))
        return (_rebuild, (self.graph, dict(self.edges), dict(self.nodes), *known))

    def __or__(self, other: "Circuit") -> "Circuit":
        self._same_graph(other)
        edges, nodes = _joined(self.edges, other.edges), _joined(self.nodes, other.nodes)
        positions = {}
        for element in [*nodes, *edges]:
            sides = [side.positions.get(element) for side in (self, other) if element in side]
            if None not in sides:
                positions[element] = {position for side in sides for position in side or ()}
        return self._with(other, edges, nodes, positions, _agreed(self.metadata, other.metadata))

    def __and__(self, other: "Circuit") -> "Circuit":
        self._same_graph(other)
        positions, apart = {}, set()
        for element in [*self.nodes, *self.edges]:
            sides = [side.positions[element] for side in (self, other) if element in side.positions]
            if element in other and sides:
                positions[element] = set(sides[0]).intersection(*sides[1:])
                apart |= set() if positions[element] else {element}
        both = _joined(self.nodes, other.nodes)
        nodes = {node: both[node] for node in self.nodes if node in other.nodes and node not in apart}
        both = _joined(self.edges, other.edges)
        edges = {edge: both[edge] for edge in self.edges if edge in other.edges and edge not in apart}
        edges = {edge: edges[edge] for edge in edges if apart.isdisjoint(contents.ends(self.graph, edge))}
        return self._with(other, edges, nodes, positions, _agreed(self.metadata, other.metadata))

    def __sub__(self, other: "Circuit") -> "Circuit":
        self._same_graph(other)
        positions = dict(self.positions)
        left = set()
        for element in [*self.nodes, *self.edges]:
            if element not in other:
                left.add(element)
            elif element in other.positions:
                if element not in self.positions:
                    raise GraphError(f"{element} everywhere minus {element} at some positions is no list of positions")
                remaining = set(self.positions[element]) - set(other.positions[element])
                if remaining:
                    left.add(element)
                    positions[element] = tuple(remaining)
        edges = {edge: score for edge, score in self.edges.items() if edge in left}
        ends = {end for edge in edges for end in contents.ends(self.graph, edge)}
        nodes = {node: score for node, score in self.nodes.items() if node in left or node in ends}
        return self._with(self, edges, nodes, positions, self.metadata)

    def noted(self, details: Mapping[str, object]) -> "Circuit":
        """The same circuit with more in its metadata; what is noted takes the place of what has its name already."""
        return self._with(self, self.edges, self.nodes, self.positions, {**self.metadata, **details})

    def _same_graph(self, other: "Circuit") -> None:
        if self.graph != other.graph:
            raise GraphError(f"circuits of different graphs cannot be combined: {self.graph} and {other.graph}")

    def _with(
        self,
        other: "Circuit",
        edges: Mapping[Edge, float | None],
        nodes: Mapping[Node, float | None],
        positions: Mapping[Element, Iterable[Position]],
        metadata: Mapping[str, object],
    ) -> "Circuit":
        """Build a circuit from parts of two, with what either knows about these parts."""
        chosen = contents.node_scores(self.graph, nodes, edges)

        def about(field: str) -> dict:
            """What both know of what stays, this circuit's first."""
            both = {**getattr(other, field), **getattr(self, field)}
            return {element: value for element, value in both.items() if element in edges or element in chosen}

        places = {element: value for element, value in positions.items() if element in edges or element in chosen}
        return Circuit(
            self.graph,
            edges,
            chosen,
            positions=places,
            evidence=about("evidence"),
            roles=about("roles"),
            metadata=metadata,
        )

    def restricted(self, edges: Iterable[Edge | str], nodes: Iterable[Node | str] = ()) -> "Circuit":
        """Keep some chosen edges and nodes, and the nodes at the edges' ends, with all that is known about them.

        Raises GraphError for an edge or node that is not in the circuit.
        """
        kept_edges = contents.edge_scores(self.graph, edges)
        kept_nodes = contents.node_scores(self.graph, nodes, kept_edges)
        for element in [*kept_edges, *kept_nodes]:
            if element not in self:
                raise GraphError(f"{element} is not in the circuit, so it cannot be kept")
        edge_scores = {edge: self.edges[edge] for edge in kept_edges}
        node_scores = {node: self.nodes[node] for node in kept_nodes}
        return self._with(self, edge_scores, node_scores, self.positions, self.metadata)

    def connected(self) -> "Circuit":
        """Keep just the edges and nodes that lie on a path from the input to the logits."""
        edges, nodes = selection.on_paths(self.graph, self.edges)
        return self.restricted(edges, nodes)

    def top(self, k: int) -> "Circuit":
        """Keep the k edges of largest |score| and the nodes at their ends; of equal scores the earlier in computation.

        Edges without a score come after all that have one. All edges stay where there are no more than k. Raises GraphError
        for a negative k.
        """
        return self.restricted(selection.largest(self.edges, k))

    def to_networkx(self) -> "networkx.MultiDiGraph":
        """Copy the circuit into a networkx graph with plain attributes; `document` says which."""
        from circuits.graph import document

        return document.to_networkx(self)

    @classmethod
    def from_networkx(cls, network: "networkx.MultiDiGraph") -> "Circuit":
        """Read a circuit back from the networkx graph that `to_networkx` makes; raises GraphError for any other."""
        from circuits.graph import document

        return document.from_networkx(network)

    def to_dataframe(self) -> "pandas.DataFrame":
        """List the nodes, then the edges: columns element, name, writer, reader, slot, score, role, positions."""
        from circuits.graph import document

        return document.to_dataframe(self)

    def as_json(self) -> dict[str, object]:
        """Plain values, as they stand in a .json file."""
        from circuits.graph import storage

        return storage.to_plain(self)

    @classmethod
    def from_json(cls, data: object) -> "Circuit":
        """The reverse of `as_json`; raises GraphError for anything else."""
        from circuits.graph import storage

        return storage.from_json(data)

    def save(self, path: str | Path) -> None:
        """Write the circuit in the format of the suffix (.json, .mib.json, .graphml, .dot), whole or not at all.

        Raises FileFormatError for another suffix, and where the file cannot be written.
        """
        from circuits.graph import storage

        storage.export(self, path)

    @classmethod
    def load(cls, path: str | Path, *, n_key_value_heads: int | None = None) -> "Circuit":
        """Read a circuit from a JSON file of this package or of EAP-IG; raises FileFormatError for any other.

        `n_key_value_heads`: how many key-value heads the model has, which EAP-IG does not record. Its files have a k and a v
        edge for every query head; the scores of a group's heads then sum to the group's edge.
        """
        from circuits.graph import storage

        return storage.load(path, n_key_value_heads=n_key_value_heads)


def _rebuild(graph, edges, nodes, positions, evidence, roles, metadata) -> Circuit:
    return Circuit(graph, edges, nodes, positions=positions, evidence=evidence, roles=roles, metadata=metadata)


def _joined(left: Mapping[_Key, float | None], right: Mapping[_Key, float | None]) -> dict[_Key, float | None]:
    """Take the scores of both, the left ones first, but any score before none."""
    joined = {**right, **left}
    return {key: right.get(key) if score is None else score for key, score in joined.items()}


def _agreed(left: Mapping[str, object], right: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in left.items() if key in right and right[key] == value}
