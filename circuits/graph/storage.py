"""Circuit files. A format is one line of FORMATS: a function that writes it, and where it is read, one that reads it.

`.json` is this package's own (versioned node-link JSON, everything kept), `.mib.json` is shared with MIB and EAP-IG,
`.graphml` and `.dot` are for other programs to draw and are never read. Neuronpedia's attribution graphs are read here too;
`circuits.graph.neuronpedia` writes them, since they are drawn over a prompt. A file appears whole or not at all.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from circuits.errors import FileFormatError, GraphError, NonFiniteError, shown
from circuits.files.origins import KEY, origin
from circuits.files.reading import LARGEST_FILE, VERSION, read_json, wrong_version
from circuits.files.writing import write_whole
from circuits.graph.circuit import Circuit
from circuits.graph.document import from_document, to_document, to_networkx
from circuits.graph.mib import from_mib, read_mib, to_mib
from circuits.graph.neuronpedia import SUFFIX, from_neuronpedia, is_neuronpedia
from circuits.graph.per_head import PerHead

FORMAT = Circuit.FORMAT


@dataclass(frozen=True)
class Format:
    """How one kind of file is named, written (to its whole text) and, where that is safe, read (from parsed JSON)."""

    suffix: str
    write: Callable[[Circuit], str]
    read: Callable[[object], Circuit] | None = None


def to_plain(circuit: Circuit) -> dict[str, object]:
    """The plain values of a circuit's file: the document, a format name and a version."""
    return {"format": FORMAT, "version": VERSION, **to_document(circuit)}


