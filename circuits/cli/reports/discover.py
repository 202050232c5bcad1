"""What is printed of a discovered circuit, and its files for others."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import circuits
from circuits.attribution.completeness import far, said_of
from circuits.cli.output import save_figure
from circuits.cli.prompts import Behaviour
from circuits.cli.questions.discover import COUNT, Search
from circuits.cli.report import Part, Report, records
from circuits.cli.reports.circuit import draw
from circuits.cli.reports.discover_parts import edge_table, heading, strongest
from circuits.cli.reports.look import looked
from circuits.cli.reports.verdict import again, standing, summed
from circuits.cli.settings import Setting
from circuits.cli.text import filled
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.search.discover import Discovery
from circuits.search.methods.attribution import EXACT
from circuits.search.methods.table import DEFAULT, OTHERWISE
from circuits.search.searching import EDGES
from circuits.tasks import known_circuit, known_for, precision_recall

ENOUGH, OVERSHOT = 0.8, 1.2
"""Faithfulness below which the report says what to try, and above which a circuit does more than the model."""
FITTED = 0.2
"""How much more a circuit keeps of the prompts searched on where it was fitted to these."""
SPREAD = 0.05
"""Share of all edges from which on a behaviour that takes so many is spread."""


def write(found: Discovery, folder: Path, title: str) -> None:
    """Write what is known of the judged circuit, for this package and others, and the pictures."""
    circuit, curve = found.circuit, found.curve
    mib = [] if circuit.graph.neurons or circuit.graph.roles else ["circuit.mib.json"]
    for name in ("circuit.json", "circuit.graphml", "circuit.dot", *mib):
        circuit.save(folder / name)
    save_figure(found.verdict.plot(), folder / "verdict.png")
    if curve is not None:
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
    told = heading(found.circuit, search, asked, measured)
    parts: list[Part] = [standing(found.verdict), summed(found.verdict), strongest(about["edges"], search, found.circuit)]
    lines = _beside(found, about, search)
    parts += ["\n".join(lines)] if lines else []
    parts += [looked(about["look"])] if "look" in about else []
    return Report(heading=told, parts=parts, data=about, files=files, next=_next(search, asked, setting))


def _about(found: Discovery, search: Search, asked: Behaviour) -> dict[str, Any]:
    """All that is said, as plain values."""
    circuit, verdict, curve = found.circuit, found.verdict, found.curve
    about: dict[str, Any] = {"task": asked.prompts.name, "source": asked.prompts.describe()}
    about["question"] = asked.prompts.question or None
    about |= {"method": circuit.metadata.get("method", search.method.name), "search": search.describe(circuit)}
    about |= {"level": search.level, "verified": search.verify}
    about |= {"standing": verdict.standing, "summary": verdict.summary, "verdict": verdict.as_json()}
    about["cpr"], about["cmd"] = (None, None) if curve is None else (curve.cpr, curve.cmd)
    about["known"] = _known(circuit, asked.prompts.task)
    about["nodes"] = [str(node) for node in circuit.nodes]
    about["edges"] = records(edge_table(circuit, found.scores, found.screening))
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
        of = f"{of} by {found.scores.metadata.get('method')}, unrefined" if search.method.proposes and found.scores else of
        lines.append(
            f"Over all sizes ({of}): CPR {about['cpr']:z.3f} (area under the curve, higher is better), CMD {about['cmd']:z.3f} "
            "(distance from 1, lower is better)"
        )
    if advice := spread(found, search, drawn=about["question"] is not None):
        lines.append(advice)
    if about["known"] is not None:
        known = about["known"]
        lines.append(
            f"Against the {known['heads']} heads of {known['reference']} ({known['model']}): precision "
            f"{known['precision']:z.2f}, recall {known['recall']:z.2f}"
        )
    return lines


def spread(found: Discovery, search: Search, *, drawn: bool = True) -> str:
    """What to try where little is kept, or more than the model does, and whether the curve says that the behaviour is spread;
    nothing else. `drawn`: whether more prompts can be drawn."""
    kept, curve, seen = found.verdict.faithfulness.effect, found.curve, found.verdict.searched_on
    if kept > OVERSHOT and search.by == "support":
        why = f"{kept:.2f} is more than the model does: edges against the metric were left out"
        return f"{why}; try --by size or --method {DEFAULT}"
    if kept >= ENOUGH:
        return ""
    first = [f"--method {DEFAULT}"] if not search.neurons and not search.roles and not search.method.proposes else []
    if seen is not None and seen.effect - kept > FITTED:
        more = f"--count {4 * found.verdict.prompts}" if drawn else "more prompts"
        return filled(
            f"Less than {ENOUGH:g} is kept of prompts that were not searched on ({seen.effect:z.2f} of those): try {more}"
        )
    if curve is None:
        return filled(f"Less than {ENOUGH:g} is kept: try {' or '.join([*first, f'--edges {2 * search.edges}'])}")
    rows = zip(curve.shares, curve.edges, curve.faithfulness, strict=True)
    share, edges = next(((share, edges) for share, edges, one in rows if one.effect >= ENOUGH), (1.0, curve.edges[-1]))
    more = [f"--edges {100 * share:g}%"] if edges > search.edges else []
    told = ", so the behaviour is spread over many" if share >= SPREAD else ""
    by = f" by {found.scores.metadata.get('method')}" if found.scores is not None else ""
    reached = f"the strongest edges{by} reach it with {edges:,} ({100 * share:g} % of all){told}"
    tries = f": try {' or '.join([*first, *more])}" if first or more else ""
    return filled(f"Less than {ENOUGH:g} is kept{tries}; {reached}")


def _known(circuit: Circuit, task: str | None) -> dict[str, Any] | None:
    """How the circuit's heads agree with those that a paper found by hand in a model of this shape."""
    shape = circuit.graph if not circuit.graph.neurons else dataclasses.replace(circuit.graph, neurons=False)
    if task is None or not known_for(task, shape):
        return None
    known = known_circuit(task)
    precision, recall = precision_recall(circuit.nodes, known)
    heads = len({name for names in known.heads.values() for name in names})
    return {"reference": known.reference, "model": known.model, "heads": heads, "precision": precision, "recall": recall}


