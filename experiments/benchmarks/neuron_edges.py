"""Speed and memory of scoring every edge between neurons, against the matrix products that the scores are made of.

    python -m experiments.benchmarks.neuron_edges [--json FILE] [--threads 2] [--sample 3] [--prompts 8] [--tokens 16]

GPT-2-small's shape with random weights (nothing is downloaded), 20,000 edges kept. Reference of every row: for the 66 pairs
of layers the three products of neuron -> neuron blocks (`W_out W_in` and two over the rows), with nothing done to them.
`neurons`: these 622,854,144 edges alone, from gradients at hand. `edges`: all edges, of heads, input and logits too. `eap`
and `eap-ig`: the whole call, runs and gradients included. "of floor": share of the time that the products of all edges that
a row scores take at the rate of the reference. Ratios are medians over `--sample` rounds; the reference runs beside each
row. Memory: the peak of the first call above what the loaded model takes (Linux).
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.attribution import neurons
from circuits.attribution.blocks import Scorer
from circuits.attribution.needs import counting_rows
from circuits.attribution.rules import RULES
from circuits.attribution.topk import KEPT, Largest
from circuits.models import Model
from circuits.tasks import PromptPairs, metrics
from experiments.benchmarks.forward import random_gpt2
from experiments.benchmarks.measure import Row, seconds_of, show
from experiments.benchmarks.patching_work import random_pairs

CPU = torch.device("cpu")


def products(model: Model, rows: int) -> Callable[[], None]:
    """The three products of every pair of layers, into outputs allocated once."""
    width, d_model = model.d_mlp, model.d_model
    W_out, W_in = torch.randn(width, d_model), torch.randn(d_model, width)
    left, right = torch.randn(rows, width), torch.randn(rows, width)
    first, second, third = (torch.empty(width, width) for _ in range(3))

    def run() -> None:
        for _ in range(model.n_layers * (model.n_layers - 1) // 2):
            torch.mm(W_out, W_in, out=first)
            torch.mm(left.T, right, out=second)
            torch.mm(right.T, left, out=third)

    return run


def operations(model: Model, rows: int, steps: int = 1, *, heads: bool = True) -> float:
    """Multiplications and additions of the products for all edges: of a block of coordinates the weights' and the changes
    with the slopes, of its writers and readers those with the norm. `heads`: of heads too."""
    d_head, pairs = model.d_head, model.n_layers * (model.n_layers - 1) // 2
    attention, slots = model.n_heads * d_head, (model.n_heads + 2 * model.n_key_value_heads) * d_head
    kinds = [(pairs, model.d_mlp, 1, model.d_mlp, 1)]
    if heads:
        kinds += [(pairs, model.d_mlp, 1, slots, d_head), (pairs, attention, d_head, slots, d_head)]
        kinds += [(pairs + model.n_layers, attention, d_head, model.d_mlp, 1)]
    return sum(
        2.0 * count * (u * v * (model.d_model + rows) + u // group * (v // read) * rows * steps)
        for count, u, group, v, read in kinds
    )


class Stream:
    """Gradients at hand, and the edges scored from them."""

    def __init__(self, model: Model, pairs: PromptPairs) -> None:
        self.model, graph = model, model.graph(neurons=True)
        self.band = range(model.n_layers)
        job = (model, pairs, metrics.logit_difference, RULES["eap"], 1, self.band, [len(pairs)], model.dtype)
        self.factors, self.graph = neurons._gather(*job), graph

    def between_neurons(self) -> None:
        """Neuron -> neuron edges alone."""
        scorer = Scorer(Largest(KEPT, self.graph), self.model.dtype, CPU)
        for layer in self.band:
            for readers in neurons._neurons(self.model, self.factors, layer, self.model.dtype):
                for writers in neurons._writers(self.model, self.factors, layer, self.model.dtype):
                    if writers.W is not None and writers.width == 1:
                        scorer.add(writers, readers)
        scorer.largest.found()

    def all(self) -> None:
        """Every edge but those to the logits."""
        scorer = Scorer(Largest(KEPT, self.graph), self.model.dtype, CPU)
        for layer in self.band:
            neurons._into_layer(scorer, self.model, self.factors, layer, self.model.dtype)
        scorer.largest.found()


def status(name: str) -> int | None:
    """A figure of this process in bytes, such as VmRSS; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def peak_of(function: Callable[[], object]) -> int | None:
    """Bytes that the process holds at most while a function runs, above what it held before."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError:
        return None
    before = status("VmRSS")
    function()
    after = status("VmHWM")
    return None if before is None or after is None else after - before


@dataclasses.dataclass
class Job:
    """A row in the making: ours, the operations it cannot avoid, and seconds of ours and of the reference by round."""

    name: str
    ours: Callable[[], object]
    floor: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    reference: list[float] = dataclasses.field(default_factory=list)

    def row(self, reference_operations: float) -> Row:
        """The medians."""
        ratio = statistics.median(b / a for a, b in zip(self.seconds, self.reference, strict=True))
        seconds, reference = statistics.median(self.seconds), statistics.median(self.reference)
        return Row(self.name, seconds, reference, ratio, ratio * self.floor / reference_operations)


def measure(model: Model, pairs: PromptPairs, rounds: int) -> tuple[list[Row], int | None]:
    """All rows, and the peak memory of a whole call by integrated gradients."""

    def whole(method: str) -> Callable[[], object]:
        return lambda: neurons.attribute_neuron_edges(model, pairs, metrics.logit_difference, method=method)

    peak = peak_of(whole("eap-ig"))
    rows, stream = int(counting_rows(model, pairs).sum()), Stream(model, pairs)
    reference, every = products(model, rows), operations(model, rows)
    jobs = [
        Job("neurons", stream.between_neurons, operations(model, rows, heads=False)),
        Job("edges", stream.all, every),
        Job("eap", whole("eap"), every),
        Job("eap-ig", whole("eap-ig"), operations(model, rows, 5)),
    ]
    reference()
    for _ in range(rounds):
        before = seconds_of(reference, CPU)
        for job in jobs:
            job.seconds.append(seconds_of(job.ours, CPU))
            after = seconds_of(reference, CPU)
            job.reference.append((before + after) / 2)
            before = after
    return [job.row(operations(model, rows, heads=False)) for job in jobs], peak


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sample", type=int, default=3, help="rounds that are timed")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    _, model = random_gpt2(CPU, torch.float32)
    pairs = random_pairs(model, options.prompts, options.tokens, 0)
    rows, peak = measure(model, pairs, options.sample)
    graph = model.graph(neurons=True)
    heading = f"GPT-2 small's shape, random weights, {options.prompts} × {options.tokens} tokens, {options.threads} threads"
    show(rows, as_json=False, heading=heading + "; reference: three products a pair of layers")
    shown = "unknown" if peak is None else f"{peak / 2**20:,.0f} MiB"
    print(f"{graph.edge_count:,} edges, {graph.count('neuron', 'neuron'):,} of them between neurons; peak memory {shown}")
    print(", ".join(f"{row.name}: {1 / row.ratio:.2f} times the products" for row in rows))
    if options.json:
        figures = {"edges": graph.edge_count, "peak_bytes": peak, **{row.name: row.as_json() for row in rows}}
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