def to_json(circuit: Circuit) -> str:
    """Write a circuit as node-link JSON, one node or edge a line: the document, a format name and a version."""
    parts = []
    for key, value in to_plain(circuit).items():
        if key in ("nodes", "edges"):
            records = ",\n".join(f"  {_dump(record)}" for record in cast(list, value))
            parts.append(f' "{key}": [\n{records}\n ]' if records else f' "{key}": []')
        else:
            parts.append(f" {json.dumps(key)}: {_dump(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def from_json(value: object) -> Circuit:
    """Read a circuit from parsed node-link JSON; raises GraphError (NonFiniteError for scores)."""
    found = value.get("format") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or found != FORMAT:
        other = f"no circuit, but a file of format {shown(found)}" if isinstance(found, str) else "no circuit"
        raise GraphError(f"{other}: the key 'format' must say {FORMAT!r}")
    if wrong := wrong_version(FORMAT, value.get("version")):
        raise GraphError(wrong)
    for key in ("directed", "multigraph"):
        if key not in value:
            raise GraphError(f"lacks the key {key!r}")
    whole = value.get("graph")
    if not isinstance(whole, Mapping) or not isinstance(whole.get("counts"), Mapping):
        raise GraphError("graph lacks the key 'counts'")
    for key in ("nodes", "edges", "graph_nodes", "graph_edges"):
        if type(whole["counts"].get(key)) is not int:
            raise GraphError(f"counts has {key} {shown(whole['counts'].get(key))}; expected a whole number")
    return from_document({key: value[key] for key in value if key not in ("format", "version")})


def to_mib_json(circuit: Circuit) -> str:
    """Write a circuit as MIB / EAP-IG JSON; raises GraphError for what that format cannot say."""
    return _dump(to_mib(circuit)) + "\n"


def to_graphml(circuit: Circuit) -> str:
    """Write a circuit as GraphML, with plain attributes: lists, evidence and metadata become JSON text."""
    import networkx

    network = to_networkx(circuit)
    plain = networkx.MultiDiGraph()
    plain.graph.update(_attributes(network.graph))
    for name, attributes in network.nodes(data=True):
        plain.add_node(name, **_attributes(attributes))
    for source, target, key, attributes in network.edges(keys=True, data=True):
        name = f"{source}->{target}<{key}>"  # networkx writes an edge's key as its id, which must be unique in the file
        plain.add_edge(source, target, name, **_attributes({"slot": key, **attributes}))
    return "\n".join(networkx.generate_graphml(plain)) + "\n"


def _attributes(attributes: Mapping[str, object]) -> dict[str, str | int | float]:
    """Keep what GraphML can hold: no None, JSON text for lists and mappings, no characters that XML forbids."""
    found: dict[str, str | int | float] = {}
    for key, value in attributes.items():
        if isinstance(value, str):
            found[key] = "".join(char if _in_xml(char) else "\N{REPLACEMENT CHARACTER}" for char in value)
        elif isinstance(value, (int, float)):
            found[key] = value
        elif value is not None:
            found[key] = _dump(value)
    return found


def _in_xml(char: str) -> bool:
    return (char >= " " or char in "\t\n") and not "\ud800" <= char <= "\udfff" and char not in "\ufffe\uffff"


def to_dot(circuit: Circuit) -> str:
    """Write a circuit for Graphviz, from the input at the bottom to the logits at the top, a row a layer."""
    document = to_document(circuit)
    lines = ["digraph circuit {", "  rankdir=BT;", '  node [shape=box, style=rounded, fontname="Helvetica"];']
    rows: dict[tuple, list[str]] = {}
    for record in cast(list[dict], document["nodes"]):
        label = [record["id"], *([record["role"]] if "role" in record else []), *_number(record)]
        lines.append(f"  {_quoted(record['id'])} [label={_quoted(*label)}];")
        rows.setdefault((record.get("layer"), record["kind"]), []).append(_quoted(record["id"]))
    lines += [f"  {{ rank=same; {'; '.join(names)}; }}" for names in rows.values() if len(names) > 1]
    for record in cast(list[dict], document["edges"]):
        words = [*([] if record["key"] in ("in", "group") else [record["key"]]), *_number(record)]
        style = [f"label={_quoted(' '.join(words))}"] if words else []
        style += ["style=dotted"] if record["key"] == "group" else []
        ends = f"{_quoted(record['source'])} -> {_quoted(record['target'])}"
        lines.append(f"  {ends} [{', '.join(style)}];" if style else f"  {ends};")
    return "\n".join([*lines, "}"]) + "\n"


def _number(record: Mapping) -> list[str]:
    return [f"{record['score']:.4g}"] if "score" in record else []


def _quoted(*lines: str) -> str:
    """Quote text for DOT, one argument a line; what could end the quotes or start an escape is escaped."""
    shown_lines = []
    for line in lines:
        visible = "".join(char if char.isprintable() else " " for char in line)
        shown_lines.append(visible.replace("\\", "\\\\").replace('"', '\\"'))
    return '"' + "\\n".join(shown_lines) + '"'


FORMATS: Mapping[str, Format] = {
    "json": Format(".json", to_json, from_json),
    "mib": Format(".mib.json", to_mib_json, from_mib),
    "graphml": Format(".graphml", to_graphml),
    "dot": Format(".dot", to_dot),
}


def _by_suffix(path: Path) -> Format:
    fitting = [format for format in FORMATS.values() if path.name.lower().endswith(format.suffix)]
    if not fitting:
        known = ", ".join(format.suffix for format in FORMATS.values())
        raise FileFormatError(f"{path}: unknown kind of file; expected a name that ends in {known}")
    return max(fitting, key=lambda format: len(format.suffix))


def export(circuit: Circuit, path: str | Path, format: str | None = None) -> None:
    """Write a circuit to a file, in a format of FORMATS or by default in the one that the suffix names.

    Raises FileFormatError for an unknown format, what the format cannot say, and a place that cannot be written.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise FileFormatError(f"{path}: unknown format {shown(format)}; expected one of {', '.join(FORMATS)}")
    if format is None and path.name.lower().endswith(SUFFIX):
        raise FileFormatError(
            f"{path}: Neuronpedia draws a circuit over a prompt: circuits export --to neuronpedia --prompt TEXT writes it, and "
            "circuits.graph.neuronpedia.save"
        )
    try:
        text = (_by_suffix(path) if format is None else FORMATS[format]).write(_with_origin(circuit))
    except GraphError as error:
        raise FileFormatError(f"{path}: {error}") from None
    write_whole(path, text.encode("utf-8"))


def _with_origin(circuit: Circuit) -> Circuit:
    """The circuit, whose metadata also tell the command line that saves it, where it comes from no other."""
    line = origin()
    return circuit if not line or KEY in circuit.metadata else circuit.noted(line)


def load(
    path: str | Path, *, every_edge: bool = False, n_key_value_heads: int | None = None, max_bytes: int = LARGEST_FILE
) -> Circuit:
    """Read a circuit from JSON of this package or of MIB / EAP-IG, as `load_counted` does."""
    return load_counted(path, every_edge=every_edge, n_key_value_heads=n_key_value_heads, max_bytes=max_bytes)[0]


def load_counted(
    path: str | Path, *, every_edge: bool = False, n_key_value_heads: int | None = None, max_bytes: int = LARGEST_FILE
) -> tuple[Circuit, PerHead | None]:
    """Read a circuit from JSON of this package, of MIB / EAP-IG, or in Neuronpedia's layout as written here; the content tells
    which, whatever the name. With it, for a MIB file whose heads share keys, or that does not say, how many edges it has in the
    file, which counts by query head.

    `every_edge` takes every edge that a MIB file lists, also those it does not flag (files of scores flag none);
    `n_key_value_heads` says how many key-value heads the model of a MIB file has, which EAP-IG does not record.
    Raises FileFormatError, and nothing else, for a file that is missing, too large, damaged or no circuit.
    """
    path = Path(path)
    if _by_suffix(path).read is None:
        raise FileFormatError(f"{path}: {path.suffix} files are only written; load the .json file of the same circuit")
    value = read_json(path, max_bytes=max_bytes)
    try:
        if isinstance(value, Mapping) and "cfg" in value and "format" not in value:
            return read_mib(value, every_edge=every_edge, n_key_value_heads=n_key_value_heads)
        circuit = from_neuronpedia(value) if is_neuronpedia(value) else from_json(value)
    except (GraphError, NonFiniteError) as error:
        raise FileFormatError(f"{path}: {error}") from None
    if n_key_value_heads not in (None, circuit.graph.n_key_value_heads):
        raise FileFormatError(f"{path}: the circuit is one of {circuit.graph.n_key_value_heads} key-value heads a layer")
    return circuit, None


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False)
