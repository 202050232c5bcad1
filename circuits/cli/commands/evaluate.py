"""`circuits evaluate`: the verdict on a circuit of any origin, its files and its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from circuits.cli.asked import Asked, check_at_least, judged, listed, named, standing
from circuits.cli.measured import naming_options, paired, save_figure
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import one_line, print_json, table
from circuits.errors import CircuitsError, GraphError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.plots import verdict_figure
from circuits.search.judging.evaluate import evaluate
from circuits.search.judging.verdict import Verdict

FILES = {
    "verdict.json": "faithfulness, random circuits, completeness, minimality",
    "verdict.csv": "the same as a table",
    "verdict.png": "the same, drawn",
}
"""What `circuits evaluate` writes, and what for."""

_OUTSIDE: Mapping[str, OutsideKind] = {"corrupt": "corrupt", "mean": "mean", "zero": "zero"}
_WORDS = {
    "corrupt": "the corrupt prompt's values",
    "mean": "the corrupt prompts' mean",
    "zero": "nothing",
}
_MOST_ROWS = 12


def run(file: Path, asked: Asked, *, outside: str, minimality: bool, random_circuits: int, as_json: bool) -> None:
    """Judge the circuit, write the files, print the report."""
    if outside not in _OUTSIDE:
        raise CircuitsError(f"--outside is {outside!r}; expected {', '.join(_OUTSIDE)}")
    check_at_least("--random-circuits", random_circuits, 0)
    asked.check(least=1)
    circuit, folder = Circuit.load(file), asked.folder("evaluate")
    with staged(folder) as staging, ProgressBars() as progress, naming_options():
        model, pairs, metric = asked.prepare(progress)
        check_graph(circuit, model, file)
        options: dict[str, Any] = {"seed": asked.seed, "budget": asked.budget, "progress": progress}
        options |= {"outside": _OUTSIDE[outside], "minimality": minimality, "random_circuits": random_circuits}
        verdict = evaluate(model, circuit, pairs, metric, **options)
        verdict.save(staging / "verdict.json")
        verdict.to_dataframe().to_csv(staging / "verdict.csv", index=False)
        save_figure(verdict_figure(verdict), staging / "verdict.png")
    about = {"circuit": str(file), "model": model.name, "task": asked.name, "source": asked.source, "metric": named(metric)}
    about |= {"outside": outside, "standing": standing(verdict), "summary": verdict.summary}
    if as_json:
        files = {name: str(folder / name) for name in FILES}
        print_json({**about, "verdict": verdict.as_json(), "unneeded": list(verdict.unneeded()), "files": files})
    else:
        typer.echo(_report(verdict, about, folder, _next(file, asked, outside)))


def check_graph(circuit: Circuit, model: Model, file: Path) -> None:
    """Raise GraphError, in words about the file, for a circuit of another graph than the model's."""
    graph = model.graph(neurons=circuit.graph.neurons)
    if circuit.graph != graph:
        shapes = [one.describe().splitlines()[0] for one in (circuit.graph, graph)]
        raise GraphError(f"{file}: the circuit is one of another graph ({shapes[0]}) than that of {model.name} ({shapes[1]})")


def _report(verdict: Verdict, about: Mapping[str, Any], folder: Path, steps: list[tuple[str, str]]) -> str:
    heading = (
        f"{one_line(about['circuit'])} in {one_line(about['model'])}: {verdict.edges:,} edges between {verdict.nodes} nodes\n"
        f"{verdict.prompts:,} prompts ({one_line(about['source'])}); metric: {about['metric']}; edges outside carry "
        f"{_WORDS[about['outside']]}"
    )
    parts = [heading, judged(verdict)]
    if verdict.completeness:
        parts.append(_completeness(verdict))
    if verdict.minimality:
        parts.append(_minimality(verdict))
    return "\n\n".join([*parts, listed(folder, list(FILES), FILES), paired("Try next", steps)])


def _completeness(verdict: Verdict) -> str:
    """The sets that tell circuit and model apart most."""
    worst = sorted(verdict.completeness, key=lambda one: -one.gap)[:3]
    rows = [(_short(one.nodes), f"{one.circuit:.2f}", f"{one.model:.2f}", f"{one.gap:.2f}") for one in worst]
    return table(("complete? faithfulness without", "circuit", "model", "gap"), rows, indent=0)


def _minimality(verdict: Verdict) -> str:
    """What each node is worth, and those that nothing is lost without."""
    needs = sorted(verdict.minimality, key=lambda need: -abs(need.change))
    rows = [(need.node, f"{need.change:+.3f}", _short(need.without) or "-") for need in needs[:_MOST_ROWS]]
    header = ("minimal? most-needed nodes", "change of faithfulness without it", "after")
    more = f"\n... and {len(needs) - len(rows):,} more in verdict.csv" if len(needs) > len(rows) else ""
    spare = verdict.unneeded()
    words = f"not needed (changes below 0.01): {', '.join(spare)}" if spare else "every node is needed"
    return f"{table(header, rows, indent=0)}{more}\n{one_line(words)}"


def _short(nodes: tuple[str, ...]) -> str:
    text = " ".join(nodes)
    return text if len(text) <= 40 else f"{' '.join(nodes[:4])} ... ({len(nodes)} nodes)"


def _next(file: Path, asked: Asked, outside: str) -> list[tuple[str, str]]:
    """What to try after this."""
    other = "mean" if outside == "corrupt" else "corrupt"
    return [
        (asked.command("evaluate", str(file), "--outside", other), f"edges outside carry {_WORDS[other]}"),
        (asked.command("discover"), "a circuit of your own for this task"),
        (one_line(f"circuits info {file}"), "what is in the circuit"),
    ]
