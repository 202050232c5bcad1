"""A circuit as a document of plain values: the networkx node-link form that files, networkx and tables are made from.

Nodes have `id` (the name), `kind`, and where they have one `layer`, `index`, `at` (the role of the tokens at which they stand),
`score`, `role` (what they do, in words), `positions`, `evidence`.
Edges have `source`, `target`, `key` (the slot q, k or v, else `in`), and where known `score`, `positions`, `evidence`.
Keys or values that several heads share are a node of their own (kind `group`, id `a2.h1<k>`) with an edge (key `group`)
to each chosen head that computes with them, so that paths in the document are paths in the model. `graph` holds the
`shape` (with the roles of tokens, where it has some), the `counts` of nodes and edges (in the circuit, and in the whole graph)
and the `metadata`.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from circuits.errors import GraphError, shown
from circuits.files import plain
from circuits.graph.circuit import Circuit
from circuits.graph.contents import Element
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node, Reader
from circuits.graph.roles import Roles

if TYPE_CHECKING:
    import networkx
    import pandas

SHAPE = ("n_layers", "n_heads", "n_key_value_heads", "d_mlp", "parallel", "neurons")
_TOP = {"directed": True, "multigraph": True}
Record = dict[str, object]


def to_document(circuit: Circuit) -> dict[str, object]:
    """Return the circuit's document; it equals `networkx.node_link_data(circuit.to_networkx(), edges="edges")`."""
    graph, shape = circuit.graph, shape_of(circuit.graph)
    counts = {"nodes": len(circuit.nodes), "edges": len(circuit.edges)}
    counts |= {"graph_nodes": graph.node_count, "graph_edges": graph.edge_count}
    nodes = [_node_record(circuit, node) for node in circuit.nodes]
    edges = [_edge_record(circuit, edge) for edge in circuit.edges]
    for reader, heads in _shared(circuit).items():
        about = {"layer": reader.node.layer, "index": reader.node.index, "at": reader.node.at}
        nodes.append(_known({"id": str(reader), "kind": "group", **about}))
        edges += [{"source": str(reader), "target": str(head), "key": "group"} for head in heads]
    whole = {"shape": shape, "counts": counts, "metadata": plain.thaw(circuit.metadata)}
    return {**_TOP, "graph": whole, "nodes": nodes, "edges": edges}


def shape_of(graph: Graph) -> Record:
    """A graph's shape as plain values."""
    shape: Record = {name: getattr(graph, name) for name in SHAPE}
    if graph.roles is not None:
        shape["roles"] = {"names": list(graph.roles.names), "looks": [list(seen) for seen in graph.roles.looks]}
    return shape


def _shared(circuit: Circuit) -> dict[Reader, list[Node]]:
    """List the keys and values in the circuit that several heads share, each with its heads in the circuit."""
    if not circuit.graph.grouped:
        return {}
    found = {reader: [] for reader in sorted({edge.target for edge in circuit.edges if edge.slot in ("k", "v")})}
    for node in circuit.nodes:
        if node.kind == "head":
            for slot in ("k", "v"):
                found.get(circuit.graph.reader_of(node, slot), []).append(node)
    return found


def _node_record(circuit: Circuit, node: Node) -> Record:
    record: Record = {"id": str(node), "kind": node.kind, "layer": node.layer, "index": node.index, "at": node.at}
    record |= {"score": circuit.nodes[node], "role": circuit.roles.get(node)}
    return _known({**record, **_about(circuit, node)})


def _edge_record(circuit: Circuit, edge: Edge) -> Record:
    shared = circuit.graph.grouped and edge.slot in ("k", "v")
    record: Record = {"source": str(edge.writer), "target": str(edge.target if shared else edge.reader)}
    record |= {"key": edge.slot or "in", "score": circuit.edges[edge]}
    return _known({**record, **_about(circuit, edge)})


