"""Speed of the search for logical forms, all candidates of a step in one product, against one formula at a time.

    python experiments/benchmarks/forms.py [--json] [--tokens 10000] [--concepts 500] [--neurons 100] [--length 5]

Random concepts, from rare to frequent as properties of words are; half of the neurons are active where a random form of
three concepts holds and at some other tokens, half at random tokens; all at `--share` of the tokens. Reference: every
candidate's mask and its intersection over union in numpy, one after the other, as published code has it (forms that were kept
before are not joined anew, which saves it time). It is timed on a few neurons of either kind and scaled to all; forms and IoU
must be equal.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.concepts.forms.beam import Best, best_forms
from circuits.concepts.forms.formulas import Form
from experiments.benchmarks.measure import Row, seconds_of, show
from tests.concepts.plain_search import plain_search

CPU = torch.device("cpu")


def drawn(tokens: int, concepts: int, neurons: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks of neurons and of concepts."""
    made = np.random.default_rng(seed)
    often = 0.3 / np.arange(1, concepts + 1) ** 0.8
    masks = made.random((concepts, tokens)) < often[:, None]
    count, found = max(1, round(share * tokens)), np.zeros((neurons, tokens), dtype=bool)
    for row in range(neurons):
        first, second, third = made.choice(concepts, 3, replace=False)
        inside = np.flatnonzero((masks[first] & ~masks[second]) | masks[third]) if row % 2 else np.empty(0, dtype=int)
        chosen = made.permutation(inside)[: round(0.8 * count)]
        others = np.setdiff1d(made.permutation(tokens)[: 2 * count], chosen)
        found[row, [*chosen, *made.permutation(others)[: count - len(chosen)]]] = True
    return found, masks


def referred(found: Best, neurons: np.ndarray, concepts: np.ndarray, length: int, sample: int) -> float:
    """Seconds that the reference would take for all neurons. Exits where it finds another form or number."""
    rows = np.linspace(0, len(neurons) - 1, min(sample, len(neurons))).round().astype(int).tolist()

    def one_at_a_time() -> None:
        for row in rows:
            form, iou = plain_search(neurons[row], concepts, length=length)
            ours = found.forms[row], float(found.iou[row])
            if ours != (Form(form[0][1], form[1:]), iou):
                raise SystemExit(f"neuron {row}: one formula at a time finds {form} ({iou}), the product {ours}")

    return seconds_of(one_at_a_time, CPU) / len(rows) * len(neurons)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--concepts", type=int, default=500)
    parser.add_argument("--neurons", type=int, default=100)
    parser.add_argument("--length", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.005)
    parser.add_argument("--sample", type=int, default=4, help="neurons that the reference is timed on")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    neurons, concepts = drawn(options.tokens, options.concepts, options.neurons, options.share)
    given = torch.from_numpy(neurons), torch.from_numpy(concepts)
    best_forms(given[0][:2], given[1], length=options.length)
    kept: list[Best] = []
    seconds = seconds_of(lambda: kept.append(best_forms(*given, length=options.length)), CPU)
    reference = referred(kept[0], neurons, concepts, options.length, options.sample)
    row = Row("forms", seconds, reference, reference / seconds)
    heading = (
        f"{options.tokens:,} tokens, {options.concepts} concepts, forms of up to {options.length}, {options.neurons} neurons "
        f"active at {options.share:g} of the tokens, {options.threads} threads; reference: one formula at a time, on "
        f"{min(options.sample, options.neurons)} neurons"
    )
    show([row], as_json=options.json, heading=heading)


if __name__ == "__main__":
    main()
