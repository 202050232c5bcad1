"""The circuit files of MIB (Mueller et al. 2025) and EAP-IG (Hanna et al. 2024), as EAP-IG's `Graph.to_json` writes.

`{"cfg": {n_layers, n_heads, parallel_attn_mlp, d_model}, "nodes": {name: {in_graph, score?}}, "edges": {name: {score,
in_graph}}}`. The format has whole MLPs only, and keys and values for every head. A circuit with shared keys is written
with one edge a head of the group, each with the group's score. Kept beside the format's own keys, so that reading gives
the circuit back: `d_mlp` and `n_key_value_heads` in `cfg`, and `scored: false` on an edge that has no score. The format
has no place for positions, evidence, roles or metadata other than `d_model`.
"""

from collections.abc import Mapping

from circuits.errors import GraphError, shown
from circuits.files import plain
from circuits.graph.circuit import Circuit
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge


def to_mib(circuit: Circuit) -> dict[str, object]:
    """Return a circuit as MIB's plain values: every node with its flag, and the chosen edges.

    Raises GraphError for a graph of single neurons and for a restriction to positions, which the format cannot say.
    """
    graph = circuit.graph
    if graph.neurons:
        raise GraphError("the MIB format has whole MLPs only; save a circuit of single neurons as .json")
    if circuit.positions:
        raise GraphError("the MIB format has no positions; save a circuit that is restricted to positions as .json")
    d_model = circuit.metadata.get("d_model")
    cfg = {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": d_model if type(d_model) is int and d_model > 0 else 0,
        "n_key_value_heads": graph.n_key_value_heads,
        "d_mlp": graph.d_mlp,
    }
    nodes = {}
    for node in graph.nodes():
        score = circuit.nodes.get(node)
        nodes[str(node)] = {"in_graph": node in circuit.nodes, **({} if score is None else {"score": score})}
    edges = {}
    for edge, score in circuit.edges.items():
        scored = {"score": 0.0, "scored": False} if score is None else {"score": score}
        for head in graph.targets(edge):
            edges[str(Edge(edge.writer, head, edge.slot))] = {**scored, "in_graph": True}
    return {"cfg": cfg, "nodes": nodes, "edges": edges}


def from_mib(document: object, *, every_edge: bool = False) -> Circuit:
    """Read a circuit from MIB's plain values; a file of EAP-IG itself may list every node and edge with its flag.

    An edge in the circuit brings the nodes at its ends. With `every_edge` all listed edges are taken, whatever their
    flags say (files of scores flag nothing). The width of whole MLPs, which EAP-IG does not record, is then 1.
    Raises GraphError for missing keys, values of the wrong kind, nodes and edges that the graph lacks, heads of one
    key-value group that disagree, and nodes cut down to some dimensions (`neurons`), which have no meaning here.
    """
    whole = _mapping(document, "the file")
    top = {key: _mapping(_get(whole, key, "the file"), key) for key in ("cfg", "nodes", "edges")}
    graph, separate = _graphs(top["cfg"], attention_only=not any(str(name).startswith("m") for name in top["nodes"]))
    nodes = {}
    for name, value in top["nodes"].items():
        info = {"in_graph": value} if isinstance(value, bool) else _mapping(value, f"the node {shown(name)}")
        node = graph.node(name)
        score = plain.score(info.get("score"), where=name)
        _whole(info, name)
        if _flag(info, name):
            nodes[node] = score
    edges = _edges(top["edges"], graph, separate, every_edge=every_edge)
    d_model = _number(top["cfg"], "d_model", 0)
    return Circuit(graph, edges, nodes, metadata={"d_model": d_model} if d_model else {})


def _graphs(cfg: Mapping[str, object], *, attention_only: bool) -> tuple[Graph, Graph]:
    """Return the graph that a file is about, and the same with keys and values for every head. EAP-IG does not write d_mlp."""
    n_layers, n_heads = (_number(cfg, key, None) for key in ("n_layers", "n_heads"))
    groups, d_mlp = _number(cfg, "n_key_value_heads", n_heads), _number(cfg, "d_mlp", 0 if attention_only else 1)
    parallel = _get(cfg, "parallel_attn_mlp", "cfg")
    if not isinstance(parallel, bool):
        raise GraphError(f"cfg has parallel_attn_mlp {shown(parallel)}; expected true or false")
    whole, separate = (
        Graph(n_layers=n_layers, n_heads=n_heads, n_key_value_heads=shared, d_mlp=d_mlp, parallel=parallel)
        for shared in (groups, n_heads)
    )
    return whole, separate


def _edges(listed: Mapping, graph: Graph, separate: Graph, *, every_edge: bool) -> dict[Edge, float | None]:
    """Read the edges in the circuit; heads that share keys or values must say the same about them."""
    size = graph.n_heads // graph.n_key_value_heads
    found: dict[Edge, float | None] = {}
    heads: dict[Edge, int] = {}
    for name, value in listed.items():
        edge, info = separate.edge(name), _mapping(value, f"the edge {shown(name)}")
        score = plain.score(_get(info, "score", name), where=name)
        if score is None:
            raise GraphError(f"the edge {name} has the score null; expected a number")
        if not isinstance(info.get("scored", True), bool):
            raise GraphError(f"the edge {name} has scored {shown(info['scored'])}; expected true or false")
        if not _flag(info, name) and not every_edge:
            continue
        if edge.slot in ("k", "v"):
            edge = Edge(edge.writer, graph.reader_of(edge.reader, edge.slot).node, edge.slot)
        score = score if info.get("scored", True) else None
        if edge in found and found[edge] != score:
            raise GraphError(f"the heads that share the input {edge.target} disagree about the score of {edge}")
        found[edge] = score
        heads[edge] = heads.get(edge, 0) + 1
    for edge, count in heads.items():
        if edge.slot in ("k", "v") and count < size:
            raise GraphError(f"only {count} of the heads that share the input {edge.target} have their edge {edge}")
    return found


def _whole(info: Mapping[str, object], name: str) -> None:
    """Refuse a node of which only some residual-stream dimensions are in the circuit."""
    if "neurons" in info:
        flags = info["neurons"]
        if not isinstance(flags, list) or not all(flag is True or flag in (1, 1.0) for flag in flags):
            raise GraphError(f"{name} is cut down to some dimensions of its output (neurons), which has no meaning here")


def _flag(info: Mapping[str, object], name: str) -> bool:
    flag = _get(info, "in_graph", name)
    if not isinstance(flag, bool):
        raise GraphError(f"{name} has in_graph {shown(flag)}; expected true or false")
    return flag


def _number(cfg: Mapping[str, object], key: str, default: int | None) -> int:
    value = cfg.get(key, default) if default is not None else _get(cfg, key, "cfg")
    if not isinstance(value, int) or isinstance(value, bool):
        raise GraphError(f"cfg has {key} {shown(value)}; expected a whole number")
    return value


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise GraphError(f"{where} is {shown(value)}; expected an object")
    return value


def _get(record: Mapping[str, object], key: str, where: str) -> object:
    if key not in record:
        raise GraphError(f"{shown(where)} lacks the key {key!r}")
    return record[key]
