"""`circuits induction`: the search, its files and its report."""

from pathlib import Path
from typing import Any

import typer
from matplotlib.figure import Figure

from circuits.cli.circuit_report import INDUCTION_FILES, contents, induction_report
from circuits.cli.loading import load
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import print_json
from circuits.errors import GraphError
from circuits.files.plain import thaw
from circuits.graph import Circuit, Node
from circuits.heads import HeadScores, score_heads
from circuits.models import Model
from circuits.plots import circuit_figure, head_scores_figure, patterns_figure
from circuits.search import find_induction_circuit
from circuits.tasks import repeated_tokens

_DOTS_PER_INCH = 150
_MOST_PATTERNS = 24
_SHOWN_SEGMENT = 10
"""Tokens in the segment whose patterns are drawn: few enough to read."""


def run(*, model: str, out: Path | None, sequences: int, seed: int, device: str, dtype: str, as_json: bool) -> None:
    """Find the circuit, write the files, print the report."""
    folder = default_directory(model) if out is None else out
    with staged(folder) as staging, ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        circuit = find_induction_circuit(loaded, sequences=sequences, seed=seed, progress=progress)
        progress("writing files", 0, 1)
        files = _write(loaded, circuit, staging, seed)
        progress("writing files", 1, 1)
    metadata: Any = thaw(circuit.metadata)
    found = {**metadata, **contents(circuit)}
    if as_json:
        print_json({**found, "files": {name: str(folder / name) for name in files}})
    else:
        typer.echo(induction_report(found, folder, files))


def _write(model: Model, circuit: Circuit, folder: Path, seed: int) -> list[str]:
    """Write every file of `INDUCTION_FILES`; returns their names."""
    for name in ("circuit.json", "circuit.mib.json", "circuit.graphml", "circuit.dot"):
        circuit.save(folder / name)
    scores = score_heads(model, seed=seed)
    scores.to_dataframe().to_csv(folder / "head_scores.csv", index=False)
    _save(head_scores_figure(scores), folder / "heads.png")
    _save(_patterns(model, circuit, scores, seed), folder / "patterns.png")
    try:
        _save(circuit_figure(circuit), folder / "circuit.png")
    except GraphError as error:  # too large to be read: the files for graph viewers hold it all the same
        typer.echo(f"no circuit.png: {error}", err=True)
    return [name for name in INDUCTION_FILES if (folder / name).is_file()]


def _patterns(model: Model, circuit: Circuit, scores: HeadScores, seed: int) -> Figure:
    """Patterns of the found heads on one repeated sequence; where none was found, of the nearest candidates."""
    roles = {str(node): role for node, role in circuit.roles.items()}
    heads: list[Node] = [node for node in circuit.nodes if node.kind == "head"]
    title = f"Where the heads of {model.name}'s induction circuit look"
    if not heads:
        heads = [head for head, _ in scores.top("prefix_matching", 4)]
        title = f"No induction circuit in {model.name}: the heads with most prefix matching"
    tokens, length = repeated_tokens(model, count=1, length=_SHOWN_SEGMENT, copies=2, seed=seed)
    run = model.run(tokens)
    start = tokens.ids.shape[1] - 2 * length
    labels = model.to_token_strings(tokens.ids[0])
    copies = [place for place in (start, start + length) if place > 0]
    shown = sorted(heads[:_MOST_PATTERNS])
    return patterns_figure(run, shown, labels, roles=roles, copies=copies, title=title)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DOTS_PER_INCH)
