"""Attribution graphs of features in the file layout of circuit-tracer and Neuronpedia (graph-schema version 1), both ways.

A feature's `feature` is the Cantor pair of its layer and its number, as circuit-tracer writes it; where two dictionaries are
drawn at one layer, numbers of the second follow those of the first. Beside the layout's own keys stand, under `circuit`, the
records of this package, so that reading gives the graph back; files of other programs are read by the layout's keys alone.
"""

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from circuits.concepts.feature_nodes.graph import AttributionGraph, GraphNode, GraphNodeKind
from circuits.errors import CircuitsError, FileFormatError, GraphError, shown
from circuits.files.reading import read_json, wrong_version
from circuits.files.writing import write_whole
from circuits.graph.neuronpedia import is_neuronpedia, to_text

FORMAT, VERSION = "transformer-circuits/attribution-graph", 1
LARGEST = 2**28
_TYPES: Mapping[GraphNodeKind, str] = {
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "mlp": "mlp",
    "embedding": "embedding",
    "logit": "logit",
}
"""What the viewer is told a node is: its own names, by which it chooses how to draw it."""
_KINDS: Mapping[str, GraphNodeKind] = {name: kind for kind, name in _TYPES.items()}
_SLUG = re.compile(r"[A-Za-z0-9_.-]+")


def to_graph_file(graph: AttributionGraph, *, slug: str, scan: str) -> dict[str, Any]:
    """A graph as plain values in the layout. Raises GraphError for a slug that the site does not take.

    Args:
        graph: the graph.
        slug: its name there: letters, digits, `_`, `.` and `-`.
        scan: the model's name there, such as gemma-2-2b.
    """
    if not _SLUG.fullmatch(slug):
        raise GraphError(f"the slug is {shown(slug)}; expected letters, digits, _ . and - alone")
    numbers = _numbers(graph)
    nodes = [_node(graph, node, number) for node, number in zip(graph.nodes, numbers, strict=True)]
    whole = graph.as_json()
    about = {key: value for key, value in whole.items() if key not in ("nodes", "sources", "targets", "weights")}
    ends = zip(graph.sources.tolist(), graph.targets.tolist(), graph.weights.tolist(), strict=True)
    links = [{"source": nodes[a]["node_id"], "target": nodes[b]["node_id"], "weight": w} for a, b, w in ends]
    generator = {"name": "transformer-circuits", "version": importlib.metadata.version("transformer-circuits")}
    metadata = {
        "slug": slug,
        "scan": scan,
        "transcoder_list": sorted(str(one) for one in dict(graph.metadata.get("dictionaries") or {}).values()),
        "prompt_tokens": list(graph.tokens),
        "prompt": graph.prompt,
        "schema_version": 1,
        "info": {"description": graph.summary, "generator": generator},
        "circuit": {"format": FORMAT, "version": VERSION, **about},
    }
    if isinstance(graph.metadata.get("nodes"), float):
        metadata["node_threshold"] = graph.metadata["nodes"]
    state = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    return {"metadata": metadata, "qParams": state, "nodes": nodes, "links": links}


def _numbers(graph: AttributionGraph) -> list[int]:
    """A number for every node that no other of its layer and token has: a feature's own, behind those of dictionaries that are
    drawn at the same layer; below 0 for what is no feature."""
    places: dict[int, list[str]] = {}
    highest: dict[str, int] = {}
    for node in graph.nodes:
        if node.kind in ("feature", "error", "mlp"):
            known = places.setdefault(node.layer, [])
            if node.place not in known:
                known.append(node.place)
            highest[node.place] = max(highest.get(node.place, 0), node.index + 1)
    found = []
    for node in graph.nodes:
        if node.kind in ("embedding", "logit"):
            found.append(node.index)
            continue
        at = places[node.layer].index(node.place)
        before = sum(highest[place] for place in places[node.layer][:at])
        found.append(before + node.index if node.kind == "feature" else -1 - at)
    return found


def _node(graph: AttributionGraph, node: GraphNode, number: int) -> dict[str, Any]:
    """A node of the viewer."""
    layer = "E" if node.kind == "embedding" else str(graph.n_layers + 1 if node.kind == "logit" else node.layer)
    feature = number
    label = f"{node.place}.f{node.index} {node.label}".strip() if node.kind == "feature" else node.label or node.name
    if node.kind == "feature":
        feature = _cantor(node.layer, number)
    elif node.kind == "embedding":
        feature, label = node.position, f'Emb: "{node.label}"'
    elif node.kind == "logit":
        label = f'Output "{node.label.replace("(p=", "( p=")}" (p={node.value:.3f})'
    return {
        "node_id": f"{layer}_{number}_{node.position}",
        "feature": feature,
        "layer": layer,
        "ctx_idx": node.position,
        "feature_type": _TYPES[node.kind],
        "token_prob": node.value if node.kind == "logit" else 0.0,
        "is_target_logit": node.kind == "logit",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if node.kind == 'logit' else layer}_{number}-{node.position}",
        "clerp": label,
        "influence": node.influence,
        "activation": node.value if node.kind == "feature" else None,
        "circuit": {"kind": node.kind, "place": node.place, "index": node.index, "value": node.value, "label": node.label},
    }


