"""The forward pass: runs the graph of heads and neurons on a record of weights.

One fast path for every family; differentiable; any float type and device. A run keeps factors (the heads' mixed values
z, neuron activations, residual streams, q, k, v), not products: contractions multiply by output weights where needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.models.edits import Compiled, apply_edits
from circuits.models.geometry import Geometry
from circuits.models.layers import (
    SLOTS,
    activated,
    attend,
    attention_output,
    attention_pattern,
    embed,
    headed,
    mix,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    pre_activations,
    projected,
    unembed,
)
from circuits.models.run import Reads, Run
from circuits.models.tokens import TokenBatch
from circuits.models.weights import Block, Weights

Keep = Literal["logits", "factors", "patterns", "reads", "writes"]
FACTORS = ("middles", "q", "k", "v", "z", "neurons", "patterns", "mlps")
_KEPT: Mapping[str, tuple[str, ...]] = {"logits": (), "writes": ("z", "mlps")}
"""Of what a layer computes, what is kept where not all of it is."""


def forward(
    weights: Weights,
    tokens: TokenBatch,
    *,
    edits: Compiled | None = None,
    patterns: Sequence[Tensor] | None = None,
    keep: Keep = "factors",
    logits: bool = True,
    columns: Int[Tensor, " prompt"] | None = None,
) -> Run:
    """Run the model. `edits` come from `compile_edits`; `patterns` (one `[prompt head query key]` a layer) are used in
    place of the model's own; `keep` says what the Run holds besides logits, which `logits=False` leaves out
    and `columns` unembeds at one column of each prompt alone."""
    edits = edits or {}
    geometry = Geometry(weights, tokens, weights.W_E.dtype)
    kept: dict[str, list[Tensor]] = {name: [] for name in FACTORS}
    edited_mlps: dict[int, Tensor] = {}
    reads: list[Reads] = []
    x = apply_edits(edits, ("input", 0), embed(weights, tokens), tokens)
    x = apply_edits(edits, ("residual", 0), x, tokens)
    residuals = [x]
    for layer, block in enumerate(weights.blocks):
        x = before = x.to(block.device)  # once at a border, not by each of its readers (models/devices.py)
        given = None if patterns is None else patterns[layer]
        factors, linear = _attention(block, x, geometry, edits, layer, given, keep == "patterns")
        reading = Reads(*linear)
        mixed = attention_output(factors["z"], block.attention, block.attention_post_norm)
        middle = x + apply_edits(edits, ("attention", layer), mixed, tokens)
        middle = apply_edits(edits, ("middle", layer), middle, tokens)
        factors["middles"], x = middle, middle
        if block.mlp is not None:
            source = before if weights.parallel else middle
            # A tensor of its own, or the gradient by what the MLP reads would be that by the residual stream, with all other
            # readers' in it (test_eap_equals_the_gradient_by_every_reader).
            source = source.view_as(source) if keep == "reads" else source
            normed = apply_edits(edits, ("reading", layer), normalise(source, block.mlp_norm), tokens)
            if keep == "reads":
                pre = pre_activations(normed, block.mlp)
                reading, neurons = Reads(*linear, mlp=source, pre=pre), activated(pre, block.mlp)
            else:
                neurons = neuron_activations(normed, block.mlp)
            factors["neurons"] = apply_edits(edits, ("neuron", layer), neurons, tokens)
            written = mlp_output(factors["neurons"], block.mlp, block.mlp_post_norm)
            if ("mlp", layer) in edits:
                written = edited_mlps[layer] = apply_edits(edits, ("mlp", layer), written, tokens)
            if keep in ("reads", "writes"):
                factors["mlps"] = written
            x = middle + written
        x = apply_edits(edits, ("residual", layer + 1), x, tokens)
        residuals = [*residuals, x] if keep != "logits" else [x]
        reads += [reading] if keep == "reads" else []
        for name in _KEPT.get(keep, factors):
            kept[name] += [factors[name]] if name in factors else []
    # Unembedding no column gives logits of the right width and type at no cost, so that a Run looks alike with and without.
    read = x if columns is None else x[torch.arange(len(x), device=x.device), columns][:, None]
    unembedded = unembed(weights, read if logits else x[:, :0])
    held: dict[str, Any] = {name: tuple(values) for name, values in kept.items()}
    if keep == "logits":
        return Run(weights=weights, tokens=tokens, logits=unembedded, residuals=(), edited_mlps={}, **held)
    whole: dict[str, Any] = {"residuals": tuple(residuals), "edited_mlps": edited_mlps, "reads": tuple(reads)}
    return Run(weights=weights, tokens=tokens, logits=unembedded, **whole, **held)


def _attention(
    block: Block,
    x: Tensor,
    geometry: Geometry,
    edits: Compiled,
    layer: int,
    given: Tensor | None,
    keep_pattern: bool,
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """q, k, v, z (edited) and, where one is given or asked for, the pattern of one layer; and the linear parts of q, k, v."""
    attention = block.attention
    normed = normalise(x, block.attention_norm)
    rotation = geometry.rotation(layer)
    linear = (projected(normed, attention, "q"), projected(normed, attention, "k"), projected(normed, attention, "v"))
    parts = zip(linear, SLOTS, strict=True)
    q, k, v = (placed(headed(part, attention, slot), slot, rotation) for part, slot in parts)
    bias = geometry.bias(attention.window)
    factors = {"q": q, "k": k, "v": v}
    if given is None and not keep_pattern:
        z = attend(q, k, v, attention, bias)
    else:
        factors["patterns"] = attention_pattern(q, k, attention, bias) if given is None else given
        z = mix(factors["patterns"], v, attention)
    factors["z"] = apply_edits(edits, ("head", layer), z, geometry.tokens)
    return factors, linear