def _next(search: Search, asked: Behaviour, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    folder, circuit, seed = setting.folder, str(setting.folder / "circuit.json"), asked.prompts.seed
    evaluate = setting.command("evaluate", circuit, *again(asked, seed=seed + 1, usual=1))
    whose = "other prompts" if asked.prompts.prompts is None else "all prompts of the file"
    steps = [(evaluate, f"the same circuit on {whose}")]
    if search.roles:
        words = ["--roles", "--edges", str(2 * search.edges), "--out", str(folder.with_name(f"{folder.name}-larger"))]
        steps.append((setting.command("discover", *words, *again(asked, seed=seed, count=COUNT)), "more edges"))
        return [*steps, (setting.command("info", circuit, model=False), "the circuit again")]
    if not search.verify and not search.neurons and search.method.estimates:
        out = str(folder.with_name(f"{folder.name}-verified"))
        size = ["--edges", str(min(search.edges, EDGES))]  # each is patched
        words = ["--method", search.method.name, *size, "--verify", "--out", out]
        told = "which of these edges hold when they are patched exactly"
        steps.append((setting.command("discover", *words, *again(asked, seed=seed, count=COUNT)), told))
    other = next(one for one in (DEFAULT, OTHERWISE) if one != search.method.name) if not search.neurons else EXACT.name
    out = folder.with_name(f"{folder.name}-{other}")
    words = ["--method", other, "--edges", str(search.edges), "--out", str(out)]
    steps.append((setting.command("discover", *words, *again(asked, seed=seed, count=COUNT)), "another method"))
    compare = setting.command("compare", circuit, str(out / "circuit.json"), model=False)
    steps.append((compare, "what the two share"))
    steps.append((setting.command("info", circuit, model=False), "the circuit again"))
    return steps
