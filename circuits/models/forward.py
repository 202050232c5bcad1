"""The forward pass: runs the graph of heads and neurons on a record of weights.

One fast path for every family; differentiable; any float type and device. A run keeps factors (the heads' mixed values
z, neuron activations, residual streams, q, k, v), not products: contractions multiply by output weights where needed.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from circuits.models.edits import Compiled, apply_edits
from circuits.models.layers import (
    Geometry,
    Slot,
    attend,
    attention_output,
    attention_pattern,
    embed,
    mix,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    project,
    unembed,
)
from circuits.models.run import Run
from circuits.models.tokens import TokenBatch
from circuits.models.weights import Block, Weights

Keep = Literal["logits", "factors", "patterns"]
FACTORS = ("middles", "q", "k", "v", "z", "neurons", "patterns")
SLOTS: tuple[Slot, ...] = ("q", "k", "v")


def forward(
    weights: Weights,
    tokens: TokenBatch,
    *,
    edits: Compiled | None = None,
    patterns: Sequence[Tensor] | None = None,
    keep: Keep = "factors",
) -> Run:
    """Run the model. `edits` come from `compile_edits`; `patterns` (one `[prompt head query key]` a layer) are used in
    place of the model's own; `keep` says what the Run holds besides logits."""
    edits = edits or {}
    geometry = Geometry(weights, tokens, weights.W_E.dtype)
    kept: dict[str, list[Tensor]] = {name: [] for name in FACTORS}
    edited_mlps: dict[int, Tensor] = {}
    x = apply_edits(edits, ("input", 0), embed(weights, tokens))
    residuals = [x]
    for layer, block in enumerate(weights.blocks):
        given = None if patterns is None else patterns[layer]
        factors = _attention(block, x, geometry, edits, layer, given, keep == "patterns")
        middle = x + attention_output(factors["z"], block.attention, block.attention_post_norm)
        factors["middles"], x = middle, middle
        if block.mlp is not None:
            reads = residuals[-1] if weights.parallel else middle
            neurons = neuron_activations(normalise(reads, block.mlp_norm), block.mlp)
            factors["neurons"] = apply_edits(edits, ("neuron", layer), neurons)
            written = mlp_output(factors["neurons"], block.mlp, block.mlp_post_norm)
            if ("mlp", layer) in edits:
                written = edited_mlps[layer] = apply_edits(edits, ("mlp", layer), written)
            x = middle + written
        residuals = [*residuals, x] if keep != "logits" else [x]
        for name, value in factors.items() if keep != "logits" else ():
            kept[name].append(value)
    logits = unembed(weights, x)
    held = {name: tuple(values) for name, values in kept.items()}
    if keep == "logits":
        return Run(weights=weights, tokens=tokens, logits=logits, residuals=(), edited_mlps={}, **held)
    return Run(weights=weights, tokens=tokens, logits=logits, residuals=tuple(residuals), edited_mlps=edited_mlps, **held)


def _attention(
    block: Block,
    x: Tensor,
    geometry: Geometry,
    edits: Compiled,
    layer: int,
    given: Tensor | None,
    keep_pattern: bool,
) -> dict[str, Tensor]:
    """q, k, v, z (edited) and, where one is given or asked for, the pattern of one layer."""
    attention = block.attention
    normed = normalise(x, block.attention_norm)
    weights, rotation = geometry.weights, geometry.rotation
    q, k, v = (placed(project(normed, attention, slot), slot, weights, rotation) for slot in SLOTS)
    bias = geometry.bias(attention.window)
    factors = {"q": q, "k": k, "v": v}
    if given is None and not keep_pattern:
        z = attend(q, k, v, attention, bias)
    else:
        factors["patterns"] = attention_pattern(q, k, attention, bias) if given is None else given
        z = mix(factors["patterns"], v, attention)
    factors["z"] = apply_edits(edits, ("head", layer), z)
    return factors
