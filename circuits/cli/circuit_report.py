"""What is in a circuit, as a mapping for programs and as text for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.text import filled, nats, one_line, table
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.graph.contents import Element
from circuits.graph.document import SHAPE

INDUCTION_FILES = {
    "circuit.json": "the circuit with all its evidence; circuits.Circuit.load reads it",
    "circuit.mib.json": "the same nodes and edges for MIB and EAP-IG",
    "circuit.graphml": "for Gephi, yEd, Cytoscape, networkx",
    "circuit.dot": "for Graphviz: dot -Tsvg",
    "head_scores.csv": "every head's scores",
    "heads.png": "every head's scores, as heatmaps",
    "patterns.png": "where the found heads look on a repeated sequence",
    "circuit.png": "the circuit, drawn by layer",
}
"""What `circuits induction` writes, and what for."""

_MOST_ROWS = 12
_KINDS = {
    "zero": "set to zero",
    "mean": "set to their mean",
    "zero_frozen": "zero, patterns frozen",
    "mean_frozen": "mean, patterns frozen",
}


def contents(circuit: Circuit) -> dict[str, Any]:
    """A circuit as plain values: the graph's shape, counts, and all nodes and edges with what is known about them."""
    graph = circuit.graph
    return {
        "shape": {name: getattr(graph, name) for name in SHAPE},
        "counts": {
            "nodes": len(circuit.nodes),
            "edges": len(circuit.edges),
            "graph_nodes": graph.node_count,
            "graph_edges": graph.edge_count,
        },
        "nodes": [_record(circuit, node, score) for node, score in circuit.nodes.items()],
        "edges": [_record(circuit, edge, score) for edge, score in circuit.edges.items()],
    }


def _record(circuit: Circuit, element: Element, score: float | None) -> dict[str, Any]:
    known = {
        "role": circuit.roles.get(element),
        "score": score,
        "positions": circuit.positions.get(element),
        "evidence": thaw(circuit.evidence.get(element)),
    }
    return {"name": str(element), **{key: value for key, value in known.items() if value is not None}}


def circuit_report(circuit: Circuit, file: Path) -> str:
    """What a circuit file holds: its graph, its summary, nodes by role, the strongest edges."""
    graph = circuit.graph
    lines = [f"{one_line(file)}: {_counted(circuit)}", f"graph: {graph.describe().splitlines()[0]}"]
    for key in ("task", "model", "verdict", "summary", "created_by"):
        if isinstance(circuit.metadata.get(key), str):
            lines.append(f"{key.replace('_', ' ')}: {one_line(circuit.metadata[key])}")
    roles: dict[str, list[str]] = {}
    for node in circuit.nodes:
        roles.setdefault(one_line(circuit.roles.get(node, "no role given")), []).append(str(node))
    lines += [f"{role}: {_listed(names)}" for role, names in roles.items()]
    scored = [(edge, score) for edge, score in circuit.edges.items() if score is not None]
    scored.sort(key=lambda pair: -abs(pair[1]))
    if scored:
        rows = [(str(edge), f"{score:+.4g}") for edge, score in scored[:_MOST_ROWS]]
        lines += ["", table((f"strongest of {len(scored):,} scored edges", "score"), rows, indent=0)]
    return "\n".join(lines)


def _counted(circuit: Circuit) -> str:
    whole = circuit.graph
    return f"{len(circuit.nodes):,} of {whole.node_count:,} nodes, {len(circuit.edges):,} of {whole.edge_count:,} edges"


def _listed(names: Sequence[str], most: int = 24) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def induction_report(found: Mapping[str, Any], folder: Path, files: Sequence[str]) -> str:
    """What `circuits induction` found, how sure it is, where the files are, and what to try next."""
    parts = [f"Induction circuit of {one_line(found['model'])}: {found['verdict']}", filled(found["summary"])]
    if found["verdict"] != "none":
        parts += [_heads(found, "induction", "prefix_matching"), _heads(found, "previous token", "previous_token")]
        parts.append(_composition(found))
    parts.append(_certainty(found))
    rows = [(name, INDUCTION_FILES[name]) for name in files]
    width = max(len(name) for name in files)
    parts.append("\n".join([f"Files in {one_line(folder)}", *(f"  {name.ljust(width)}   {what}" for name, what in rows)]))
    return "\n\n".join([*parts, _next_steps(found, folder)])


