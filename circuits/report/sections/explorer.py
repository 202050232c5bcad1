"""A circuit to walk through: its nodes and edges, where they stand, and all that is known of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from circuits.attribution import EdgeScores
from circuits.files.plain import thaw
from circuits.graph import Circuit, Edge, Node, Reader
from circuits.graph.places import places
from circuits.plots.graphs.layout import BOX_HEIGHT, BOX_WIDTH, PORTS, BoxRow, placed
from circuits.report.blocks import AnyBlock, Paragraphs, Section
from circuits.report.closer import Closer
from circuits.search.judging.compare import supporting_sign
from circuits.search.judging.curves import Curve
from circuits.search.judging.verdict import Verdict

_SURE = 1.96
"""Standard errors on either side of a mean that make a 95 % interval."""
_UNITS = 72
"""Of the page's drawing in an inch of the layout."""
_HIGHER = 1.2
"""Boxes are that much higher than on paper: their text is larger beside the lines."""
_MOST_NODES = 2_000
"""Nodes that are placed on a page; of more, those of the strongest edges."""


@dataclasses.dataclass(frozen=True)
class Explorer:
    """A circuit as the page's script reads it. Ends of edges are places in `nodes`."""

    KIND: ClassVar[str] = "explorer"
    nodes: Sequence[Mapping[str, Any]]
    edges: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    layers: int
    size: Mapping[str, float]
    """Width and height of a box, and where edges enter it by slot."""
    supports: int
    """The sign of scores that support the metric; 0: not known."""
    words: Mapping[str, str]
    """What is said of scores, of thinning out, of the whole graph."""
    curve: Mapping[str, Any] | None
    prompts: Sequence[Mapping[str, Any]] = ()
    causal: bool = True
    """Whether tokens see earlier ones alone."""
    missing: Sequence[str] = ()
    """What the page does not show, and what would bring it."""
    name: str = ""
    """What `Links` call it."""


def explorer_section(
    circuit: Circuit,
    *,
    scores: EdgeScores | None = None,
    verdict: Verdict | None = None,
    curve: Curve | None = None,
    closer: Closer | None = None,
    missing: Sequence[str] = (),
    title: str = "The circuit",
    name: str = "",
) -> Section:
    """A circuit as a section.

    Args:
        circuit: the edges and nodes that are shown.
        scores: standard errors of its edges, where they were measured.
        verdict: of this circuit: what it keeps as a whole, and which nodes it needs.
        curve: how much fewer or more of the strongest edges keep.
        closer: what the model itself says of the nodes and edges.
        missing: what there is not, in words, each with what would bring it.
        title: the section's heading.
        name: what links to its nodes call it, where a page has several.
    """
    if not circuit.nodes:
        return Section(title, [Paragraphs(["There is nothing in this circuit."], tone="warning")])
    blocks: list[AnyBlock] = []
    if len(circuit.nodes) > _MOST_NODES:
        whole, circuit = len(circuit.edges), _fewer(circuit)
        blocks.append(Paragraphs([f"Of {whole:,} edges the {len(circuit.edges):,} strongest are shown."], tone="warning"))
    rows, ends = placed(circuit)
    items = [item for row in rows for item in row.items]
    order = {item: place for place, item in enumerate(items)}
    nodes = [_node(circuit, item, verdict, closer) for item in items]
    records = _group_neurons(nodes, items, _row_records(rows, order))
    explorer = Explorer(
        nodes=nodes,
        edges=_edges(circuit, ends, order, scores, closer),
        rows=records,
        layers=circuit.graph.n_layers,
        size={
            "width": BOX_WIDTH * _UNITS,
            "height": _HIGHER * BOX_HEIGHT * _UNITS,
            **{slot: PORTS[slot] * _UNITS for slot in ("q", "k", "v")},
        },
        supports=supporting_sign(circuit),
        words={**_words(circuit, curve), "byPrompt": "" if closer is None else closer.about},
        curve=_curve(curve, verdict),
        prompts=[] if closer is None else closer.prompts,
        missing=missing,
        causal=closer is None or closer.causal,
        name=name,
    )
    return Section(title, [*blocks, explorer])


def _fewer(circuit: Circuit) -> Circuit:
    """The strongest edges, so many that their nodes can be placed."""
    count = len(circuit.edges)
    while count > 1 and len(circuit.top(count).nodes) > _MOST_NODES:
        count = count * 2 // 3
    return circuit.top(count)


def _node(circuit: Circuit, item: Node | Reader, verdict: Verdict | None, closer: Closer | None) -> dict[str, Any]:
    """All that is known of a node."""
    if isinstance(item, Reader):
        return {"name": str(item), "kind": "shared", "layer": item.node.layer, "slot": item.slot}
    need = None if verdict is None else next((one for one in verdict.minimality if one.node == str(item)), None)
    found = {
        "name": str(item),
        "kind": item.kind,
        "layer": item.layer,
        "score": circuit.nodes[item],
        "role": circuit.roles.get(item),
        "positions": _positions(circuit, item),
        "evidence": thaw(circuit.evidence.get(item, {})) or None,
        "need": None if need is None else {"change": need.change, "without": list(need.without)},
        **({} if closer is None else closer.of_node(item)),
    }
    return {key: value for key, value in found.items() if value is not None}