def _about(circuit: Circuit, element: Element) -> Record:
    positions = circuit.positions.get(element)
    evidence = circuit.evidence.get(element)
    return {"positions": positions and list(positions), "evidence": evidence and plain.thaw(evidence)}


def _known(record: Record) -> Record:
    return {key: value for key, value in record.items() if value is not None}


def from_document(document: object) -> Circuit:
    """Read a circuit back, every part checked.

    Raises GraphError (NonFiniteError for scores) for anything but what `to_document` writes: unknown or missing keys,
    values of the wrong kind, edges that the graph lacks, counts that do not fit. Derived values may be left out.
    """
    top = _mapping(document, "the document")
    whole = _mapping(_get(top, "graph", "the document"), "graph")
    graph = _graph(_mapping(_get(whole, "shape", "graph"), "shape"))
    nodes = [_mapping(record, "a node") for record in _list(_get(top, "nodes", "the document"), "nodes")]
    edges = [_mapping(record, "an edge") for record in _list(_get(top, "edges", "the document"), "edges")]
    own_nodes = [(_text(record, "id", "a node"), record) for record in nodes if record.get("kind") != "group"]
    own_edges = [(_edge(record), record) for record in edges if record.get("key") != "group"]
    for names in ([name for name, _ in own_nodes], [name for name, _ in own_edges]):
        if len(set(names)) < len(names):
            raise GraphError(f"{Counter(names).most_common(1)[0][0]} is listed twice")
    records: list[tuple[str, Mapping[str, object]]] = [*own_nodes, *own_edges]
    metadata = _mapping(whole.get("metadata", {}), "metadata")
    circuit = Circuit(
        graph,
        {name: record.get("score") for name, record in own_edges},
        {name: record.get("score") for name, record in own_nodes},
        positions=_column(records, "positions"),
        evidence=_column(records, "evidence"),
        roles=_column(own_nodes, "role"),
        metadata=metadata,
    )
    _compare(top, whole, nodes, edges, to_document(circuit))
    return circuit


def _column(records: list[tuple[str, Mapping[str, object]]], key: str) -> dict[str, object]:
    return {name: record[key] for name, record in records if record.get(key) is not None}


def _compare(top: Mapping, whole: Mapping, nodes: list, edges: list, expected: Mapping) -> None:
    """Check a document against the one that its circuit makes: what is said must agree, and no part may be missing."""
    _agree({key: top[key] for key in top if key not in ("graph", "nodes", "edges")}, _TOP, "the document")
    for key, value in whole.items():
        known = expected["graph"].get(key)
        if known is None:
            raise GraphError(f"graph has an unknown key {shown(key)}")
        if key != "metadata":
            _agree(_mapping(value, key), known, key)
    for given, part, keys in ((nodes, "nodes", ("id",)), (edges, "edges", ("source", "target", "key"))):
        by_name = {tuple(record[key] for key in keys): record for record in expected[part]}
        seen = set()
        for record in given:
            name = tuple(_text(record, key, "an edge" if len(keys) > 1 else "a node") for key in keys)
            if name not in by_name:
                raise GraphError(f"{shown(' '.join(name))} does not belong to the circuit of this file")
            if name in seen:
                raise GraphError(f"{shown(' '.join(name))} is listed twice")
            _agree(record, by_name[name], " ".join(name))
            seen.add(name)
        if missing := [name for name in by_name if name not in seen]:
            raise GraphError(f"{' '.join(missing[0])} is missing from the list")


def _agree(given: Mapping, expected: Mapping, where: str) -> None:
    for key, value in given.items():
        if key not in expected:
            if value in (None, {}, ""):
                continue
            raise GraphError(f"{where} has {shown(key)}, which has no meaning there")
        if key not in ("positions", "evidence") and value != expected[key]:
            raise GraphError(f"{where} says {key} {shown(value)}; by its own contents it is {shown(expected[key])}")


