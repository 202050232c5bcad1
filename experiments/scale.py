"""What a long job costs on large models and many devices: memory by device, hours, what limits. The figures of docs/scale.md.

    python experiments/scale.py [--prompts 100000] [--tokens 32] [--of-peak 0.5] [--reached 0.43] [--json]

A plan on paper: none of the accelerators was measured. What is counted: operations of the toolkit's own forward pass on
weights that have the public models' shapes and no numbers; the graph's edges; the operations of a traced fact on the bundled
model. What is measured, here: how much of a bare matrix product's speed the forward pass reaches. What is assumed: the peaks
of the makers' data sheets, and that a bare matrix product reaches `--of-peak` of them.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution.rules import RULES
from circuits.cli.text import table
from circuits.graph import Graph
from circuits.models import Model, TokenBatch, load_model
from circuits.models.devices import SpreadWeight
from circuits.models.forward import forward
from circuits.models.memory import prompts_at_once
from circuits.models.weights import MLP, Attention, Block, Norm, Weights
from circuits.patching import causal_trace


@dataclasses.dataclass(frozen=True)
class Shape:
    """A public model's sizes, as in its configuration."""

    layers: int
    heads: int
    groups: int
    d_model: int
    d_mlp: int
    d_vocab: int
    gated: bool
    tied: bool


SHAPES = {
    "GPT-2 XL": Shape(48, 25, 25, 1600, 6400, 50257, gated=False, tied=True),
    "Llama 3.1 70B": Shape(80, 64, 8, 8192, 28672, 128256, gated=True, tied=False),
}


@dataclasses.dataclass(frozen=True)
class Device:
    """An accelerator by its maker's data sheet: dense bfloat16 operations a second, bytes of memory and bytes a second."""

    peak: float
    memory: float
    bandwidth: float


DEVICES = {"H100 SXM": Device(989e12, 80e9, 3.35e12), "A100 80 GB SXM": Device(312e12, 80e9, 2.04e12)}
COUNTS = {"one GPU": 1, "eight GPUs": 8, "a cluster of 64": 64}
SPARE = 0.15
"""Share of a device's memory that is kept for what one layer computes at a time."""
WORD = 2
"""Bytes of a bfloat16 number."""
DRAWS, KINDS = 10, 3
"""Draws of noise, and kinds of what is restored, in a traced fact."""


def weights_of(shape: Shape) -> Weights:
    """Weights of that shape, without numbers."""

    def made(*size: int) -> Tensor:
        """A weight."""
        return torch.empty(size, dtype=torch.bfloat16, device="meta").as_subclass(SpreadWeight)

    wide, d_head = shape.d_model, shape.d_model // shape.heads
    norm = Norm("rms", made(wide), None, 1e-5)
    slots = {"W_Q": made(wide, shape.heads * d_head), "W_K": made(wide, shape.groups * d_head)}
    attention = Attention(
        **slots,
        W_V=made(wide, shape.groups * d_head),
        W_O=made(shape.heads * d_head, wide),
        **dict.fromkeys(("b_Q", "b_K", "b_V", "b_O")),
        n_heads=shape.heads,
        n_key_value_heads=shape.groups,
        scale=d_head**-0.5,
    )
    gate = made(wide, shape.d_mlp) if shape.gated else None
    mlp = MLP(made(wide, shape.d_mlp), made(shape.d_mlp, wide), None, None, "silu", W_gate=gate)
    embedding = made(shape.d_vocab, wide)
    unembedding = embedding.T if shape.tied else made(wide, shape.d_vocab)
    blocks = (Block(norm, attention, norm, mlp),) * shape.layers
    return Weights(embedding, unembedding, None, blocks, norm, max_positions=None)


def parameters(shape: Shape, weights: Weights) -> int:
    """How many numbers the weights are."""
    blocks = sum(tensor.numel() for name, tensor in weights.tensors() if name.startswith("blocks."))
    return blocks + weights.W_E.numel() * (1 if shape.tied else 2)


