"""The induction search in forwards: each stage beside one plain Hugging Face forward over its own tokens with all logits.

    python experiments/benchmarks/induction.py DIRECTORY [--sequences 32] [--json]

DIRECTORY holds a Hugging Face model. Loading is left out; both run in this process, with as many threads as torch takes.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.cli.text import table
from circuits.models import Model, load_model
from circuits.search import find_induction_circuit
from circuits.search.mechanisms.induction import SEGMENT
from circuits.tasks import repeated_tokens


@torch.no_grad()
def seconds_a_forward(directory: Path, model: Model, sequences: int) -> float:
    """Median of three, after one to warm up."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(directory, dtype=model.dtype).eval()
    ids, times = repeated_tokens(model, count=sequences, length=SEGMENT, copies=2)[0].ids, []
    for _ in range(4):
        start = time.perf_counter()
        assert network(ids).logits.shape[:2] == ids.shape
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def seconds_of_stages(model: Model, sequences: int) -> dict[str, float]:
    """Seconds of each stage, and until the first table and the unjudged circuit were there."""
    began, stages, parts = time.perf_counter(), dict[str, float](), list[float]()

    def reached(what: str, done: int, total: int) -> None:
        """When each stage began."""
        stages.setdefault(what, time.perf_counter() - began)

    find_induction_circuit(
        model, sequences=sequences, progress=reached, found=lambda part: parts.append(time.perf_counter() - began)
    )
    whole = time.perf_counter() - began
    ends = [*stages.values(), whole][1:]
    seconds = {what: end - start for (what, start), end in zip(stages.items(), ends, strict=True)}
    return {**seconds, "until the first table": parts[0], "until the unjudged circuit": parts[1], "whole": whole}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="a Hugging Face model")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    model = load_model(options.directory)
    unit = seconds_a_forward(options.directory, model, options.sequences)
    seconds = seconds_of_stages(model, options.sequences)
    found: dict[str, Any] = {"seconds a forward": unit, "forwards": {what: value / unit for what, value in seconds.items()}}
    if options.json:
        print(json.dumps(found))
        return
    print(f"one forward of {options.sequences} sequences: {unit:.2f} s, {torch.get_num_threads()} threads")
    print(table(("stage", "seconds", "forwards"), [(what, f"{s:.2f}", f"{s / unit:.2f}") for what, s in seconds.items()]))


if __name__ == "__main__":
    main()
