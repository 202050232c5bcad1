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
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in bridge.original_model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise, dtype=dtype))
    return bridge


def random_native(rng: random.Random) -> tuple[Shape, Any]:
    """A random shape among those that native models have, and a bridge of it."""
    n_heads, d_head = rng.choice([1, 2, 4]), rng.choice([2, 4, 6])
    groups = rng.choice([g for g in (1, 2, 4) if n_heads % g == 0])
    gated, rotary, scaled = rng.random() < 0.4, rng.random() < 0.5, rng.random() < 0.3
    activation = rng.choice(["gelu", "gelu_new", "relu", "silu", "solu"])
    norm = rng.choice(["LN", "LNPre", "RMS", "RMSPre", None])
    rotary_dim = rng.choice([d for d in (2, 4, 6) if d <= d_head])
    caps = rng.choice([-1.0, 2.0]), rng.choice([-1.0, 3.0])
    final_rms, causal = rng.random() < 0.2, rng.random() < 0.7
    scale = rng.choice([-1.0, 3.0])
    bridge = native_bridge(
        rng.randrange(2**31),
        n_layers=rng.randint(1, 3),
        n_heads=n_heads,
        d_head=d_head,
        d_model=rng.choice([5, 8, 12]),
        n_key_value_heads=rng.choice([None, groups]) if groups == n_heads else groups,
        d_vocab_out=rng.choice([-1, 7]),
        act_fn=activation,
        gated_mlp=gated,
        attn_only=rng.random() < 0.25,
        normalization_type=norm,
        final_rms=final_rms,
        positional_embedding_type="rotary" if rotary else "standard",
        rotary_dim=rotary_dim if rotary else None,
        rope_scaling={"rope_type": "linear", "factor": 2.0} if scaled else None,
        attn_scores_soft_cap=caps[0],
        output_logits_soft_cap=caps[1],
        attn_scale=scale,
        attention_dir="causal" if causal else "bidirectional",
    )
    shape = Shape(
        n_layers=bridge.cfg.n_layers,
        n_heads=n_heads,
        n_key_value_heads=groups,
        d_head=d_head,
        activation=activation,
        norm=norm,
        final_rms=final_rms,
        positions="rotary" if rotary else "learned",
        rotary_dim=rotary_dim,
        position_scale=2.0 if scaled else 1.0,
        score_scale=1 / (scale if scale > 0 else d_head**0.5),
        score_cap=caps[0] if caps[0] > 0 else None,
        logit_cap=caps[1] if caps[1] > 0 else None,
        causal=causal,
    )
    return shape, bridge
