"""Speed of a plain run and of a run that keeps everything, against the Hugging Face forward of the same model.

    python experiments/benchmarks/forward.py [--json] [--prompts 8] [--tokens 64] [--device cuda]

GPT-2-small's shape with random weights (nothing is downloaded), same weights and prompts on both sides, in turns.
`forward`: logits alone. `forward_keep`: q, k, v, z, neurons and residual streams of every layer are kept.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.models import Model
from circuits.models.forward import Keep
from experiments.benchmarks.measure import Row, compare, matrix_rate, show

ROWS: tuple[tuple[str, Keep], ...] = (("forward", "logits"), ("forward_keep", "factors"))


def random_gpt2(device: torch.device, dtype: torch.dtype) -> tuple[Callable[..., Any], Model]:
    """A Hugging Face GPT-2 small with random weights, and the same weights as our model."""
    torch.manual_seed(0)
    original = GPT2LMHeadModel(GPT2Config()).eval()
    copy = GPT2LMHeadModel(GPT2Config()).eval()
    copy.load_state_dict(original.state_dict())
    for module in (original, copy):
        torch.nn.Module.to(module, device, dtype)
    bridge = build_bridge_from_module(copy, "GPT2LMHeadModel", hf_config=copy.config, model_name="gpt2-random")
    return original, Model.from_bridge(bridge)


def forward_operations(model: Model, prompts: int, tokens: int) -> float:
    """Multiplications and additions of the matrix products of one forward (attention counted as causal)."""
    per_token = sum(2 * w.numel() for b in model.weights.blocks for w in _matrices(b)) + 2 * model.weights.W_U.numel()
    scores = 2 * 2 * model.n_layers * model.n_heads * model.d_head * (tokens + 1) / 2
    return prompts * tokens * (per_token + scores)


def _matrices(block) -> list[torch.Tensor]:
    attention, mlp = block.attention, block.mlp
    return [attention.W_Q, attention.W_K, attention.W_V, attention.W_O, mlp.W_in, mlp.W_out]


def measure(prompts: int, tokens: int, device: torch.device, dtype: torch.dtype, rounds: int) -> list[Row]:
    """Both rows."""
    original, model = random_gpt2(device, dtype)
    ids = torch.randint(0, model.d_vocab, (prompts, tokens), generator=torch.Generator().manual_seed(1)).to(device)
    rate, operations = matrix_rate(device, dtype), forward_operations(model, prompts, tokens)
    with torch.no_grad():
        return [
            compare(
                name,
                lambda keep=keep: model.run(ids, keep=keep).logits,
                lambda: original(ids, use_cache=False).logits,
                device=device,
                rounds=rounds,
                operations=operations,
                rate=rate,
            )
            for name, keep in ROWS
        ]


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    rows = measure(options.prompts, options.tokens, torch.device(options.device), dtype, options.rounds)
    shape = f"{options.prompts} × {options.tokens} tokens, {options.dtype}, {options.device}, {torch.get_num_threads()} threads"
    show(rows, as_json=options.json, heading=f"GPT-2 small's shape, random weights, {shape}; reference: Hugging Face")


if __name__ == "__main__":
    main()