def _positions(circuit: Circuit, element: Node | Edge) -> list[str] | None:
    found = circuit.positions.get(element)
    return None if found is None else [str(one) for one in found]


def _edges(
    circuit: Circuit,
    ends: Mapping[Edge, Sequence[Node | Reader]],
    order: Mapping[Node | Reader, int],
    scores: EdgeScores | None,
    closer: Closer | None,
) -> list[dict[str, Any]]:
    """All that is known of each edge, the strongest first."""
    errors = _errors(circuit, scores)
    strongest = sorted(circuit.edges, key=lambda edge: -abs(circuit.edges[edge] or 0.0))
    found = []
    for edge in strongest:
        score, error = circuit.edges[edge], errors.get(edge)
        record = {
            "name": str(edge),
            "from": order[edge.writer],
            "to": [order[end] for end in ends[edge]],
            "slot": edge.slot,
            "score": score,
            "interval": None if error is None or score is None else [score - _SURE * error, score + _SURE * error],
            "positions": _positions(circuit, edge),
            "evidence": thaw(circuit.evidence.get(edge, {})) or None,
            "byPrompt": None if closer is None else closer.of_edge(edge),
        }
        found.append({key: value for key, value in record.items() if value is not None})
    return found


def _errors(circuit: Circuit, scores: EdgeScores | None) -> dict[Edge, float]:
    """Standard errors of the edges' scores, of those that the circuit's scores are."""
    if scores is None or scores.graph != circuit.graph or len(scores.labels) > 1 or scores.errors.isnan().all():
        return {}
    row_of = {pair: row for row, pair in enumerate(zip(scores.writers.tolist(), scores.readers.tolist(), strict=True))}
    edges = list(circuit.edges)
    found = {}
    for edge, pair in zip(edges, zip(*places(circuit.graph, edges), strict=True), strict=True):
        row, own = row_of.get(pair), circuit.edges[edge]
        if row is None or own is None or abs(float(scores.values[row]) - own) > 1e-6 * max(1.0, abs(own)):
            continue  # the circuit's score is another one: a verified effect, or one of another run
        error = float(scores.errors[0, row])
        if error == error and error > 0:
            found[edge] = error
    return found


def _row_records(rows: Sequence[BoxRow], order: Mapping[Node | Reader, int]) -> list[dict[str, Any]]:
    """Rows from the input up: what they are called, and which nodes stand where."""
    found = []
    for row in rows:
        item = row.items[0]
        node = item.node if isinstance(item, Reader) else item
        part = "shared" if isinstance(item, Reader) else node.kind
        layer = node.layer
        places = [[order[one], x * _UNITS] for one, x in zip(row.items, row.xs(), strict=True)]
        found.append({"label": row.label.replace("\n", " "), "layer": layer, "part": part, "items": places})
    return found


def _group_neurons(
    nodes: list[dict[str, Any]], items: Sequence[Node | Reader], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows, and below the neurons of each MLP one for the MLP itself, a node that is added to `nodes`."""
    found: list[dict[str, Any]] = []
    for row in rows:
        layer = row["layer"]
        if row["part"] == "neuron" and not (found and found[-1]["part"] == "neuron" and found[-1]["layer"] == layer):
            members = [place for place, item in enumerate(items) if isinstance(item, Node) and item.rank[:3] == (1, layer, 1)]
            for place in members:
                nodes[place]["group"] = len(nodes)
            found.append({"label": f"layer {layer} MLP", "layer": layer, "part": "group", "items": [[len(nodes), 0.0]]})
            nodes.append({"name": f"m{layer}", "kind": "group", "layer": layer, "members": members})
        found.append(row)
    return found


def _words(circuit: Circuit, curve: Curve | None) -> dict[str, str]:
    """What the page says of scores and sizes."""
    sign, metric = supporting_sign(circuit), circuit.metadata.get("metric")
    what = f" ({metric.replace('_', ' ')})" if isinstance(metric, str) else ""
    means = {
        1: f"positive = the edge supports the metric{what}",
        -1: f"negative = the edge supports the metric{what}",
        0: "what its sign means is not recorded",
    }[sign]
    method = circuit.metadata.get("method")
    by = f" by {method}" if isinstance(method, str) else ""
    graph = circuit.graph
    whole = f"{graph.node_count:,} nodes and {graph.edge_count:,} edges"
    return {"score": f"Score{by}: {means}.", "whole": whole, "curve": "" if curve is None else _curve_words(curve)}


def _curve_words(curve: Curve) -> str:
    held = curve.metadata.get("prompts")
    on = f" on {held} prompts" if isinstance(held, int) else ""
    return f"measured{on} for the strongest edges of the whole graph, alone; between measured sizes read off a straight line"


def _curve(curve: Curve | None, verdict: Verdict | None) -> dict[str, Any] | None:
    """Sizes and what they keep."""
    whole = None if verdict is None else verdict.faithfulness.as_json()
    if curve is None:
        return None if whole is None else {"edges": [], "faithfulness": [], "whole": whole}
    return {"edges": list(curve.edges), "faithfulness": [one.effect for one in curve.faithfulness], "whole": whole}
