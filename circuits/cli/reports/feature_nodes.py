"""Features as nodes, as they are written and printed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Part, Report, Table, records
from circuits.cli.reports.look import looked
from circuits.cli.reports.measured import interval
from circuits.cli.text import filled, one_line, printable
from circuits.concepts import AttributionGraph, FeatureCircuit, FeatureScores
from circuits.files.plain import thaw

_NOTE = (
    "share: how much of the way from the clean to the corrupt answer it goes by itself; measured: the same by a run; token: "
    "counted from the answer's, where it does most."
)


def write_scores(found: FeatureScores, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "features.csv", index=False)
    save_figure(found.plot(), folder / "features.png")


def scores_report(found: FeatureScores, top: int, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """The largest nodes, estimated and measured, and what each dictionary's come to."""
    about, prompts = found.metadata, len(found.clean)
    what = one_line(about.get("to") or "") or one_line(about.get("metric", "the metric")).replace("_", " ")
    heading = (
        f"{one_line(about.get('model', 'model'))}: features behind {what}, by {one_line(about.get('method', ''))}\n"
        f"{prompts:,} prompts ({one_line(about.get('source', ''))}): mean {float(found.clean.mean()):.4g} clean, "
        f"{float(found.corrupt.mean()):.4g} corrupt"
    )
    table = found.to_dataframe()
    measured = found.measured()
    rows = [
        (
            found.names[row],
            interval(one, prompts),
            "–" if real is None else f"{real.effect:+.3f}",
            f"{place:+d}" if place else "0",
        )
        for row, (one, real, place) in enumerate(zip(found.effects(), measured, table["position"], strict=True))
    ][:top]
    more = f"... and {len(found) - len(rows):,} more in features.csv" if len(found) > len(rows) else ""
    parts: list[Part] = [Table(("node", "share of the gap" + " [95 %]" * (prompts > 1), "measured", "token"), rows, below=more)]
    parts += [_wholes(found), filled(_NOTE)]
    if found.agreement is not None:
        parts.append(
            f"correlation of estimate and measure over {sum(one is not None for one in measured)} nodes: {found.agreement:.3f}"
        )
    look: Any = thaw(about.get("look"))
    if isinstance(look, dict):
        parts.append(looked(look))
    data = {key: about.get(key) for key in ("model", "metric", "to", "method", "steps", "source")}
    data |= {"prompts": prompts, "clean": float(found.clean.mean()), "corrupt": float(found.corrupt.mean())}
    data |= {"agreement": found.agreement, "nodes": records(table), "dictionaries": found.as_json()["taps"]}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _wholes(found: FeatureScores) -> Table:
    """What each dictionary's nodes come to beside what taking its whole place from the corrupt prompts does."""
    gap = float(found.gap.mean()) or float("nan")
    rows = [
        (
            f"{one.place} ({one_line(one.dictionary)})",
            f"{one.moved:,} of {one.features:,}",
            f"{one.by_features / gap:+.3f}",
            f"{one.by_error / gap:+.3f}",
            f"{one.estimated / gap:+.3f}",
            f"{one.exact / gap:+.3f}",
        )
        for one in found.taps
    ]
    return Table(("dictionary", "features that differ", "features", "error", "sum", "whole, measured"), rows)


def write_circuit(found: FeatureCircuit, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "feature-circuit.csv", index=False)
    save_figure(found.plot(), folder / "feature-circuit.png")


def circuit_report(found: FeatureCircuit, top: int, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """The nodes, and how much they keep by themselves, beside chance and over sizes."""
    about = found.metadata
    model, metric = (one_line(about.get(key, "")).replace("_", " ") for key in ("model", "metric"))
    heading = (
        f"{model}: a circuit of features for {metric}\n"
        f"chosen on {about.get('searched_on')} prompts, judged on {found.prompts} others "
        f"({one_line(about.get('source', ''))}), outside: {one_line(about.get('outside', ''))}"
    )
    nodes = [(name, f"{score:+.3f}") for name, score in zip(found.nodes, found.scores, strict=True)]
    more = f"... and {len(nodes) - top:,} more" if len(nodes) > top else ""
    sizes = [
        (
            f"{size:,}",
            interval(one, found.prompts),
            f"{found.curve_out[place].effect:+.3f}",
            f"{left.effect:+.3f}",
            _range(found, place),
        )
        for place, (size, one, left) in enumerate(zip(found.sizes, found.curve, found.curve_without, strict=True))
    ]
    parts: list[Part] = [Table(("node", "attribution"), nodes[:top], below=more)]
    parts += [
        Table(("nodes", "faithfulness [95 %]", "errors outside", "model without", "random"), sizes),
        filled(found.summary),
    ]
    data = {**found.as_json(), "summary": found.summary, "table": records(found.to_dataframe())}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _range(found: FeatureCircuit, place: int) -> str:
    """What random sets of one size keep."""
    drawn = found.random[:, place]
    return f"{float(drawn.min()):+.2f} to {float(drawn.max()):+.2f}" if len(drawn) else "–"


def write_graph(found: AttributionGraph, folder: Path) -> None:
    """Write the table, with all text in quotes, and the picture."""
    found.to_dataframe().to_csv(folder / "attribution-graph.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    save_figure(found.plot(), folder / "attribution-graph.png")


def graph_report(found: AttributionGraph, top: int, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """The nodes of most influence, and the next tokens."""
    ends = [node for node in found.nodes if node.kind == "logit"]
    inner = sorted((node for node in found.nodes if node.kind != "logit"), key=lambda node: -node.influence)
    rows = [
        (
            node.name,
            _token(found, node.position),
            f"{node.value:.3f}" if node.kind == "feature" else "–",
            f"{node.influence:.3f}",
            printable(node.label) if node.kind == "feature" else "",
        )
        for node in inner[:top]
    ]
    more = f"... and {len(inner) - top:,} more" if len(inner) > top else ""
    shown = "  ".join(f"{printable(repr(node.label))} {node.value:.3f}" for node in ends)
    parts: list[Part] = [
        Pairs("The next token", [("probabilities", shown)]),
        Table(("node", "at", "activation", "influence", ""), rows, below=more),
        filled(found.summary),
    ]
    heading = f"{one_line(found.model)}: what wrote what in {printable(repr(found.prompt))}"
    data = {**found.as_json(), "summary": found.summary}
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _token(found: AttributionGraph, position: int) -> str:
    return printable(repr(found.tokens[position])) if position < len(found.tokens) else str(position)
