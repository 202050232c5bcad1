"""`circuits discover`: from prompts to a judged circuit, its files and its report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from circuits.search.discover import Discovery, discover, split
from circuits.search.methods.attribution import EXACT
from circuits.search.methods.method import LEVELS, Level, Method
from circuits.search.methods.table import DEFAULT, METHODS, check_fit, find_method
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

_MOST_ROWS = 15
_VERIFIED = (
    "effect: share of the clean-corrupt gap that is lost when the edge carries its corrupt value, patched exactly, alone\n"
    "or without the nodes named; positive = the edge supports the metric"
)
_SPELLED = {
    "method": "--method",
    "verify": "--verify",
    "steps": "--steps",
    "threshold": "--threshold",
    "heads": "--level heads",
    "neurons": "--level neurons",
}
"""What the command line calls the options of a search."""
_VALUES = {"steps": "{} steps", "threshold": "threshold {:g}"}
"""How the values of a method's options read in a heading."""


def method_named(name: str | None) -> Method:
    """The search method of that name; without one, the default."""
    return find_method(DEFAULT if name is None else name)


def level_named(name: str) -> Level:
    """What edges run between. Raises CircuitsError for a name that is none."""
    for level in LEVELS:
        if name == level:
            return level
    raise CircuitsError(f"unknown level {name!r}: expected {' or '.join(LEVELS)}")


def method_lines() -> list[tuple[str, str]]:
    """Every search method and what it does and takes, in a line each, for the help."""
    lines = []
    for method in METHODS.values():
        takes = [_SPELLED[name] for name in method.options]
        takes += [_SPELLED[level] for level in method.levels if level != LEVELS[0]]
        takes += [_SPELLED["verify"]] if method.estimates else []
        default = " (the default)" if method.name == DEFAULT else ""
        lines.append((method.name, f"{method.summary}{default}{'; takes ' if takes else ''}{', '.join(takes)}"))
    return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How a circuit is searched for."""

    method: Method
    level: Level
    edges: int
    steps: int | None
    threshold: float | None
    verify: bool
    random_circuits: int

    def check(self, metric: str | None) -> None:
        """Raise CircuitsError where options are wrong or contradict each other; needs no model."""
        check_at_least("--edges", self.edges, 1)
        check_at_least("--random-circuits", self.random_circuits, 0)
        if self.steps is not None:
            check_at_least("--steps", self.steps, 1)
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise CircuitsError(f"--threshold is {self.threshold:g}; expected nats above 0")
        check_fit(self.method, level=self.level, verify=self.verify, given=self.given, spelled=_SPELLED)
        if metric in ("kl", "rank", "accuracy"):
            why = "is made for the prompts it was asked on" if metric == "kl" else "has no gradient and moves by steps"
            raise CircuitsError(f"--metric {metric} {why}: search with logit_difference, log_probability or probability")

    @property
    def given(self) -> dict[str, int | float | None]:
        """What methods take, where the command line says it."""
        return {"steps": self.steps, "threshold": self.threshold}

    @property
    def neurons(self) -> bool:
        """Whether single neurons stand in place of MLPs."""
        return self.level == "neurons"

    def run(self, model: Model, pairs: PromptPairs, metric: Metric, held_out: PromptPairs, **options: Any) -> Discovery:
        """Search on some pairs, judge on others."""
        how: dict[str, Any] = {name: getattr(self, name) for name in ("edges", "neurons", "verify", "random_circuits")}
        return discover(model, pairs, metric, method=self.method.name, held_out=held_out, **self.given, **how, **options)

    def describe(self) -> str:
        """The method in words."""
        values = {name: own if self.given[name] is None else self.given[name] for name, own in self.method.options.items()}
        more = "".join(f" ({_VALUES[name].format(value)})" for name, value in values.items() if value is not None)
        more += f" on {self.method.measures}" if self.method.measures else ""
        return f"{self.method.name}{more}{', then exact patching' if self.verify else ''}"


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
    about |= {"method": search.method.name, "level": search.level, "verified": search.verify}
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
    sign = _VERIFIED if search.verify else search.method.score
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
    if not search.verify and not search.neurons and search.method.estimates:
        out = str(folder.with_name(f"{folder.name}-verified"))
        words = ["--method", search.method.name, "--edges", str(search.edges), "--verify", "--out", out]
        steps.append((asked.command("discover", *words), "which of these edges hold when they are patched exactly"))
    other = EXACT.name if search.method.name != EXACT.name else DEFAULT
    out = folder.with_name(f"{folder.name}-{other}")
    words = ["--method", other, "--edges", str(search.edges), "--out", str(out)]
    steps.append((asked.command("discover", *words), "another method"))
    steps.append((one_line(f"circuits compare {circuit} {out / 'circuit.json'}"), "what the two share"))
    steps.append((one_line(f"circuits info {circuit}"), "the circuit again"))
    return steps
