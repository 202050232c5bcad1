"""`circuits recall`: the search for a factual-recall circuit, its files and its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from circuits.cli.circuit_report import contents
from circuits.cli.loading import load
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import filled, one_line, print_json, table
from circuits.errors import CircuitsError, GraphError
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.plots import circuit_figure
from circuits.search import find_factual_recall_circuit
from circuits.tasks import fact_pairs, mini_facts
from circuits.tasks.sources.readers import read_facts

FILES = {
    "circuit.json": "the circuit with all its evidence; circuits.Circuit.load reads it",
    "circuit.graphml": "for Gephi, yEd, Cytoscape, networkx",
    "circuit.dot": "for Graphviz: dot -Tsvg",
    "sites.csv": "what the clean residual stream brings back, by position and layer",
    "circuit.png": "the circuit, drawn by layer",
}
_MOST_ROWS = 20


def run(
    *,
    model: str,
    facts: Path | None,
    count: int,
    min_effect: float,
    seed: int,
    memory: int,
    out: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Find the circuit, write the files, print the report."""
    asked = mini_facts() if facts is None else read_facts(facts)
    folder = Path("out") / f"recall-{default_directory(model).name.removeprefix('induction-')}" if out is None else out
    with staged(folder) as staging, ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        pairs = fact_pairs(loaded, asked, count=count, seed=seed)
        options: dict[str, Any] = {"min_effect": min_effect, "seed": seed, "budget": memory * 2**20}
        circuit = find_factual_recall_circuit(loaded, pairs, progress=progress, **options)
        files = _write(circuit, staging)
    if as_json:
        metadata: Any = thaw(circuit.metadata)
        print_json({**metadata, **contents(circuit), "files": {name: str(folder / name) for name in files}})
    else:
        typer.echo(report(circuit, folder, files))


def _write(circuit: Circuit, folder: Path) -> list[str]:
    for name in ("circuit.json", "circuit.graphml", "circuit.dot"):
        circuit.save(folder / name)
    sites: Any = circuit.metadata["sites"]
    rows = [{"position": name, "layer": i, **e} for name, effects in sites.items() for i, e in enumerate(effects)]
    pd.DataFrame(rows).to_csv(folder / "sites.csv", index=False)
    try:
        circuit_figure(circuit).savefig(folder / "circuit.png", dpi=150)
    except GraphError as error:  # too large to be read: the files for graph viewers hold it all the same
        typer.echo(f"no circuit.png: {error}", err=True)
    return [name for name in FILES if (folder / name).is_file()]


def report(circuit: Circuit, folder: Path, files: Sequence[str]) -> str:
    """What was found, how sure it is, where the files are and what to try next."""
    about: Any = circuit.metadata
    parts = [f"Recall circuit of {one_line(about['model'])}: {about['verdict']}", "", filled(about["summary"]), ""]
    parts += ["Where the fact is (share of the gap that the clean residual stream brings back)", _sites(about["sites"]), ""]
    if circuit:
        parts += ["Nodes (what noising one alone costs, on the prompts where it matters)", _nodes(circuit), ""]
        parts += ["How sure", *_control(about), ""]
    parts += [f"Files in {folder}", *(f"  {name:<17} {FILES[name]}" for name in files), ""]
    parts += ["Try next", f"  circuits info {folder / 'circuit.json'}"]
    parts += [f"  circuits recall --model {about['model']} --min-effect {about['min_effect'] / 2:g}   more nodes and edges"]
    return "\n".join(parts)


def _sites(sites: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    header = ["before layer", *(str(layer) for layer in range(len(next(iter(sites.values())))))]
    header[-1] = "end"
    return table(header, [[name, *(f"{effect['effect']:.2f}" for effect in effects)] for name, effects in sites.items()])


def _nodes(circuit: Circuit) -> str:
    rows = []
    ordered = sorted((node for node in circuit.nodes if node in circuit.roles), key=lambda node: -(circuit.nodes[node] or 0.0))
    for node in ordered[:_MOST_ROWS]:
        claim: Any = circuit.evidence[node]["patched"]
        sure = f"[{claim['low']:.2f}, {claim['high']:.2f}]" if claim["prompts"] > 1 else "(no interval)"
        effect = f"{claim['effect']:.2f} {sure}"
        rows.append([str(node), circuit.roles[node], effect, str(claim["prompts"])])
    text = table(["node", "role", "effect", "prompts"], rows)
    more = len(ordered) - len(rows)
    return f"{text}\n  ... and {more} more in circuit.json" if more > 0 else text


def _control(about: Mapping[str, Any]) -> list[str]:
    whole, control = about["set"], about["control"]
    lines = [
        f"  {about['prompts']} pairs of facts; in brackets, 95 % intervals over prompts",
        f"  logit difference lost without all found nodes, set to their mean: {whole['effect']:.2f} "
        f"[{whole['low']:.2f}, {whole['high']:.2f}]",
    ]
    if "mean" in control:
        lines.append(
            f"  without {control['size']} other heads and neurons ({control['sets']} random sets): {control['mean']:.2f} on "
            f"average, {control['max']:.2f} at most; p = {control['p_value']:.3f}"
        )
    return lines


def check_effect(value: float) -> float:
    """A share of the gap. Raises CircuitsError for one that is not above 0."""
    if not 0 < value < float("inf"):
        raise CircuitsError(f"--min-effect is {value}; expected a share of the gap above 0, such as 0.03")
    return value
