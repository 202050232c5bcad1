"""`circuits induction`: the search for induction heads and the heads that feed them."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.options import Seed
from circuits.cli.report import written
from circuits.cli.settings import Setting, bos_hint, with_setting

FILES = {
    "circuit.json": "the circuit with all its evidence; circuits.Circuit.load reads it",
    "circuit.mib.json": "the same nodes and edges for MIB and EAP-IG",
    "circuit.graphml": "for Gephi, yEd, Cytoscape, networkx",
    "circuit.dot": "for Graphviz: dot -Tsvg",
    "head_scores.csv": "every head's scores",
    "heads.png": "every head's scores, as heatmaps",
    "patterns.png": "where the found heads look on a repeated sequence",
    "circuit.png": "the circuit, drawn by layer",
}
"""What `circuits induction` writes, and what for."""


@app.command()
@with_setting("induction")
def induction(
    sequences: Annotated[int, typer.Option(min=2, max=100_000, help="Random sequences that effects are measured on.")] = 32,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Find a model's induction heads and the heads that feed them.

    Induction heads continue a repeated text: at the second A of A B C A they attend to B and predict it. They need
    previous-token heads that tell B's position what stood before it. This command finds both kinds, measures by ablation on
    repeated random tokens that they matter, and writes the circuit as files and pictures.

    \b
    Examples:
      circuits induction
      circuits induction --model gpt2 --sequences 64
      circuits induction --model path/to/checkpoint --out results --json
    """
    run(setting, sequences, seed)


def run(setting: Setting, sequences: int, seed: int) -> None:
    """Find the circuit, write the files, print the report."""
    from circuits.cli.reports.induction import induction_report

    with setting.work(replacing=list(FILES)) as (staging, progress):
        model = setting.load(progress)
        circuit = circuits.find_induction_circuit(model, sequences=sequences, seed=seed, progress=progress)
        progress("writing files", 0, 1)
        _write(model, circuit, staging, seed)
        progress("writing files", 1, 1)
        files = written(staging, FILES)
    setting.answer(induction_report(circuit, files, setting, hint=bos_hint(model)))


def _write(model: "circuits.Model", circuit: "circuits.Circuit", staging: Path, seed: int) -> None:
    """Write every file of `FILES`."""
    from circuits.cli.output import save_figure
    from circuits.cli.reports.circuit import draw
    from circuits.cli.reports.induction import draw_patterns

    for name in ("circuit.json", "circuit.mib.json", "circuit.graphml", "circuit.dot"):
        circuit.save(staging / name)
    scores = circuits.score_heads(model, seed=seed)
    scores.to_dataframe().to_csv(staging / "head_scores.csv", index=False)
    save_figure(scores.plot(), staging / "heads.png")
    draw_patterns(model, circuit, scores, seed, staging / "patterns.png")
    draw(circuit, staging / "circuit.png")