def _graph(shape: Mapping[str, object]) -> Graph:
    for name in SHAPE:
        value, kind = _get(shape, name, "shape"), bool if name in ("parallel", "neurons") else int
        if type(value) is not kind:
            wanted = "true or false" if kind is bool else "a whole number"
            raise GraphError(f"shape has {name} {shown(value)}; expected {wanted}")
    values = cast(Mapping[str, int], shape)
    return Graph(
        n_layers=values["n_layers"],
        n_heads=values["n_heads"],
        n_key_value_heads=values["n_key_value_heads"],
        d_mlp=values["d_mlp"],
        parallel=bool(values["parallel"]),
        neurons=bool(values["neurons"]),
        roles=_roles(shape["roles"]) if "roles" in shape else None,
    )


def _roles(value: object) -> Roles:
    """The roles of a shape. Raises GraphError for anything else."""
    roles = _mapping(value, "roles")
    names = [plain.text(name, where="a role") for name in _list(_get(roles, "names", "roles"), "the names of roles")]
    looks = [_list(seen, "what a role looks at") for seen in _list(_get(roles, "looks", "roles"), "looks")]
    if any(type(place) is not int for seen in looks for place in seen):
        raise GraphError("looks holds something else than places of roles, which are whole numbers")
    return Roles(tuple(names), tuple(map(tuple, looks)))


def _edge(record: Mapping[str, object]) -> str:
    """Return the name of an edge from its record."""
    source, target, key = (_text(record, field, "an edge") for field in ("source", "target", "key"))
    return f"{source}->{target}" if key == "in" or target.endswith(f"<{key}>") else f"{source}->{target}<{key}>"


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise GraphError(f"{where} is {shown(value)}; expected a mapping with text keys")
    return value


def _list(value: object, where: str) -> list:
    if not isinstance(value, list):
        raise GraphError(f"{where} is {shown(value)}; expected a list")
    return value


def _get(record: Mapping[str, object], key: str, where: str) -> object:
    if key not in record:
        raise GraphError(f"{where} lacks the key {key!r}")
    return record[key]


def _text(record: Mapping[str, object], key: str, where: str) -> str:
    return plain.text(_get(record, key, where), where=f"{key!r} of {where}")


def to_networkx(circuit: Circuit) -> "networkx.MultiDiGraph":
    """Copy the circuit's document into a networkx graph."""
    import networkx

    document = to_document(circuit)
    network = networkx.MultiDiGraph()
    network.graph.update(cast(dict, document["graph"]))
    for record in cast(list[dict], document["nodes"]):
        network.add_node(record.pop("id"), **record)
    for record in cast(list[dict], document["edges"]):
        network.add_edge(record.pop("source"), record.pop("target"), key=record.pop("key"), **record)
    return network


def from_networkx(network: "networkx.MultiDiGraph") -> Circuit:
    """Read the circuit that a networkx graph holds; raises GraphError where it is not what `to_networkx` makes."""
    nodes = [{**attributes, "id": name} for name, attributes in network.nodes(data=True)]
    if not (network.is_directed() and network.is_multigraph()):
        raise GraphError(f"expected a networkx.MultiDiGraph, got a {type(network).__name__}")
    edges = [
        {**attributes, "source": source, "target": target, "key": key}
        for source, target, key, attributes in network.edges(keys=True, data=True)
    ]
    return from_document({**_TOP, "graph": dict(network.graph), "nodes": nodes, "edges": edges})


def to_dataframe(circuit: Circuit) -> "pandas.DataFrame":
    """List the circuit's nodes, then its edges, one a row."""
    import pandas

    columns = ["element", "name", "writer", "reader", "slot", "score", "role", "positions"]
    rows = []
    for node, score in circuit.nodes.items():
        rows.append(["node", str(node), None, None, None, score, circuit.roles.get(node), circuit.positions.get(node)])
    for edge, score in circuit.edges.items():
        ends = [str(edge.writer), str(edge.reader), edge.slot]
        rows.append(["edge", str(edge), *ends, score, None, circuit.positions.get(edge)])
    return pandas.DataFrame(rows, columns=columns).astype({"score": "float64"})
