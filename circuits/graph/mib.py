"""The circuit files of MIB (Mueller et al. 2025) and EAP-IG (Hanna et al. 2024), as EAP-IG's `Graph.to_json` writes.

`{"cfg": {n_layers, n_heads, parallel_attn_mlp, d_model}, "nodes": {name: {in_graph, score?}}, "edges": {name: {score,
in_graph}}}`. The format has whole MLPs only, and keys and values for every query head (`circuits.graph.per_head`): a group's
score is split over its heads on writing, and theirs sum to the group's on reading; a group's edge is in the circuit where any
of its heads' is. Kept beside the format's own keys, so that reading gives the circuit back: `d_mlp`, `n_key_value_heads` and
`key_value_scores` in `cfg`, and `scored: false` on an edge that has no score. The format has no place for positions, roles,
metadata other than `d_model`, or evidence other than scores by query head.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from circuits.errors import GraphError, shown
from circuits.files import plain
from circuits.graph.circuit import Circuit
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node
from circuits.graph.per_head import CHOSEN, SCORES, PerHead, even, separate, shares, total

_SUMMED = "one a query head, summing to the group's"
"""What `key_value_scores` says in files that split a group's score over its heads."""
_OLD = {"n_layers", "n_heads", "parallel_attn_mlp", "d_model", "n_key_value_heads", "d_mlp"}
"""The keys of `cfg` in files of this package before it split scores: each head of a group has the whole of its score."""


def to_mib(circuit: Circuit) -> dict[str, object]:
    """Return a circuit as MIB's plain values: every node with its flag, and the chosen edges.

    Raises GraphError for a graph of single neurons and for a restriction to positions, which the format cannot say.
    """
    graph = circuit.graph
    if graph.neurons:
        raise GraphError("the MIB format has whole MLPs only; save a circuit of single neurons as .json")
    if graph.roles is not None:
        raise GraphError("the MIB format has no roles of tokens; save a circuit that has some as .json, .graphml or .dot")
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
        **({"key_value_scores": _SUMMED} if graph.grouped else {}),
    }
    nodes = {}
    for node in graph.nodes():
        score = circuit.nodes.get(node)
        nodes[str(node)] = {"in_graph": node in circuit.nodes, **({} if score is None else {"score": score})}
    edges = {}
    for edge, whole in circuit.edges.items():
        for head, (score, chosen) in shares(graph, edge, whole, circuit.evidence.get(edge, {})).items():
            scored = {"score": 0.0, "scored": False} if score is None else {"score": score}
            edges[str(head)] = {**scored, "in_graph": chosen}
    return {"cfg": cfg, "nodes": nodes, "edges": edges}


def from_mib(document: object, *, every_edge: bool = False) -> Circuit:
    """Read a circuit from MIB's plain values, as `read_mib` does."""
    return read_mib(document, every_edge=every_edge)[0]


def read_mib(
    document: object, *, every_edge: bool = False, n_key_value_heads: int | None = None
) -> tuple[Circuit, PerHead | None]:
    """Read a circuit from MIB's plain values; a file of EAP-IG itself may list every node and edge with its flag. With it,
    where heads share keys or the file does not say, how many edges it has in the file.

    An edge in the circuit brings the nodes at its ends. With `every_edge` all listed edges are taken, whatever their
    flags say (files of scores flag nothing). `n_key_value_heads`, which EAP-IG does not record, says how many key-value
    heads the model has; without it, and where the file does not say, every head has its own. The width of whole MLPs, which
    EAP-IG does not record either, is then 1. Scores by query head that are not equal parts are kept as evidence.
    Raises GraphError for missing keys, values of the wrong kind, nodes and edges that the graph lacks, and nodes cut down to
    some dimensions (`neurons`), which have no meaning here.
    """
    whole = _mapping(document, "the file")
    top = {key: _mapping(_get(whole, key, "the file"), key) for key in ("cfg", "nodes", "edges")}
    no_mlps = not any(str(name).startswith("m") for name in top["nodes"])
    graph = _graph(top["cfg"], n_key_value_heads, attention_only=no_mlps)
    nodes = {}
    for name, value in top["nodes"].items():
        info = {"in_graph": value} if isinstance(value, bool) else _mapping(value, f"the node {shown(name)}")
        node = graph.node(name)
        score = plain.score(info.get("score"), where=name)
        _whole(info, name)
        if _flag(info, name):
            nodes[node] = score
    d_model = _number(top["cfg"], "d_model", 0)
    metadata = {"d_model": d_model} if d_model else {}
    if not graph.grouped or _named_by_group(top["cfg"], top["edges"], graph):
        direct = {edge: said.score for edge, said in _listed(top["edges"], graph) if said.chosen or every_edge}
        circuit = Circuit(graph, direct, nodes, metadata=metadata)
        unsaid = n_key_value_heads is None and "n_key_value_heads" not in top["cfg"] and graph.n_heads > 1
        return circuit, PerHead.of(graph, circuit.edges, unsaid=unsaid) if graph.grouped or unsaid else None
    edges, evidence, counts = _by_group(top["edges"], graph, every_edge=every_edge, repeated=_repeated(top["cfg"]))
    return Circuit(graph, edges, nodes, evidence=evidence, metadata=metadata), counts


