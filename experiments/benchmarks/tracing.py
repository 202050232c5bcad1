"""Causal tracing of one prompt on a real model, beside one plain Hugging Face forward a cell, and what the arithmetic allows.

    python experiments/benchmarks/tracing.py --model DIRECTORY [--prompt TEXT --subject WORDS] [--rounds 2] [--json]

DIRECTORY holds a Hugging Face model. Ours: `causal_trace` with all three kinds, ten draws of noise. Reference: one forward of
the prompt's ten corrupted rows with all logits, timed before, between and after the kinds, times the cells; it makes no change
in the rows, so that a loop over cells takes longer. "least": operations of the matrix products that every exact method has to
do from the two runs on, as a share of the reference's. "at most": the ratio if these were all, at the rate at which the
reference computes, and at that of a large product measured in the same run. Loading is left out; memory is the process's peak.
"""

import argparse
import functools
import json
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.cli.text import table
from circuits.models import Model, load_model
from circuits.patching import causal_trace
from circuits.patching.tracing.causal import KINDS, TraceKind
from experiments.benchmarks.measure import matrix_rate, seconds_of
from experiments.benchmarks.patching_work import LayerWork, tracing_operations

CPU = torch.device("cpu")
DRAWS = 10


def forward_operations(model: Model, tokens: int) -> float:
    """Operations of the matrix products of one forward with all logits; scores and mixing are left out on both sides."""
    return tokens * (model.n_layers * LayerWork.of(model).whole + 2.0 * model.weights.W_U.numel())


def forward_of(directory: Path, model: Model, ids: Tensor) -> Callable[[], Any]:
    """One plain Hugging Face forward."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(directory, dtype=model.dtype).eval()
    return lambda: network(ids, use_cache=False).logits


def peak() -> float:
    """Bytes that the process has held at most."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@torch.no_grad()
def measure(directory: Path, prompt: str, subject: str, window: int, rounds: int) -> dict[str, Any]:
    """Seconds of each kind and of a forward, operations, and memory."""
    model = load_model(directory)
    found: dict[str, Any] = {"model_bytes": model.weights.nbytes, "loaded": peak()}
    ids = model.to_tokens(prompt).ids
    trace = causal_trace(model, prompt, subject=subject, kinds=KINDS[:1], draws=DRAWS, window=window)
    found["traced"] = peak()
    forward = forward_of(directory, model, ids.expand(DRAWS, -1))
    forward()
    forwards = [seconds_of(forward, CPU) for _ in range(3)]
    kinds: dict[TraceKind, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, times in kinds.items():
            options: dict[str, Any] = {"subject": subject, "kinds": (kind,), "draws": DRAWS, "window": window}
            times.append(seconds_of(functools.partial(causal_trace, model, prompt, **options), CPU))
            forwards += [seconds_of(forward, CPU) for _ in range(5)]
    width = ids.shape[1]
    least = {
        kind: tracing_operations(model, kind, width, trace.subject[0], DRAWS, min(window, model.n_layers)) for kind in KINDS
    }
    found |= {"cells": width * model.n_layers, "forward": statistics.median(forwards), "rate": matrix_rate(CPU, model.dtype)}
    found |= {"seconds": {kind: statistics.median(times) for kind, times in kinds.items()}, "least": least}
    return found | {"forward_operations": forward_operations(model, DRAWS * width), "threads": torch.get_num_threads()}


def ratios(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of each kind and of all together: how many times faster, and at most, at the reference's rate and at the best."""
    rows = {}
    for name, kinds in {**{kind: [kind] for kind in KINDS}, "all": list(KINDS)}.items():
        seconds, least = (sum(found[what][kind] for kind in kinds) for what in ("seconds", "least"))
        cells, operations = found["cells"] * len(kinds), found["forward_operations"]
        own_rate = operations / found["forward"]
        at_most = cells * operations / least
        rows[name] = {
            "seconds": seconds,
            "ratio": cells * found["forward"] / seconds,
            "least": least / (cells * operations),
            "at_most": at_most,
            "at_most_at_best_rate": at_most * found["rate"] / own_rate,
            "rate": least / seconds,
        }
    return rows


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a Hugging Face model")
    parser.add_argument("--prompt", default="The Eiffel Tower is located in the city of")
    parser.add_argument("--subject", default="The Eiffel Tower")
    parser.add_argument("--window", type=int, default=10, help="layers whose MLPs or attention are restored together")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure(options.model, options.prompt, options.subject, options.window, options.rounds)
    rows = ratios(found)
    if options.json:
        print(json.dumps({**found, "ratios": rows}))
        return
    own = found["forward_operations"] / found["forward"]
    print(f"{found['cells']} cells a kind, {DRAWS} draws, {found['threads']} threads; one forward {found['forward']:.3f} s,")
    print(f"{own / 1e9:.0f} GFLOP/s; a large matrix product {found['rate'] / 1e9:.0f} GFLOP/s")
    heading = ("kind", "seconds", "ratio", "least", "at most", "at the best rate", "GFLOP/s")
    cells = [
        (
            name,
            f"{row['seconds']:.1f}",
            f"{row['ratio']:.2f}×",
            f"{row['least']:.1%}",
            f"{row['at_most']:.2f}×",
            f"{row['at_most_at_best_rate']:.1f}×",
            f"{row['rate'] / 1e9:.0f}",
        )
        for name, row in rows.items()
    ]
    print(table(heading, cells))
    sizes = [f"{found[name] / 1e9:.2f} GB" for name in ("model_bytes", "loaded", "traced")]
    print("memory: the model {}, the process's peak after loading {}, after a trace {}".format(*sizes))


if __name__ == "__main__":
    main()
