"""A discovered circuit as it is written and printed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import circuits
from circuits.attribution.completeness import far, said_of
from circuits.cli.output import save_figure
from circuits.cli.prompts import Behaviour
from circuits.cli.questions.discover import Search
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.reports.circuit import draw
from circuits.cli.reports.look import looked
from circuits.cli.reports.verdict import again, judged
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.search.discover import Discovery
from circuits.search.methods.attribution import EXACT
from circuits.search.methods.table import DEFAULT
from circuits.tasks import known_circuit, known_for, precision_recall

_MOST_ROWS = 15
_VERIFIED = (
    "effect: share of the clean-corrupt gap that is lost when the edge carries its corrupt value, patched exactly, alone\n"
    "or without the nodes named; positive = the edge supports the metric"
)


def noted(found: Discovery, search: Search, asked: Behaviour) -> Circuit:
    """The circuit, which also says what it is one of and what was made of it."""
    one = found.circuit
    details: Any = thaw(one.metadata)
    details |= {
        "task": asked.prompts.name,
        "source": asked.prompts.describe(),
        "search": search.describe(),
        "seed": asked.prompts.seed,
    }
    details |= {"verdict": found.verdict.standing, "summary": found.verdict.summary}
    known = {"positions": dict(one.positions), "evidence": {name: thaw(value) for name, value in one.evidence.items()}}
    return Circuit(one.graph, dict(one.edges), dict(one.nodes), roles=dict(one.roles), metadata=details, **known)


def edge_table(found: Discovery) -> pd.DataFrame:
    """The circuit's edges, strongest first, with what is known of each."""
    rows = [
        {"edge": str(edge), "writer": str(edge.writer), "reader": str(edge.target), "score": score}
        for edge, score in found.circuit.edges.items()
    ]
    edges = pd.DataFrame(rows).sort_values("score", key=lambda scores: -scores.abs(), kind="stable")
    if found.screening is not None:
        return edges.merge(found.screening.to_dataframe().drop(columns="confirmed"), on="edge", how="left")
    if found.scores is not None and not found.scores.errors.isnan().all():
        return edges.merge(found.scores.to_dataframe()[["edge", "error"]], on="edge", how="left")
    return edges


def write(found: Discovery, folder: Path, title: str) -> None:
    """Write all files."""
    circuit, verdict, curve = found.circuit, found.verdict, found.curve
    mib = [] if circuit.graph.neurons else ["circuit.mib.json"]
    for name in ("circuit.json", "circuit.graphml", "circuit.dot", *mib):
        circuit.save(folder / name)
    edge_table(found).to_csv(folder / "edges.csv", index=False)
    verdict.save(folder / "verdict.json")
    save_figure(verdict.plot(), folder / "verdict.png")
    if found.scores is not None and not circuit.graph.neurons:
        found.scores.save(folder / "scores.json")
    if found.screening is not None:
        found.screening.to_dataframe().to_csv(folder / "tested.csv", index=False)
    if curve is not None:
        curve.save(folder / "curve.json")
        curve.to_dataframe().to_csv(folder / "curve.csv", index=False)
        save_figure(circuits.plots.curve_figure({"strongest edges": curve}), folder / "curve.png")
    draw(circuit, folder / "circuit.png", title=title)


def discovery_report(
    found: Discovery,
    search: Search,
    asked: Behaviour,
    setting: Setting,
    measured: Mapping[str, Any],
    files: Mapping[str, str],
) -> Report:
    """What was found by which search and how it was judged; `measured`: the model's name, the metric's, and the numbers of
    prompts."""
    about = {**measured, **_about(found, search, asked)}
    what = "heads and neurons" if search.neurons else "heads and MLPs"
    heading = (
        f"{one_line(about['model'])}: {len(found.circuit):,} edges between {what} for {one_line(about['source'])}\n"
        f"by {search.describe()}; {about['prompts_searched']} prompts searched on, {about['prompts_held_out']} held out; "
        f"metric: {about['metric']}"
    )
    sign = _VERIFIED if search.verify else search.method.score
    parts: list[Part] = [judged(found.verdict), _strongest(about["edges"], sign, verified=search.verify)]
    lines = _beside(found, about, search)
    parts += ["\n".join(lines)] if lines else []
    parts += [looked(about["look"])] if "look" in about else []
    return Report(heading=heading, parts=parts, data=about, files=files, next=_next(search, asked, setting))