def _cantor(layer: int, number: int) -> int:
    both = layer + number
    return both * (both + 1) // 2 + number


def save_graph_file(graph: AttributionGraph, path: str | Path, *, slug: str, scan: str) -> dict[str, Any]:
    """Write a graph in the layout, whole or not at all; gives what was written. Raises GraphError as `to_graph_file`."""
    document = to_graph_file(graph, slug=slug, scan=scan)
    write_whole(Path(path), to_text(document).encode())
    return document


def read_graph_file(path: str | Path) -> AttributionGraph:
    """An attribution graph from a file of this layout, also one that circuit-tracer or Neuronpedia wrote. Raises
    FileFormatError, with the file's name, for any other file, and where its parts do not fit each other."""
    path = Path(path)
    document = read_json(path, max_bytes=LARGEST)
    try:
        return from_graph_file(document)
    except CircuitsError as error:
        raise FileFormatError(f"{path}: {error}") from None


def from_graph_file(document: object) -> AttributionGraph:
    """A graph from the layout's plain values. Raises GraphError for what is missing or does not fit."""
    if not is_neuronpedia(document) or not isinstance(document, Mapping):
        raise GraphError("no attribution graph: expected metadata, qParams, nodes and links")
    metadata = document["metadata"]
    about = metadata.get("circuit") if isinstance(metadata, Mapping) else None
    if isinstance(about, Mapping) and about.get("format") not in (None, FORMAT):
        raise GraphError("a circuit of heads and MLPs, which circuits info reads")
    if isinstance(about, Mapping) and (wrong := wrong_version(FORMAT, about.get("version"))):
        raise GraphError(f"metadata.circuit: {wrong}")
    try:
        return _read(document, metadata, about if isinstance(about, Mapping) else None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise GraphError(f"it does not fit together: {' '.join(words.split())[:200]}") from None


def _read(document: Mapping[str, Any], metadata: Mapping[str, Any], about: Mapping[str, Any] | None) -> AttributionGraph:
    tokens = tuple(str(one) for one in metadata["prompt_tokens"])
    nodes = [_node_of(one, len(tokens)) for one in document["nodes"]]
    ids = [str(one["node_id"]) for one in document["nodes"]]
    rows = {name: row for row, name in enumerate(ids)}
    if len(rows) != len(ids):
        raise GraphError("two nodes have one node_id")
    for link in document["links"]:
        for end in ("source", "target"):
            if link[end] not in rows:
                raise GraphError(f"a link's {end} is {shown(link[end])}, which is no node")
    sources, targets = ([rows[link[end]] for link in document["links"]] for end in ("source", "target"))
    weights = torch.tensor([float(link["weight"]) for link in document["links"]], dtype=torch.float64)
    ends = {"sources": torch.tensor(sources, dtype=torch.long), "targets": torch.tensor(targets, dtype=torch.long)}
    if about is not None:
        plain = {key: value for key, value in about.items() if key not in ("format", "version")}
        empty = AttributionGraph.from_json({**plain, "nodes": [], "sources": [], "targets": [], "weights": []})
        fields = {name: getattr(empty, name) for name in plain}
        return AttributionGraph(**{**fields, "nodes": tuple(nodes), "weights": weights, **ends})
    last = max((node.layer for node in nodes), default=0)
    return AttributionGraph(
        model=str(metadata["scan"]),
        weights_sha256="",
        prompt=str(metadata["prompt"]),
        tokens=tokens,
        n_layers=max(0, last) if any(node.kind == "logit" for node in nodes) else last + 1,
        nodes=tuple(nodes),
        weights=weights,
        completeness=0.0,
        replacement=0.0,
        nodes_before=len(nodes),
        links_before=len(weights),
        metadata={"read_from": str(metadata["slug"])},
        **ends,
    )


def _node_of(one: Mapping[str, Any], tokens: int) -> GraphNode:
    """A node from the layout's keys, with what this package wrote beside them."""
    kind = _KINDS.get(str(one["feature_type"]), "feature")
    layer = -1 if one["layer"] == "E" else int(one["layer"])
    position, name = int(one["ctx_idx"]), str(one["node_id"])
    if not 0 <= position < tokens:
        raise GraphError(f"the node {shown(name)} is at token {position} of {tokens}")
    influence = float(one.get("influence") or 0.0)
    layer -= kind == "logit"  # there one above the layers that write
    if isinstance(own := one.get("circuit"), Mapping):
        about = {"index": int(own["index"]), "value": float(own["value"]), "label": str(own["label"])}
        return GraphNode(own["kind"], str(own["place"]), layer, position, influence=influence, **about)
    middle = name.split("_")[1] if name.count("_") == 2 else ""
    index = int(middle) if middle.lstrip("-").isdigit() else int(one["feature"] if one.get("feature") is not None else -1)
    value = float(one.get("token_prob") or 0.0) if kind == "logit" else float(one.get("activation") or 0.0)
    place = {"embedding": "embedding", "logit": "logits"}.get(kind, f"m{layer}")
    return GraphNode(kind, place, layer, position, index, value, influence, str(one.get("clerp") or ""))
