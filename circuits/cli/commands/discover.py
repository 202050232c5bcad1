"""`circuits discover`: from prompts to a judged circuit, its files and its report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import typer

from circuits.cli.asked import Asked, check_at_least, judged, listed, named, standing
from circuits.cli.measured import naming_options, paired, save_figure
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import one_line, print_json, table
from circuits.errors import CircuitsError, GraphError
from circuits.files.plain import thaw
from circuits.graph import Circuit, Graph
from circuits.models import Model
from circuits.plots import circuit_figure, curve_figure, verdict_figure
from circuits.search.discover import Discovery, Method, discover, split
from circuits.tasks import PromptPairs, known_circuit, known_for, precision_recall
from circuits.tasks.metrics import Metric

FILES = {
    "circuit.json": "the circuit; circuits.Circuit.load reads it",
    "circuit.mib.json": "the same nodes and edges for MIB and EAP-IG",
    "circuit.graphml": "for Gephi, yEd, Cytoscape, networkx",
    "circuit.dot": "for Graphviz: dot -Tsvg",
    "scores.json": "the score of every edge; EdgeScores.load reads it",
    "edges.csv": "the circuit's edges with their scores",
    "tested.csv": "every edge that was patched exactly, confirmed or not",
    "verdict.json": "faithfulness, random circuits, completeness, minimality",
    "curve.json": "faithfulness of the strongest edges over sizes",
    "curve.csv": "the same as a table",
    "circuit.png": "the circuit, drawn by layer",
    "curve.png": "faithfulness over sizes, beside random circuits",
    "verdict.png": "the verdict, drawn",
}
"""What `circuits discover` writes, and what for; some with some options alone."""

_METHODS: dict[str, Method] = {method: method for method in get_args(Method)}
_ESTIMATES = ("eap", "eap-ig", "eap-ig-activations", "relp")
_PATHS = ("eap-ig", "eap-ig-activations")
_LEVELS = ("heads", "neurons")
_MOST_ROWS = 15
_SIGNS = {
    "verify": "effect: share of the clean-corrupt gap that is lost when the edge carries its corrupt value, patched exactly, "
    "alone\nor without the nodes named; positive = the edge supports the metric",
    "acdc": "score: what cutting the edge would have cost (KL to the clean run, nats), whether it supports the metric or not",
    "prune": "score: chance that the edge's gate is open, 0 to 1, after training on KL to the clean run",
    "shrink": "score: rounds that the edge outlived, and its place in the last one; larger = kept longer",
}
_SIGN = "score: change of the metric when the edge alone carries its corrupt value; negative = the edge supports the metric"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How a circuit is searched for."""

    method: str
    level: str
    edges: int
    steps: int | None
    threshold: float | None
    verify: bool
    random_circuits: int

    def check(self, metric: str | None) -> None:
        """Raise CircuitsError where options are wrong or contradict each other; needs no model."""
        if self.method not in _METHODS:
            raise CircuitsError(f"unknown method {self.method!r}: there are {', '.join(_METHODS)}")
        if self.level not in _LEVELS:
            raise CircuitsError(f"unknown level {self.level!r}: expected {' or '.join(_LEVELS)}")
        check_at_least("--edges", self.edges, 1)
        check_at_least("--random-circuits", self.random_circuits, 0)
        if self.steps is not None:
            check_at_least("--steps", self.steps, 1)
            if self.method not in _PATHS:
                raise CircuitsError(f"--steps goes with --method {' or '.join(_PATHS)}, not with {self.method}")
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise CircuitsError(f"--threshold is {self.threshold:g}; expected nats above 0")
        if self.threshold is not None and self.method != "acdc":
            raise CircuitsError(f"--threshold goes with --method acdc, not with {self.method}: say how many --edges")
        if self.level == "neurons" and self.method not in ("eap", "eap-ig"):
            raise CircuitsError(f"--level neurons goes with --method eap or eap-ig, not with {self.method}")
        if self.level == "neurons" and self.verify:
            raise CircuitsError("--verify patches edges between heads and whole MLPs: leave out --level neurons")
        if self.verify and self.method not in _ESTIMATES:
            raise CircuitsError(
                f"--verify goes with the methods that estimate ({', '.join(_ESTIMATES)}), not with {self.method}"
            )
        if metric in ("kl", "rank", "accuracy"):
            why = "is made for the prompts it was asked on" if metric == "kl" else "has no gradient and moves by steps"
            raise CircuitsError(f"--metric {metric} {why}: search with logit_difference, log_probability or probability")

    @property
    def neurons(self) -> bool:
        """Whether single neurons stand in place of MLPs."""
        return self.level == "neurons"

    def run(self, model: Model, pairs: PromptPairs, metric: Metric, held_out: PromptPairs, **options: Any) -> Discovery:
        """Search on some pairs, judge on others."""
        how: dict[str, Any] = {name: getattr(self, name) for name in ("edges", "neurons", "threshold", "verify")}
        how |= {"steps": self.steps or 5, "random_circuits": self.random_circuits, "held_out": held_out}
        return discover(model, pairs, metric, method=_METHODS[self.method], **how, **options)

    def describe(self) -> str:
        """The method in words."""
        more = f" ({self.steps or 5} steps)" if self.method in _PATHS else ""
        more += f" (threshold {self.threshold:g})" if self.threshold is not None else ""
        more += " on KL to the clean run" if self.method in ("acdc", "prune") else ""
        return f"{self.method}{more}{', then exact patching' if self.verify else ''}"