def _about(found: Discovery, search: Search, asked: Behaviour) -> dict[str, Any]:
    """All that is said, as plain values."""
    circuit, verdict, curve = found.circuit, found.verdict, found.curve
    about: dict[str, Any] = {"task": asked.prompts.name, "source": asked.prompts.describe()}
    about |= {"method": search.method.name, "level": search.level, "verified": search.verify}
    about |= {"standing": verdict.standing, "summary": verdict.summary, "verdict": verdict.as_json()}
    about["cpr"], about["cmd"] = (None, None) if curve is None else (curve.cpr, curve.cmd)
    about["known"] = _known(circuit, asked.prompts.task)
    about["nodes"] = [str(node) for node in circuit.nodes]
    about["edges"] = records(edge_table(found))
    about["completeness"] = None if found.scores is None else thaw(found.scores.metadata.get("completeness"))
    return about


def _beside(found: Discovery, about: Mapping[str, Any], search: Search) -> list[str]:
    """Lines about all sizes, and about the circuit that a paper published."""
    lines = []
    if complete := said_of(about["completeness"]):
        more = "; more --steps bring them nearer" if search.method.options.get("steps") and far(about["completeness"]) else ""
        lines.append(f"{complete[0].upper()}{complete[1:]}{more}")
    if found.curve is not None:
        of = "of the estimates, before verification" if search.verify else "of the strongest edges"
        lines.append(
            f"Over all sizes ({of}): CPR {about['cpr']:.3f} (area under the curve, higher is better), CMD {about['cmd']:.3f} "
            "(distance from 1, lower is better)"
        )
    if about["known"] is not None:
        known = about["known"]
        lines.append(
            f"Against the {known['heads']} heads of {known['reference']} ({known['model']}): precision "
            f"{known['precision']:.2f}, recall {known['recall']:.2f}"
        )
    return lines


def _known(circuit: Circuit, task: str | None) -> dict[str, Any] | None:
    """How the circuit's heads agree with those that a paper found by hand in a model of this shape."""
    shape = circuit.graph if not circuit.graph.neurons else dataclasses.replace(circuit.graph, neurons=False)
    if task is None or not known_for(task, shape):
        return None
    known = known_circuit(task)
    precision, recall = precision_recall(circuit.nodes, known)
    heads = len({name for names in known.heads.values() for name in names})
    return {"reference": known.reference, "model": known.model, "heads": heads, "precision": precision, "recall": recall}


def _strongest(edges: Sequence[dict[str, Any]], sign: str, *, verified: bool) -> Table:
    """The strongest edges as a table."""
    if verified:
        header = ("strongest edges", "estimate", "exact alone", "exact effect [95 % interval]", "without")
        rows = [
            (row["edge"], _signed(row["estimate"]), _signed(row["alone"]), _with_interval(row), row["without"] or "-")
            for row in edges[:_MOST_ROWS]
        ]
    else:
        error = any(row.get("error") is not None for row in edges)
        header = ("strongest edges", "score", *(["standard error"] if error else []))
        rows = [(row["edge"], _signed(row["score"]), *([f"{row['error']:.2g}"] if error else [])) for row in edges[:_MOST_ROWS]]
    more = [f"... and {len(edges) - len(rows):,} more in edges.csv"] if len(edges) > len(rows) else []
    return Table(header, rows, below="\n".join([*more, sign]))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"


def _with_interval(row: dict[str, Any]) -> str:
    return f"{row['effect']:+.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _next(search: Search, asked: Behaviour, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    folder, circuit, seed = setting.folder, str(setting.folder / "circuit.json"), asked.prompts.seed
    evaluate = setting.command("evaluate", circuit, *again(asked, seed=seed + 1, usual=1))
    steps = [(evaluate, "the same circuit on other prompts")]
    if not search.verify and not search.neurons and search.method.estimates:
        out = str(folder.with_name(f"{folder.name}-verified"))
        words = ["--method", search.method.name, "--edges", str(search.edges), "--verify", "--out", out]
        told = "which of these edges hold when they are patched exactly"
        steps.append((setting.command("discover", *words, *again(asked, seed=seed)), told))
    other = EXACT.name if search.method.name != EXACT.name else DEFAULT
    out = folder.with_name(f"{folder.name}-{other}")
    words = ["--method", other, "--edges", str(search.edges), "--out", str(out)]
    steps.append((setting.command("discover", *words, *again(asked, seed=seed)), "another method"))
    compare = setting.command("compare", circuit, str(out / "circuit.json"), model=False)
    steps.append((compare, "what the two share"))
    steps.append((setting.command("info", circuit, model=False), "the circuit again"))
    return steps
