"""Random models native to TransformerLens, and their shape for the reference."""

import random
from typing import Any

import torch
import transformer_lens.model_bridge.sources.native  # noqa: F401 (adds boot_native)
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from tests.models.random_models import D_VOCAB, LENGTH
from tests.models.reference import Shape

SMALL = {"d_model": 8, "d_head": 4, "n_heads": 2, "n_layers": 2, "n_ctx": LENGTH + 3, "d_vocab": D_VOCAB, "d_mlp": 6}


def native_bridge(
    seed: int = 0, dtype: torch.dtype = torch.float64, rope_scaling: dict[str, Any] | None = None, **options: Any
) -> Any:
    """A bridge around a native model with every parameter away from zero and one."""
    chosen = {**SMALL, "architecture": "TransformerLensNative", "seed": seed, **options}
    config = TransformerBridgeConfig(**chosen)
    config.rope_scaling = rope_scaling
    bridge = TransformerBridge.boot_native(config, dtype=dtype)
    noise, size = torch.Generator().manual_seed(seed), 0.3 if options.get("normalization_type", "LN") else 0.15
    with torch.no_grad():
        for parameter in bridge.original_model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=noise, dtype=dtype))
    return bridge


def random_native(rng: random.Random) -> tuple[Shape, Any]:
    """A random shape among those that native models have, and a bridge of it."""
    n_heads, d_head = rng.choice([1, 2, 4]), rng.choice([2, 4, 6])
    divisor = rng.choice([None, 3.0])
    shape = Shape(
        n_layers=rng.randint(1, 3),
        n_heads=n_heads,
        n_key_value_heads=rng.choice([g for g in (1, 2, 4) if n_heads % g == 0]),
        d_head=d_head,
        activation=rng.choice(["gelu", "gelu_new", "relu", "silu", "solu"]),
        norm=rng.choice(["LN", "LNPre", "RMS", "RMSPre", None]),
        final_rms=rng.random() < 0.2,
        positions=rng.choice(["learned", "rotary"]),
        rotary_dim=rng.choice([d for d in (2, 4, 6) if d <= d_head]),
        position_scale=rng.choice([1.0, 1.0, 2.0]),
        score_scale=1 / (divisor or d_head**0.5),
        score_cap=rng.choice([None, 2.0]),
        logit_cap=rng.choice([None, 3.0]),
        causal=rng.random() < 0.7,
    )
    sizes = {"d_model": rng.choice([5, 8, 12]), "d_vocab_out": rng.choice([-1, 7]), "attn_scale": divisor or -1.0}
    parts = {"gated_mlp": rng.random() < 0.4, "attn_only": rng.random() < 0.25}
    return shape, native_bridge(rng.randrange(2**31), **options_of(shape), **sizes, **parts)


def options_of(shape: Shape) -> dict[str, Any]:
    """A shape as TransformerLens's configuration says it."""
    rotary, shared = shape.positions == "rotary", shape.n_key_value_heads != shape.n_heads
    return {
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "d_head": shape.d_head,
        "n_key_value_heads": shape.n_key_value_heads if shared else None,
        "act_fn": shape.activation,
        "normalization_type": shape.norm,
        "final_rms": shape.final_rms,
        "positional_embedding_type": "rotary" if rotary else "standard",
        "rotary_dim": shape.rotary_dim if rotary else None,
        "rope_scaling": {"rope_type": "linear", "factor": shape.position_scale} if rotary else None,
        "attn_scores_soft_cap": shape.score_cap or -1.0,
        "output_logits_soft_cap": shape.logit_cap or -1.0,
        "attention_dir": "causal" if shape.causal else "bidirectional",
    }
