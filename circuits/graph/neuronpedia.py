"""A circuit as an attribution graph for Neuronpedia's viewer (graph-schema version 1), and back.

The viewer draws one prompt: tokens from left to right, layers upwards, a node at one token and one layer, one link between two
nodes. A circuit is about a behaviour on many prompts, so some of what is drawn is a choice, which `metadata.info.description`
says in words: a node stands at the last of the positions that it is restricted to, or at the prompt's last token where it is
restricted to none; the links of one node into a head's q, k and v are one link, which weighs their sum; keys and values that
heads share are nodes of their own, whose link to a head weighs what the head has of the scores that end there; what has no
score weighs 0. Beside the viewer's own keys, under `circuit`, each node, each link and the metadata carry the records of
`circuits.graph.document`, so that reading gives the circuit back, with all that is known about it.
"""

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuits.errors import GraphError, shown
from circuits.files.reading import wrong_version
from circuits.files.writing import write_whole
from circuits.graph.circuit import Circuit
from circuits.graph.document import from_document, to_document
from circuits.graph.graph import Graph
from circuits.graph.nodes import Reader
from circuits.graph.per_head import shares

FORMAT, VERSION = "transformer-circuits/neuronpedia", 1
SUFFIX = ".neuronpedia.json"
_SLUG = re.compile(r"[A-Za-z0-9_.-]+")
_KINDS = {"input": "embeddings", "head": "attention head", "mlp": "mlp", "neuron": "mlp neuron", "logits": "logit"}
"""What the viewer is told a node is. Not its own names for features of transcoders, whose pages it would look up, nor
`embedding`, which it calls by the token below: `input` is the embeddings of all tokens."""
_SETTINGS = ("model", "method", "metric", "task", "source", "seed", "prompts", "steps")


@dataclass(frozen=True)
class ShownPrompt:
    """The prompt that a graph is drawn over, and what the model answers to it."""

    text: str
    tokens: tuple[str, ...]
    """Each token as text, BOS among them."""
    answer: str
    """The token that the logits stand for."""
    answer_id: int
    probability: float
    """Of the answer, in the model."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Named positions of the circuit: which token of this prompt each is, counted from 0, or from the end below 0."""