def run(search: Search, asked: Asked, *, as_json: bool) -> None:
    """Search, judge, write the files, print the report."""
    search.check(asked.metric)
    asked.check(least=2)
    folder = asked.folder("discover")
    with staged(folder) as staging, ProgressBars() as progress, naming_options():
        model, pairs, metric = asked.prepare(progress)
        check_size(search.edges, model.graph(neurons=search.neurons))
        pairs, held_out = split(pairs, asked.seed)
        options = {"seed": asked.seed, "budget": asked.budget, "progress": progress}
        found = search.run(model, pairs, metric, held_out, **options)
        found = dataclasses.replace(found, circuit=_noted(found, search, asked))
        files = _write(found, staging, f"{asked.name} in {model.name}: circuit by {search.describe()}")
    for name in FILES.keys() - set(files):  # those of an earlier run would show something else
        (folder / name).unlink(missing_ok=True)
    about = _about(found, search, asked, model, metric, (len(pairs), len(held_out)))
    if as_json:
        print_json({**about, "files": {name: str(folder / name) for name in files}})
    else:
        typer.echo(_report(found, search, about, folder, files, _next(search, asked, folder)))


def check_size(edges: int, graph: Graph) -> None:
    """Raise CircuitsError for more edges than a graph has."""
    if edges > graph.edge_count:
        raise CircuitsError(f"--edges is {edges:,}; the graph has {graph.edge_count:,}")


def _noted(found: Discovery, search: Search, asked: Asked) -> Circuit:
    """The circuit, which also says what it is one of and what was made of it."""
    one = found.circuit
    details: Any = thaw(one.metadata)
    details |= {"task": asked.name, "source": asked.source, "search": search.describe(), "seed": asked.seed}
    details |= {"verdict": standing(found.verdict), "summary": found.verdict.summary}
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


def _write(found: Discovery, folder: Path, title: str) -> list[str]:
    """Write all files; returns their names."""
    circuit, verdict, curve = found.circuit, found.verdict, found.curve
    mib = [] if circuit.graph.neurons else ["circuit.mib.json"]
    for name in ("circuit.json", "circuit.graphml", "circuit.dot", *mib):
        circuit.save(folder / name)
    edge_table(found).to_csv(folder / "edges.csv", index=False)
    verdict.save(folder / "verdict.json")
    save_figure(verdict_figure(verdict), folder / "verdict.png")
    if found.scores is not None and not circuit.graph.neurons:
        found.scores.save(folder / "scores.json")
    if found.screening is not None:
        found.screening.to_dataframe().to_csv(folder / "tested.csv", index=False)
    if curve is not None:
        curve.save(folder / "curve.json")
        curve.to_dataframe().to_csv(folder / "curve.csv", index=False)
        save_figure(curve_figure({"strongest edges": curve}), folder / "curve.png")
    try:
        save_figure(circuit_figure(circuit, title=title), folder / "circuit.png")
    except GraphError as error:  # too large to be read: the files for graph viewers hold it all the same
        typer.echo(f"no circuit.png: {one_line(error)}", err=True)
    return [name for name in FILES if (folder / name).is_file()]


