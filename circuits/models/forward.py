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
    attend,
    attention_output,
    attention_pattern,
    embed,
    mix,
    mlp_output,
    neuron_activations,
    normalise,
    project,
    unembed,
)
from circuits.models.run import Run
from circuits.models.tokens import TokenBatch
from circuits.models.weights import Weights

Keep = Literal["logits", "factors", "patterns"]


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
    kept: dict[str, list[Tensor]] = {name: [] for name in ("residuals", "middles", "q", "k", "v", "z", "neurons", "patterns")}
    edited_mlps: dict[int, Tensor] = {}
    x = apply_edits(edits, ("input", 0), embed(weights, tokens))
    kept["residuals"].append(x)
    for layer, block in enumerate(weights.blocks):
        attention = block.attention
        normed = normalise(x, block.attention_norm)
        q, k, v = (project(normed, attention, geometry, slot) for slot in ("q", "k", "v"))
        if patterns is not None or keep == "patterns":
            pattern = attention_pattern(q, k, attention, geometry) if patterns is None else patterns[layer]
            z = mix(pattern, v, attention)
            kept["patterns"].append(pattern)
        else:
            z = attend(q, k, v, attention, geometry)
        z = apply_edits(edits, ("head", layer), z)
        middle = x + attention_output(z, attention, block.attention_post_norm)
        read = x if weights.parallel else middle
        x = middle
        if block.mlp is not None:
            shared = weights.parallel and block.mlp_norm is block.attention_norm
            neurons = neuron_activations(normed if shared else normalise(read, block.mlp_norm), block.mlp)
            neurons = apply_edits(edits, ("neuron", layer), neurons)
            written = apply_edits(edits, ("mlp", layer), mlp_output(neurons, block.mlp, block.mlp_post_norm))
            if ("mlp", layer) in edits:
                edited_mlps[layer] = written
            x = middle + written
            kept["neurons"].append(neurons)
        for name, value in (("q", q), ("k", k), ("v", v), ("z", z), ("middles", middle), ("residuals", x)):
            kept[name].append(value)
        if keep == "logits":
            kept, edited_mlps = {name: [] for name in kept}, {}
    factors = {name: tuple(values) for name, values in kept.items()}
    return Run(weights=weights, tokens=tokens, logits=unembed(weights, x), edited_mlps=edited_mlps, **factors)