@dataclass(frozen=True)
class _Drawn:
    """What it takes to place the records of a circuit's document."""

    circuit: Circuit
    prompt: ShownPrompt

    def column(self, record: Mapping[str, Any]) -> tuple[int, bool]:
        """At which token a node stands, and whether the circuit says so. Raises GraphError for one outside of the prompt."""
        length, found = len(self.prompt.tokens), []
        for position in record.get("positions", ()):
            where = self.prompt.places.get(position) if isinstance(position, str) else position
            if where is None:
                continue
            if not -length <= where < length:
                raise GraphError(
                    f"{record['id']} is at position {position}, outside the prompt's {length} tokens: give a longer one"
                )
            found.append(where % length)
        return (max(found), True) if found else (length - 1, False)

    def node(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A node of the viewer."""
        graph, prompt = self.circuit.graph, self.prompt
        kind, column = str(record["kind"]), self.column(record)[0]
        place = _place(graph, record)
        layer, jsid = str(record.get("layer")), None
        if kind == "input":
            layer, jsid = "E", f"E-{column}"
        elif kind == "logits":
            layer, place, jsid = str(graph.n_layers + 1), prompt.answer_id, f"L_{prompt.answer_id}-{column}"
        answer = kind == "logits"
        return {
            "node_id": f"{layer}_{'all' if place is None else place}_{column}",
            "feature": place,
            "layer": layer,
            "ctx_idx": column,
            "feature_type": _KINDS.get(kind) or {"k": "shared keys", "v": "shared values"}[str(record["id"])[-2]],
            "jsNodeId": jsid or f"{layer}_{place}-{column}",
            "clerp": _answer(prompt) if answer else _label(record),
            "token_prob": prompt.probability if answer else 0.0,
            "is_target_logit": answer,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "circuit": dict(record),
        }

    def links(self, document: Mapping[str, Any], ids: Mapping[str, str]) -> list[dict[str, Any]]:
        """The links of the viewer: one between two nodes."""
        between: dict[tuple[str, str], list[dict]] = {}
        for record in document["edges"]:
            between.setdefault((record["source"], record["target"]), []).append(record)
        into = self._into_heads()
        found = []
        for (source, target), records in between.items():
            weights = [into.get((source, target), 0.0) if one["key"] == "group" else one.get("score", 0.0) for one in records]
            link = {"source": ids[source], "target": ids[target], "weight": math.fsum(weights)}
            found.append({**link, "circuit": [dict(one) for one in records]})
        return found

    def _into_heads(self) -> dict[tuple[str, str], float]:
        """(keys or values that heads share, head) → what the head has of the scores of the edges that end there."""
        graph, parts = self.circuit.graph, dict[tuple[str, str], list[float]]()
        for edge, score in self.circuit.edges.items():
            if graph.grouped and edge.slot in ("k", "v"):
                for head, (part, _) in shares(graph, edge, score, self.circuit.evidence.get(edge, {})).items():
                    parts.setdefault((str(edge.target), str(head.reader)), []).append(part or 0.0)
        return {ends: math.fsum(some) for ends, some in parts.items()}


def _place(graph: Graph, record: Mapping[str, Any]) -> int | None:
    """A number that no other node of the layer has: heads, the MLP or its neurons, then keys and values that heads share."""
    kind, index = record["kind"], int(record.get("index") or 0)
    if kind in ("input", "logits"):
        return None
    if kind == "group":
        slot = Reader.parse(record["id"]).slot
        return graph.n_heads + graph.mlp_writers + 2 * index + (slot == "v")
    return index if kind == "head" else graph.n_heads + index


def _answer(prompt: ShownPrompt) -> str:
    """As the viewer reads it: what stands behind the first `(p=` is the probability."""
    return f'Output "{prompt.answer.replace("(p=", "( p=")}" (p={prompt.probability:.3f})'


def _label(record: Mapping[str, Any]) -> str:
    if record["kind"] == "group":  # the viewer takes labels for markup: no <k>
        what = {"k": "keys", "v": "values"}[str(record["id"])[-2]]
        return f"a{record['layer']}: {what} of group {record['index']}, which its heads share"
    role = f" ({record['role']})" if record.get("role") else ""
    return f"{record['id']}{role}{': the embeddings of all tokens' if record['kind'] == 'input' else ''}"


def to_neuronpedia(circuit: Circuit, prompt: ShownPrompt, *, slug: str, scan: str) -> dict[str, Any]:
    """A circuit as plain values in Neuronpedia's layout.

    Raises GraphError for a slug that the site does not take, a prompt without tokens, a probability that is none, and a node
    at a position outside of the prompt.

    Args:
        circuit: the circuit.
        prompt: what it is drawn over (`circuits.models.shown_prompt` asks a model).
        slug: the graph's name there: letters, digits, `_`, `.` and `-`.
        scan: the model's name there, such as gpt2-small.
    """
    if not _SLUG.fullmatch(slug):
        raise GraphError(f"the slug is {shown(slug)}; expected letters, digits, _ . and - alone")
    if not prompt.tokens:
        raise GraphError("the prompt has no tokens")
    if circuit.graph.roles is not None:
        raise GraphError(
            "this layout has tokens of one prompt and no roles of tokens; save the circuit as .json, .graphml or .dot"
        )
    if not 0 <= prompt.probability <= 1:
        raise GraphError(f"the answer's probability is {prompt.probability}; expected a number from 0 to 1")
    document: dict[str, Any] = to_document(circuit)
    drawn = _Drawn(circuit, prompt)
    nodes = [drawn.node(record) for record in document["nodes"]]
    ids = {record["id"]: node["node_id"] for record, node in zip(document["nodes"], nodes, strict=True)}
    whole = {key: value for key, value in document.items() if key not in ("nodes", "edges")}
    known = document["graph"]["metadata"]
    generator = {"name": "transformer-circuits", "version": importlib.metadata.version("transformer-circuits")}
    info = {"description": _described(drawn, document), "generator": generator}
    metadata = {
        "slug": slug,
        "scan": scan,
        "prompt_tokens": list(prompt.tokens),
        "prompt": prompt.text,
        "schema_version": 1,
        "info": info,
        "generation_settings": {key: known[key] for key in _SETTINGS if isinstance(known.get(key), str | int | float)},
        "circuit": {"format": FORMAT, "version": VERSION, **whole},
    }
    state = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    return {"metadata": metadata, "qParams": state, "nodes": nodes, "links": drawn.links(document, ids)}


def _described(drawn: _Drawn, document: Mapping[str, Any]) -> str:
    """What is drawn, and what of it is a choice."""
    nodes = [record for record in document["nodes"] if record["kind"] != "group"]
    loose = sum(not drawn.column(record)[1] for record in nodes)
    bare = sum("score" not in record and record["key"] != "group" for record in document["edges"])
    words = [
        "Nodes are whole parts of the model (attention heads, MLPs, single neurons), not features of transcoders. Links weigh "
        "what a search over many prompts scored their edges, not an attribution of this prompt; q, k and v are summed.",
        f"{loose} of {len(nodes)} nodes are not restricted to a position and stand at the last token.",
        *([f"{bare} of {len(drawn.circuit)} edges have no score and weigh 0."] if bare else []),
    ]
    return " ".join(words)


def hints(document: Mapping[str, Any]) -> list[str]:
    """What somebody who opens the file in the viewer should know beforehand, a line each."""
    layers = [int(node["layer"]) for node in document["nodes"] if node["layer"] != "E" and node["feature_type"] != "logit"]
    lines = [document["metadata"]["info"]["description"]]
    if not any(layers):
        lines.append("the viewer shows no graph whose highest layer below the logits is 0, as here")
    return lines


def to_text(document: Mapping[str, Any]) -> str:
    """The file's text: one node or link a line."""
    parts = []
    for key, value in document.items():
        lines = ",\n".join(f"  {_dump(one)}" for one in value) if isinstance(value, list) and value else ""
        parts.append(f" {json.dumps(key)}: " + (f"[\n{lines}\n ]" if lines else _dump(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def save(circuit: Circuit, path: str | Path, prompt: ShownPrompt, *, slug: str, scan: str) -> dict[str, Any]:
    """Write a circuit in Neuronpedia's layout, whole or not at all; gives what was written. Raises GraphError as
    `to_neuronpedia`, FileFormatError where the file cannot be written."""
    document = to_neuronpedia(circuit, prompt, slug=slug, scan=scan)
    write_whole(Path(path), to_text(document).encode())
    return document


def is_neuronpedia(value: object) -> bool:
    """Whether parsed JSON is an attribution graph."""
    return isinstance(value, Mapping) and {"metadata", "qParams", "nodes", "links"} <= set(value)


def from_neuronpedia(value: object) -> Circuit:
    """Read a circuit from the plain values of an attribution graph that `to_neuronpedia` made. Raises GraphError for one of
    another program, whose nodes are features of transcoders, and for parts that are missing or do not fit each other."""
    whole = value if isinstance(value, Mapping) else {}
    metadata = whole.get("metadata")
    about = metadata.get("circuit") if isinstance(metadata, Mapping) else None
    if not isinstance(about, Mapping) or about.get("format") != FORMAT:
        raise GraphError(
            "an attribution graph of features, not of heads, MLPs and neurons: circuits features graph --open reads it"
        )
    if wrong := wrong_version(FORMAT, about.get("version")):
        raise GraphError(f"metadata.circuit: {wrong}")
    nodes = [_record(one, "nodes") for one in _list(whole.get("nodes"), "nodes")]
    edges: list[object] = []
    for one in _list(whole.get("links"), "links"):
        edges += _list(_record(one, "links"), "a link's circuit")
    top = {key: about[key] for key in about if key not in ("format", "version")}
    circuit = from_document({**top, "nodes": nodes, "edges": edges})
    _check_weights(whole["links"])
    return circuit


def _check_weights(links: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a link that weighs other than its edges' scores: one of the two has been changed since."""
    for link in links:
        records, weight = link["circuit"], link.get("weight")
        scored = math.fsum(record.get("score") or 0.0 for record in records)
        if all(record.get("key") != "group" for record in records) and weight != scored:
            ends = f"from {shown(link.get('source'))} to {shown(link.get('target'))}"
            raise GraphError(f"the link {ends} weighs {shown(weight)}; its edges score {scored:.6g}")


def _list(value: object, where: str) -> list:
    if not isinstance(value, list):
        raise GraphError(f"{where} is {shown(value)}; expected a list")
    return value


def _record(value: object, where: str) -> Any:
    if not isinstance(value, Mapping) or "circuit" not in value:
        raise GraphError(f"an entry of {where} lacks the key 'circuit'")
    return value["circuit"]