def _about(
    found: Discovery, search: Search, asked: Asked, model: Model, metric: Metric, prompts: tuple[int, int]
) -> dict[str, Any]:
    """All that is said, as plain values."""
    circuit, verdict, curve = found.circuit, found.verdict, found.curve
    about: dict[str, Any] = {"model": model.name, "task": asked.name, "source": asked.source, "metric": named(metric)}
    about |= {"method": search.method, "level": search.level, "verified": search.verify}
    about |= {"prompts_searched": prompts[0], "prompts_held_out": prompts[1], "standing": standing(verdict)}
    about |= {"summary": verdict.summary, "verdict": verdict.as_json()}
    about["cpr"], about["cmd"] = (None, None) if curve is None else (curve.cpr, curve.cmd)
    about["known"] = _known(circuit, asked.task)
    about["nodes"] = [str(node) for node in circuit.nodes]
    rows = edge_table(found).to_dict("records")
    about["edges"] = [{str(key): None if value != value else value for key, value in row.items()} for row in rows]
    return about


def _known(circuit: Circuit, task: str) -> dict[str, Any] | None:
    """How the circuit's heads agree with those that a paper found by hand in a model of this shape."""
    shape = circuit.graph if not circuit.graph.neurons else dataclasses.replace(circuit.graph, neurons=False)
    if not known_for(task, shape):
        return None
    known = known_circuit(task)
    precision, recall = precision_recall(circuit.nodes, known)
    heads = len({name for names in known.heads.values() for name in names})
    return {"reference": known.reference, "model": known.model, "heads": heads, "precision": precision, "recall": recall}


def _report(
    found: Discovery, search: Search, about: dict[str, Any], folder: Path, files: Sequence[str], steps: list[tuple[str, str]]
) -> str:
    what = "heads and neurons" if search.neurons else "heads and MLPs"
    heading = (
        f"{one_line(about['model'])}: {len(found.circuit):,} edges between {what} for {one_line(about['source'])}\n"
        f"by {search.describe()}; {about['prompts_searched']} prompts searched on, {about['prompts_held_out']} held out; "
        f"metric: {about['metric']}"
    )
    sign = _SIGNS.get("verify" if search.verify else search.method, _SIGN)
    parts = [heading, judged(found.verdict), f"{_strongest(about['edges'], verified=search.verify)}\n{sign}"]
    lines = []
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
    parts += ["\n".join(lines)] if lines else []
    return "\n\n".join([*parts, listed(folder, files, FILES), paired("Try next", steps)])


def _strongest(edges: Sequence[dict[str, Any]], *, verified: bool) -> str:
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
    more = f"\n... and {len(edges) - len(rows):,} more in edges.csv" if len(edges) > len(rows) else ""
    return table(header, rows, indent=0) + more


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"


def _with_interval(row: dict[str, Any]) -> str:
    return f"{row['effect']:+.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _next(search: Search, asked: Asked, folder: Path) -> list[tuple[str, str]]:
    """What to try after this."""
    circuit = str(folder / "circuit.json")
    steps = [(asked.command("evaluate", circuit, seed=asked.seed + 1), "the same circuit on other prompts")]
    if not search.verify and not search.neurons and search.method in _ESTIMATES:
        out = str(folder.with_name(f"{folder.name}-verified"))
        words = ["--method", search.method, "--edges", str(search.edges), "--verify", "--out", out]
        steps.append((asked.command("discover", *words), "which of these edges hold when they are patched exactly"))
    other = "exact" if search.method != "exact" else "eap-ig"
    out = folder.with_name(f"{folder.name}-{other}")
    words = ["--method", other, "--edges", str(search.edges), "--out", str(out)]
    steps.append((asked.command("discover", *words), "another method"))
    steps.append((one_line(f"circuits compare {circuit} {out / 'circuit.json'}"), "what the two share"))
    steps.append((one_line(f"circuits info {circuit}"), "the circuit again"))
    return steps
