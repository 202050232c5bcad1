"""Speed of ACDC against as many plain forwards as the model has edges.

    python experiments/benchmarks/acdc.py [--json] [--threads 2] [--threshold 0.001]

A toy of 2 layers of 8 heads without MLPs, d_model 256, random weights (nothing is downloaded): 257 edges; 8 prompts of 16
tokens, KL to the clean run. Reference: 257 forwards of the clean prompts that keep logits alone, which is less than an
edge-by-edge ACDC needs. `acdc`: 1,000 tokens; `acdc_50257`: GPT-2's vocabulary (its forwards are timed on a sample and
scaled).
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.weights import Attention, Block, Norm, Weights
from circuits.search.acdc.descent import acdc
from circuits.tasks import PromptPairs
from experiments.benchmarks.measure import Row, compare, show

CPU = torch.device("cpu")


def toy(d_vocab: int, *, d_model: int = 256, n_heads: int = 8, dtype: torch.dtype = torch.float32, seed: int = 0) -> Model:
    """Two layers of attention with random weights."""
    draw = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int, size: float) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=draw) * size).to(dtype)

    norm = Norm("layer", torch.ones(d_model, dtype=dtype), torch.zeros(d_model, dtype=dtype), 1e-5)
    blocks = []
    for _ in range(2):
        W_Q, W_K, W_V, W_O = (matrix(d_model, d_model, d_model**-0.5) for _ in range(4))
        attention = Attention(
            W_Q=W_Q,
            W_K=W_K,
            W_V=W_V,
            W_O=W_O,
            b_Q=None,
            b_K=None,
            b_V=None,
            b_O=torch.zeros(d_model, dtype=dtype),
            n_heads=n_heads,
            n_key_value_heads=n_heads,
            scale=(d_model // n_heads) ** -0.5,
        )
        blocks.append(Block(norm, attention))
    weights = Weights(
        W_E=matrix(d_vocab, d_model, 1.0),
        W_U=matrix(d_model, d_vocab, d_model**-0.5),
        b_U=None,
        blocks=tuple(blocks),
        final_norm=norm,
        max_positions=64,
        W_pos=matrix(64, d_model, 0.3),
    )
    return Model("toy", "toy", weights, None)


def toy_pairs(d_vocab: int, prompts: int = 8, tokens: int = 16, seed: int = 0) -> PromptPairs:
    """Random prompts that differ in all tokens but the first."""
    draw = torch.Generator().manual_seed(seed)
    clean, corrupt = (torch.randint(0, d_vocab, (prompts, tokens), generator=draw) for _ in range(2))
    corrupt[:, 0] = clean[:, 0]
    return PromptPairs.from_tokens(
        d_vocab,
        clean=clean.tolist(),
        corrupt=corrupt.tolist(),
        answers=[1] * prompts,
        distractors=[2] * prompts,
    )


def measure(name: str, d_vocab: int, threshold: float, sample: int, rounds: int) -> tuple[Row, Circuit]:
    """A row, and the circuit that was found."""
    model, pairs = toy(d_vocab), toy_pairs(d_vocab)
    total = model.graph().edge_count
    kept: list[Circuit] = []

    @torch.no_grad()
    def forwards() -> None:
        for _ in range(min(sample, total)):
            model.run(pairs.clean, keep="logits")

    def ours() -> None:
        kept.append(acdc(model, pairs, threshold=threshold, connected=False))

    row = compare(name, ours, forwards, device=CPU, rounds=rounds)
    scale = total / min(sample, total)
    return dataclasses.replace(row, reference_seconds=row.reference_seconds * scale, ratio=row.ratio * scale), kept[-1]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--threshold", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = [
        measure("acdc", 1000, options.threshold, 257, options.rounds),
        measure("acdc_50257", 50257, options.threshold, 16, options.rounds),
    ]
    heading = f"2 layers, 8 heads, d_model 256, {options.threads} threads; reference: 257 plain forwards"
    show([row for row, _ in found], as_json=options.json, heading=heading)
    if not options.json:
        for row, circuit in found:
            variants = circuit.metadata["evaluations"]
            print(f"{row.name}: {len(circuit)} of {circuit.graph.edge_count} edges kept, {variants} variants run")


if __name__ == "__main__":
    main()
