"""Rotary positions of a GGUF file, which transformers reads without their scaling."""

import math
from typing import Any

import numpy as np

from circuits.errors import ModelError, shown
from circuits.models.loading.gguf_header import GGUFHeader

FREQUENCIES = "rope_freqs.weight"
"""What each frequency is divided by: how llama.cpp writes the scaling of Llama 3."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "scaling.type": ("none", "linear"),
    "scaling.attn_factor": (1.0,),
    "scaling.finetuned": (True, False),
    "scaling.original_context_length": (0,),
}


def head_width(config: Any) -> int:
    """d_head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def set_rotary(header: GGUFHeader, config: Any) -> None:
    """Set base and scaling of a configuration's rotary positions to the file's. Raises ModelError naming the value or tensor
    that is not represented."""
    prefix = f"{header.architecture}.rope."
    given = {key.removeprefix(prefix): value for key, value in header.values.items() if key.startswith(prefix)}
    rotary = getattr(config, "rope_parameters", None)
    if not isinstance(rotary, dict):
        if given or FREQUENCIES in header.tensors:
            raise ModelError(f"{header.path}: rotary positions of {header.architecture} are not represented")
        return
    table = rotary.get("full_attention", rotary)
    if "freq_base" in given:
        table["rope_theta"] = float(given.pop("freq_base"))
    turned = round(head_width(config) * float(table.get("partial_rotary_factor", 1.0)))
    if given.pop("dimension_count", turned) != turned:
        raise ModelError(
            f"{header.path}: {prefix}dimension_count={shown(header.values[f'{prefix}dimension_count'])}: "
            f"expected {turned}, other parts of a head are not represented"
        )
    factor = given.pop("scaling.factor", 1.0)
    for key, value in given.items():
        if value not in _NEUTRAL.get(key, ()):
            raise ModelError(f"{header.path}: {prefix}{key}={shown(value)} is not represented")
    if given.get("scaling.type") == "linear" and factor not in (0.0, 1.0):
        table.update(rope_type="linear", factor=float(factor))
    if FREQUENCIES in header.tensors:
        table.update(_llama3(header, float(table["rope_theta"]), turned))


def _llama3(header: GGUFHeader, base: float, width: int) -> dict[str, Any]:
    """The scaling whose divisors are those of the file. It leaves short wavelengths as they are, divides long ones by one
    factor, and goes from one to the other between a quarter and the whole of the first context's length."""
    stored = header.tensors[FREQUENCIES]
    if stored.kind != "F32" or stored.shape != (width // 2,):
        raise ModelError(
            f"{header.path}: the tensor {FREQUENCIES} is {stored.kind} of shape {stored.shape}, expected F32 of {(width // 2,)}"
        )
    given = np.fromfile(header.path, np.float32, width // 2, offset=header.start + stored.offset)
    if bool((given == 1).all()):
        return {}
    factor = round(float(given.max()), 4)
    lengths = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    for context in (2**power for power in range(4, 21)):
        smooth = np.clip((context / lengths - 1.0) / 3.0, 0.0, 1.0)
        if np.allclose(given, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": context,
            }
    raise ModelError(
        f"{header.path}: the tensor {FREQUENCIES} scales rotary positions otherwise than Llama 3, which is not represented"
    )