def _heads(found: Mapping[str, Any], role: str, score: str) -> str:
    known = {node["name"]: node["evidence"] for node in found["nodes"] if node.get("role") == role}
    rows = [
        (name, f"{about[score]:.2f}", f"{about['copying']:+.2f}", nats(about["ablation"]["zero"]))
        for name, about in sorted(known.items(), key=lambda item: -item[1][score])
    ]
    header = (f"{role.replace(' ', '-')} heads", score.replace("_", " "), "copying", "rise of loss without it (nats)")
    return _first(header, rows)


def _composition(found: Mapping[str, Any]) -> str:
    known = {edge["name"]: edge["evidence"] for edge in found["edges"] if "k_composition" in edge.get("evidence", {})}
    rows = [
        (name, f"{about['k_composition']:.3f}", nats(about["prefix_matching_drop"]))
        for name, about in sorted(known.items(), key=lambda item: -item[1]["prefix_matching_drop"]["effect"])
    ]
    return _first(("keys that read them", "K-composition", "drop of prefix matching without it"), rows)


def _first(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first rows of a table, and how many more there are."""
    more = f"\n... and {len(rows) - _MOST_ROWS} more in circuit.json" if len(rows) > _MOST_ROWS else ""
    return table(header, rows[:_MOST_ROWS], indent=0) + more


def _certainty(found: Mapping[str, Any]) -> str:
    loss = found["loss"]
    lines = [
        f"{'How sure' if 'set' in found else 'Measured'}: {found['sequences']} sequences of {found['length']} random tokens "
        "said twice; in brackets, 95 % intervals",
        f"  loss on the first copy {loss['first_copy']:.2f} nats, on the second {loss['second_copy']:.2f}",
    ]
    if "set" in found:
        lines.append(f"  rise of the loss on the second copy without all {len(found['set']['heads'])} heads:")
        effects = found["set"]["ablation"]
        lines += [f"    {words.ljust(22)} {nats(effects[kind])}" for kind, words in _KINDS.items() if kind in effects]
        control = found["control"]
        null = {kind: control[kind] for kind in ("zero", "mean") if kind in control}
        if null:
            lines.append(f"  without as many other heads ({control['sets']} random sets of {control['size']}):")
        for kind, drawn in null.items():
            words = f"{drawn['mean']:+.2f} on average, {drawn['max']:+.2f} at most; p = {drawn['p_value']:.3f}"
            lines.append(f"    {_KINDS[kind].ljust(22)} {words}")
    if "edges_patched" in found:
        patched = found["edges_patched"]
        share = f"{patched['effect']:.0%} [{patched['low']:.0%}, {patched['high']:.0%}]"
        lines.append(f"  share of the logit difference that goes when the edges into keys are patched, all at once: {share}")
    return "\n".join(lines)


def _next_steps(found: Mapping[str, Any], folder: Path) -> str:
    model = one_line(found["model"])
    steps = [
        ("the circuit again, or in Python: circuits.Circuit.load(...)", f"circuits info {folder / 'circuit.json'}"),
        ("other head scores", f"circuits heads --model {model} --sort copying"),
    ]
    if found["verdict"] == "none":
        steps = [steps[1], ("a model that has induction heads", "circuits induction --model mini")]
    else:
        steps.append(("more sequences, narrower intervals", f"circuits induction --model {model} --sequences 128"))
    width = max(len(command) for _, command in steps)
    return "\n".join(["Try next", *(f"  {command.ljust(width)}   {what}" for what, command in steps)])