def operations(work: Callable[[], Any]) -> float:
    """Multiplications and additions of matrix products in some work."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        work()
    return float(counter.get_total_flops())


def of_forward(weights: Weights, tokens: int) -> float:
    """Operations of one forward over a prompt, unembedded at its last token alone."""
    batch = TokenBatch.unpadded(torch.ones(1, tokens, dtype=torch.long))
    return operations(lambda: forward(weights, batch, keep="logits", columns=torch.tensor([tokens - 1])))


def of_tracing(model: Model) -> float:
    """The share of a whole forward that one restored run of a traced fact costs: it starts at its layer and column."""
    prompt = "The old captain of the ship said that the sea was very calm"
    batch, whole = model.to_tokens(prompt), model.n_layers
    traced = operations(lambda: causal_trace(model, prompt, subject="The old captain", draws=2, window=2, noise=0.1))
    runs = 2 * KINDS * whole * batch.ids.shape[1]
    return traced / runs / of_forward(model.weights, batch.ids.shape[1])


def of_edges(shape: Shape) -> float:
    """Operations of multiplying every writer's change with every reader's gradient, at one position."""
    graph = Graph(n_layers=shape.layers, n_heads=shape.heads, n_key_value_heads=shape.groups, d_mlp=shape.d_mlp, parallel=False)
    return 2.0 * graph.edge_count * shape.d_model


def efficiency(model: Model, seconds: float = 2.0) -> float:
    """How much of the speed of a bare matrix product the forward pass reaches on this machine (at most 1)."""
    side = torch.randn(1024, 1024)
    bare = _speed(lambda: side @ side, 2 * 1024.0**3, seconds)
    batch = TokenBatch.unpadded(torch.randint(0, model.d_vocab, (16, 64), generator=torch.Generator().manual_seed(0)))
    own = operations(lambda: forward(model.weights, batch, keep="factors", logits=False))
    return min(1.0, _speed(lambda: forward(model.weights, batch, keep="factors", logits=False), own, seconds) / bare)


@torch.no_grad()
def _speed(work: Callable[[], Any], each: float, seconds: float) -> float:
    best, end = 0.0, time.perf_counter() + seconds
    work()
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = max(best, each / (time.perf_counter() - start))
    return best


def jobs(shape: Shape, once: float, tokens: int, share: float, points: int) -> dict[str, float]:
    """Operations a prompt of each job. A backward pass costs as much as a forward: weights carry no gradients."""
    return {
        "behaviour: both prompts' answers": 2 * once,
        f"discover: EAP-IG, {points} points": (2 + 2 * points) * once + of_edges(shape) * tokens,
        "trace --facts: all layers and tokens": DRAWS * KINDS * shape.layers * tokens * share * once,
    }


def rows(options: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was measured and counted, and a row a model, device, number of devices and job."""
    mini = load_model("mini")
    reached, share = efficiency(mini) if options.reached is None else options.reached, of_tracing(mini)
    points = RULES["eap-ig"].steps or 10
    known: dict[str, Any] = {"forward beside a bare product": reached, "a restored run in forwards": share}
    found = []
    for name, shape in SHAPES.items():
        weights = weights_of(shape)
        held, once = parameters(shape, weights) * WORD, of_forward(weights, options.tokens)
        known[name] = {"weights, GB": held / 1e9, "operations a forward": once}
        for kind, device in DEVICES.items():
            together = math.ceil(held / (device.memory * (1 - SPARE)))  # devices that hold one model
            room = device.memory * (1 - SPARE) - held / together
            batch = prompts_at_once(weights, options.tokens, budget=int(room * together))
            # Each pass reads all weights once: below this many operations a byte the memory is slower than the arithmetic.
            pause = held / device.bandwidth / (batch * once / (device.peak * options.of_peak * reached))
            for count_name, count in COUNTS.items():
                copies = count // together
                for job, each in jobs(shape, once, options.tokens, share, points).items():
                    speed = device.peak * options.of_peak * reached * copies
                    hours = options.prompts * each / speed / 3600 if copies else math.nan
                    row = {"model": name, "device": kind, "devices": count_name, "job": job, "hours": hours}
                    row |= {"copies of the model": copies, "devices a copy": together, "prompts a pass": batch}
                    row |= {"weights a device, GB": held / together / 1e9, "reading weights, share of the time": pause}
                    found.append(row)
    return known, found


def main() -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100_000, help="pairs or facts (default: 100000)")
    parser.add_argument("--tokens", type=int, default=32, help="of a prompt (default: 32)")
    parser.add_argument("--of-peak", type=float, default=0.5, help="what a bare product reaches of a data sheet's peak")
    parser.add_argument("--reached", type=float, help="of a bare product's speed, by the forward pass (default: measured)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    known, found = rows(options)
    if options.json:
        print(json.dumps({"known": known, "rows": found}))
        return
    for name, value in known.items():
        if isinstance(value, dict):
            print(f"{name}: {'; '.join(f'{what} {one:.3g}' for what, one in value.items())}")
        else:
            print(f"{name}: {value:.3g}")
    print(table(list(found[0]), [[_shown(one) for one in row.values()] for row in found]))


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "does not fit" if math.isnan(value) else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
