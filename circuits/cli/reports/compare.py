"""Two circuits side by side, as they are printed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.report import Part, Report, Table
from circuits.cli.text import filled, one_line
from circuits.graph import Circuit
from circuits.graph.per_head import PerHead
from circuits.search.judging.compare import Comparison

_MOST_ROWS, _MOST_NAMES = 20, 24
_TURNED = (
    "In A and B the sign of a score says opposite things (after attribution negative = the edge supports the metric, after "
    "other methods positive): B's signs are turned here."
)


def turned(circuit: Circuit) -> Circuit:
    """The same edges with the signs of their scores turned."""
    return Circuit(
        circuit.graph, {edge: None if score is None else -score for edge, score in circuit.edges.items()}, circuit.nodes
    )


def rows_of(found: Comparison, a: Circuit, b: Circuit) -> list[dict[str, Any]]:
    """The library's table with both scores: edges first, those that are strong in either circuit on top."""
    rows = found.to_dataframe().to_dict("records")
    largest = [max((abs(score) for score in one.edges.values() if score is not None), default=0.0) or 1.0 for one in (a, b)]
    for row in rows:
        sides = [one.edges if row["kind"] == "edge" else one.nodes for one in (a, b)]
        row["score_first"], row["score_second"] = (side.get(_key(a, row)) for side in sides)  # type: ignore[arg-type]

    def strength(row: dict[str, Any]) -> float:
        """A row's larger score, as a share of the largest of its circuit."""
        scores = (row["score_first"], row["score_second"])
        return max(abs(score or 0.0) / most for score, most in zip(scores, largest, strict=True))

    return sorted(rows, key=lambda row: (row["kind"] != "edge", -strength(row)))


def _key(circuit: Circuit, row: dict[str, Any]) -> Any:
    return circuit.graph.edge(row["name"]) if row["kind"] == "edge" else circuit.graph.node(row["name"])


def _about(found: Comparison, first: Path, second: Path) -> dict[str, Any]:
    edges = {"both": found.shared_edges, "first": found.only_first, "second": found.only_second}
    nodes = {"both": found.shared_nodes, "first": found.nodes_only_first, "second": found.nodes_only_second}
    return {
        "first": str(first),
        "second": str(second),
        "summary": found.summary,
        "edges": {where: len(there) for where, there in edges.items()},
        "nodes": {where: len(there) for where, there in nodes.items()},
        "edge_overlap": found.edge_overlap,
        "node_overlap": found.node_overlap,
        "rank_correlation": found.rank_correlation,
        "opposite": [str(edge) for edge in found.opposite],
    }


def comparison_report(
    found: Comparison,
    rows: Sequence[dict[str, Any]],
    named: tuple[Path, Path],
    files: Mapping[str, str],
    *,
    signs: int,
    counts: tuple[PerHead | None, PerHead | None] = (None, None),
) -> Report:
    """What two circuits share; `signs` below 0: those of B are turned; `counts`: the edges that the files themselves have,
    where they count by query head."""
    where = {"both": "both", "first": "A only", "second": "B only"}
    edges = [row for row in rows if row["kind"] == "edge"]
    cells = [
        (row["name"], where[row["where"]], _score(row["score_first"]), _score(row["score_second"]))
        for row in edges[:_MOST_ROWS]
    ]
    parts: list[Part] = [filled(found.summary), *([filled(_TURNED)] if signs < 0 else [])]
    hint = "" if files else " (--out writes all)"
    more = f"... and {len(edges) - _MOST_ROWS:,} more{hint}" if len(edges) > _MOST_ROWS else ""
    parts += [Table(("strongest edges", "in", "score in A", "score in B"), cells, below=more)] if cells else []
    nodes = {"both": found.shared_nodes, "A only": found.nodes_only_first, "B only": found.nodes_only_second}
    parts.append("\n".join(f"nodes in {name}: {_names([str(node) for node in there])}" for name, there in nodes.items()))
    data = {**_about(found, *named), "turned": signs < 0, "rows": rows}
    data |= {"by_query_head": [None if one is None else dataclasses.asdict(one) for one in counts]}
    heading = [f"{name}: {one_line(file)}" for name, file in zip("AB", named, strict=True)]
    heading += [f"{name} in its file: {one.describe()}" for name, one in zip("AB", counts, strict=True) if one is not None]
    return Report(heading="\n".join(heading), parts=parts, data=data, files=files)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) or "none") + more
