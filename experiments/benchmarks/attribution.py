"""Speed of edge attribution and of running circuits, against plain forwards, the matrix products, and other tools.

    python experiments/benchmarks/attribution.py [--json] [--only eap] [--threads 2] [--device cuda]
    python experiments/benchmarks/attribution.py --autocircuit ENV/bin/python

GPT-2-small's shape with random weights (nothing is downloaded), 32,491 edges, 8 pairs of 16 tokens that differ in all of
them, logit difference. The ratio is reference ÷ ours: 0.25 means four times the reference.
`eap`, `eap_ig` (5 steps): every edge's score; reference: a plain forward of clean and corrupt prompts.
`circuit_sizes`: the ten sizes of MIB of an EAP-scored graph in one call; reference: a plain forward of the clean prompts.
`neuron_edges`: 622,854,144 edges between neurons, 20,000 kept; reference: the three matrix products of every pair of layers.
`acdc`: 2 layers of 8 heads, 257 edges; reference: 257 plain forwards of that model.
More is printed in the table than in the JSON object: the whole call for neurons, circuit sizes against both forwards,
TransformerLens' own tools (timed on one pair and scaled to the 8 that ours takes), and with --autocircuit AutoCircuit in an
environment of its own. Rows named after a tool have this tool as the reference.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.attribution import EdgeScores, attribute_edges
from circuits.attribution.needs import counting_rows
from circuits.graph import Circuit
from circuits.models import Model
from circuits.patching.subgraphs.subgraph import run_circuits
from circuits.search.judging.curves import MIB_SIZES
from circuits.tasks import PromptPairs, metrics
from experiments.benchmarks import acdc, neuron_edges
from experiments.benchmarks.attribution_work import AUTOCIRCUIT, autocircuit_rows, lens_rows
from experiments.benchmarks.forward import random_gpt2
from experiments.benchmarks.measure import Row, compare, show
from experiments.benchmarks.patching_work import random_pairs

NAMES = ("eap", "eap_ig", "neuron_edges", "circuit_sizes", "acdc")
ROUNDS = {"eap": 7, "eap_ig": 5, "circuit_sizes": 7}


def forwards(model: Model, pairs: PromptPairs, *, both: bool) -> Callable[[], None]:
    """A plain forward of the clean prompts, or of clean and corrupt ones, that keeps logits alone."""
    sides = (pairs.clean, pairs.corrupt) if both else (pairs.clean,)

    @torch.no_grad()
    def run() -> None:
        for side in sides:
            model.run(side, keep="logits")

    return run


def scored(model: Model, pairs: PromptPairs, method: str = "eap") -> EdgeScores:
    """Every edge's score; `method` is one of `attribute_edges`."""
    return attribute_edges(model, pairs, metrics.logit_difference, method=method, steps=5)  # type: ignore[arg-type]


def sized(scores: EdgeScores) -> list[Circuit]:
    """The strongest edges at each of MIB's sizes."""
    return [scores.top(max(1, round(share * len(scores)))) for share in MIB_SIZES]


def run_sizes(model: Model, pairs: PromptPairs, circuits: list[Circuit]) -> Tensor:
    """The metric of circuits of all sizes, base runs included."""
    return run_circuits(model, pairs, metrics.logit_difference, circuits)


def score_rows(model: Model, pairs: PromptPairs, wanted: set[str], *, more: bool) -> list[Row]:
    """The rows that are held against plain forwards. `more`: circuit sizes against both forwards too."""
    rows = []
    for name, method in (("eap", "eap"), ("eap_ig", "eap-ig")):
        if name in wanted:
            ours = lambda method=method: scored(model, pairs, method)  # noqa: E731
            reference = forwards(model, pairs, both=True)
            rows.append(compare(name, ours, reference, device=model.device, rounds=ROUNDS[name]))
    if "circuit_sizes" in wanted:
        circuits = sized(scored(model, pairs))
        for name, both in (("circuit_sizes", False), ("circuit_sizes, 2 forwards", True))[: 2 if more else 1]:
            ours = lambda: run_sizes(model, pairs, circuits)  # noqa: E731
            reference = forwards(model, pairs, both=both)
            rows.append(compare(name, ours, reference, device=model.device, rounds=ROUNDS["circuit_sizes"]))
    return rows


def neuron_rows(model: Model, pairs: PromptPairs, rounds: int, *, more: bool) -> list[Row]:
    """Edges between neurons from gradients at hand, and the whole call for all edges of the graph of neurons."""
    stream = neuron_edges.Stream(model, pairs)
    reference = neuron_edges.products(model, int(counting_rows(model, pairs).sum()))

    def whole() -> None:
        attribute_edges(model, pairs, metrics.logit_difference, method="eap", neurons=True)

    jobs = [("neuron_edges", stream.between_neurons), ("neuron_edges, whole call", whole)][: 2 if more else 1]
    return [compare(name, ours, reference, device=model.device, rounds=rounds) for name, ours in jobs]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object, of the five named rows")
    parser.add_argument("--only", choices=NAMES, help="one row alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of neuron_edges and acdc, which take longest")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocircuit", metavar="PYTHON", help="interpreter of an environment that has AutoCircuit")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    wanted: set[str] = {options.only} if options.only else set(NAMES)
    more = not options.json
    rows: list[Row] = []
    lines: list[str] = []
    if wanted - {"acdc"}:
        _, model = random_gpt2(device, torch.float32)
        pairs = random_pairs(model, 8, 16, 0)
        rows += score_rows(model, pairs, wanted, more=more)
        if "neuron_edges" in wanted:
            rows += neuron_rows(model, pairs, options.rounds, more=more)
        if more and options.only is None:
            found, said = lens_rows(model, pairs)
            rows, lines = rows + found, lines + said
        if more and options.autocircuit:
            rows += autocircuit_rows(options.autocircuit, model, pairs, options.threads)
    if "acdc" in wanted:
        rows.append(acdc.measure("acdc", 1000, 1e-3, 257, options.rounds)[0])
    heading = f"GPT-2 small's shape, random weights, 8 × 16 tokens, {options.device}, {options.threads} threads"
    show(rows, as_json=options.json, heading=heading)
    if more:
        print(", ".join(f"{row.name}: {1 / row.ratio:.2f} times the reference" for row in rows if row.ratio < 2))
        print("\n".join([*lines, *([] if options.autocircuit else [AUTOCIRCUIT])]))


if __name__ == "__main__":
    main()