def _graph(cfg: Mapping[str, object], asked: int | None, *, attention_only: bool) -> Graph:
    """Return the graph that a file is about. EAP-IG writes neither the number of key-value heads nor d_mlp."""
    n_layers, n_heads = (_number(cfg, key, None) for key in ("n_layers", "n_heads"))
    groups = _number(cfg, "n_key_value_heads", n_heads if asked is None else asked)
    d_mlp = _number(cfg, "d_mlp", 0 if attention_only else 1)
    parallel = _get(cfg, "parallel_attn_mlp", "cfg")
    if not isinstance(parallel, bool):
        raise GraphError(f"cfg has parallel_attn_mlp {shown(parallel)}; expected true or false")
    if asked is not None and asked != groups:
        raise GraphError(f"cfg has n_key_value_heads {groups}, not {asked}")
    if cfg.get("key_value_scores", _SUMMED) != _SUMMED:
        raise GraphError(f"cfg has key_value_scores {shown(cfg['key_value_scores'])}; expected {_SUMMED!r}")
    return Graph(n_layers=n_layers, n_heads=n_heads, n_key_value_heads=groups, d_mlp=d_mlp, parallel=parallel)


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    """What a file says of one edge."""

    score: float | None
    chosen: bool


def _listed(listed: Mapping, graph: Graph) -> list[tuple[Edge, _Said]]:
    """Every listed edge of a graph and what is said of it."""
    found = []
    for name, value in listed.items():
        edge, info = graph.edge(name), _mapping(value, f"the edge {shown(name)}")
        score = plain.score(_get(info, "score", name), where=name)
        if score is None:
            raise GraphError(f"the edge {name} has the score null; expected a number")
        if not isinstance(info.get("scored", True), bool):
            raise GraphError(f"the edge {name} has scored {shown(info['scored'])}; expected true or false")
        found.append((edge, _Said(score if info.get("scored", True) else None, _flag(info, name))))
    return found


def _named_by_group(cfg: Mapping[str, object], listed: Mapping, graph: Graph) -> bool:
    """Whether a file that does not say, but lists as many edges as the graph has, names k and v edges by group already."""
    if "key_value_scores" in cfg or _repeated(cfg) or len(listed) != graph.edge_count:
        return False
    return all(graph.has_edge(name) for name in listed)


def _repeated(cfg: Mapping[str, object]) -> bool:
    """Whether each head of a group has the whole of its score, as this package wrote until it split scores."""
    return set(cfg) == _OLD


def _by_group(
    listed: Mapping, graph: Graph, *, every_edge: bool, repeated: bool
) -> tuple[dict[Edge, float | None], dict[Edge, dict[str, object]], PerHead]:
    """The edges in the circuit, what is known of each by query head, and how many there are in the file."""
    groups: dict[Edge, dict[Node, _Said]] = {}
    inside = 0
    for edge, said in _listed(listed, separate(graph)):
        said = dataclasses.replace(said, chosen=True) if every_edge else said
        inside += said.chosen
        whole = edge if edge.slot in (None, "q") else Edge(edge.writer, graph.reader_of(edge.reader, edge.slot).node, edge.slot)
        groups.setdefault(whole, {})[edge.reader] = said
    edges: dict[Edge, float | None] = {}
    evidence: dict[Edge, dict[str, object]] = {}
    divided = 0
    for edge, heads in groups.items():
        if not any(said.chosen for said in heads.values()):
            continue
        targets = graph.targets(edge)
        if repeated:
            _check_agreement(edge, targets, heads)
        edges[edge], known = _joined(edge, targets, heads, repeated=repeated)
        divided += CHOSEN in known
        if known:
            evidence[edge] = known
    return edges, evidence, PerHead(inside, separate(graph).edge_count, divided)


def _joined(
    edge: Edge, targets: Sequence[Node], heads: Mapping[Node, _Said], *, repeated: bool
) -> tuple[float | None, dict[str, object]]:
    """A group's score from those of its heads (of those that the file lists), and what would be lost by that alone."""
    scores = {head: heads[head].score for head in targets if head in heads}
    given = [score for score in scores.values() if score is not None]
    if repeated or len(targets) == 1 or not given:
        score = given[0] if given else None
        known: dict[str, object] = {}
    else:
        try:
            score = total(given)
        except GraphError as error:
            raise GraphError(f"{edge}: {error}") from None
        by_head = {str(head): scores.get(head) or 0.0 for head in targets}
        known = {} if list(by_head.values()) == even(score, len(by_head)) else {SCORES: by_head}
    chosen = [str(head) for head in targets if head in heads and heads[head].chosen]
    return score, known if len(chosen) == len(targets) else {**known, CHOSEN: chosen}


def _check_agreement(edge: Edge, targets: Sequence[Node], heads: Mapping[Node, _Said]) -> None:
    """Refuse heads that share keys or values and say different things where each is to say the same."""
    inside = [said for said in heads.values() if said.chosen]
    if len({said.score for said in inside}) > 1:
        raise GraphError(f"the heads that share the input {edge.target} disagree about the score of {edge}")
    if len(inside) < len(targets):
        raise GraphError(f"only {len(inside)} of the heads that share the input {edge.target} have their edge {edge}")


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
