"""`circuits induction`: the search for induction heads and the heads that feed them."""

from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.loading import bos_hint
from circuits.cli.options import Seed
from circuits.cli.settings import Setting, Work, with_setting

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
    from circuits.cli.reports.circuit import draw
    from circuits.cli.reports.induction import draw_patterns, induction_report

    with setting.parts(FILES) as work:
        model = setting.load(work.progress)
        parts = _Parts(work)
        circuit = circuits.find_induction_circuit(
            model, sequences=sequences, seed=seed, progress=work.progress, found=parts.add
        )
        work.progress("writing files", 0, 1)
        for name in ("circuit.mib.json", "circuit.graphml", "circuit.dot"):
            circuit.save(work.staging / name)
        draw_patterns(model, circuit, parts.scores, seed, work.staging / "patterns.png")
        draw(circuit, work.staging / "circuit.png")
        work.progress("writing files", 1, 1)
    setting.answer(induction_report(circuit, work.written, setting, hint=bos_hint(model)))


class _Parts:
    """Writes and prints each part of the search as it comes; `scores`: those of the heads, which come first."""

    scores: "circuits.heads.HeadScores"

    def __init__(self, work: Work) -> None:
        self.work = work

    def add(self, part: Any) -> None:
        """The scores of the heads, the circuit before it is judged, the judged one."""
        from circuits.cli.output import save_figure
        from circuits.cli.reports.induction import edge_table, head_table
        from circuits.cli.text import filled

        work = self.work
        if isinstance(part, circuits.heads.HeadScores):
            self.scores = part
            part.to_dataframe().to_csv(work.staging / "head_scores.csv", index=False)
            work.publish()
            work.say(head_table(part))
            save_figure(part.plot(), work.staging / "heads.png")
            work.publish()
        else:
            part.save(work.staging / "circuit.json")
            unjudged = part.metadata["verdict"] == "unjudged"
            work.publish(lacking="the verdict" if unjudged else "")
            if unjudged:
                work.say(filled(part.metadata["summary"]), edge_table(part))
