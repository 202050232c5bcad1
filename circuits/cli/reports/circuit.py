"""What is in a circuit, for programs and for people."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

import circuits
from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table
from circuits.cli.text import one_line
from circuits.errors import GraphError
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.graph.contents import Element
from circuits.graph.document import shape_of
from circuits.graph.per_head import PerHead

_MOST_ROWS = 12


def contents(circuit: Circuit) -> dict[str, Any]:
    """A circuit as plain values: the graph's shape, counts, and all nodes and edges with what is known about them."""
    graph = circuit.graph
    return {
        "shape": shape_of(graph),
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


def circuit_report(circuit: Circuit, file: Path, counts: PerHead | None = None) -> Report:
    """What a circuit file holds: its graph, its summary, nodes by role, the strongest edges; `counts`: how many edges the file
    itself has, by query head, where that differs or is not sure."""
    graph = circuit.graph
    lines = [f"{one_line(file)}: {_counted(circuit)}", f"graph: {graph.describe().splitlines()[0]}"]
    counts = PerHead.of(circuit.graph, circuit.edges) if counts is None and graph.grouped and not graph.neurons else counts
    if counts is not None:
        hint = " (--key-value-heads says it: scores of a group's heads are then summed)" if counts.unsaid else ""
        lines.append(f"by query head: {counts.describe()}{hint}")
    for key in ("task", "model", "verdict", "summary", "created_by", "command"):
        if isinstance(circuit.metadata.get(key), str):
            lines.append(f"{key.replace('_', ' ')}: {one_line(circuit.metadata[key])}")
    roles: dict[str, list[str]] = {}
    for node in circuit.nodes:
        roles.setdefault(one_line(circuit.roles.get(node, "no role given")), []).append(str(node))
    lines += [f"{role}: {_listed(names)}" for role, names in roles.items()]
    scored = [(edge, score) for edge, score in circuit.edges.items() if score is not None]
    scored.sort(key=lambda pair: -abs(pair[1]))
    rows = [(str(edge), f"{score:+.4g}") for edge, score in scored[:_MOST_ROWS]]
    parts = [Table((f"strongest of {len(scored):,} scored edges", "score"), rows)] if scored else []
    data = {"file": str(file), **contents(circuit), "metadata": thaw(circuit.metadata)}
    data |= {"by_query_head": None if counts is None else dataclasses.asdict(counts)}
    return Report(heading="\n".join(lines), parts=parts, data=data)


def draw(circuit: Circuit, path: Path, *, title: str | None = None) -> None:
    """Draw a circuit by layer; one too large to be read is named on stderr, as the files for graph viewers hold it too."""
    try:
        save_figure(circuits.plots.circuit_figure(circuit, title=title), path)
    except GraphError as error:
        typer.echo(f"no {path.name}: {one_line(error)}", err=True)


def _counted(circuit: Circuit) -> str:
    whole = circuit.graph
    return f"{len(circuit.nodes):,} of {whole.node_count:,} nodes, {len(circuit.edges):,} of {whole.edge_count:,} edges"


def _listed(names: Sequence[str], most: int = 24) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
