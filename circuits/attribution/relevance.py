"""Gradients by the rules of relevance propagation: every nonlinearity is held at what it does to its present input.

Norms divide by their present scale, attention patterns stay, an activation multiplies its input by the present ratio of
output to input, and a gated product's relevance goes half to either factor (RelP: Jafari et al. 2025, after Bach et al. 2015
and Achtibat et al. 2024). Values are those of the plain run; gradients are not.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.gradients import Gradients, back_from
from circuits.models import Model, Run, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import activate, linear, mix, norm_scale
from circuits.models.run import Reads
from circuits.models.weights import MLP, Attention, Block, Norm, Weights
from circuits.patching.engine.reading import Reading


def relevance(model: Model, reading: Reading, tokens: TokenBatch, *, writers: bool = True, heads: bool = False) -> Gradients:
    """Gradients by the rules above of the metric that is read; those by queries and keys are zero. `writers` and `heads` as in
    `gradients`. Raises NonFiniteError."""
    weights = model.weights
    with torch.no_grad():
        plain = forward(weights, model.prepare(tokens), keep="patterns", logits=False)
    with torch.enable_grad():
        run = _linearised(weights, plain)
        final = reading.at_columns(run.residuals[-1])
        still = dataclasses.replace(weights, final_norm=None)
        scores = reading.scores(still, held_norm(final, weights.final_norm)[None])[0]
        return back_from(scores, run, writers=writers, heads=heads, held_norms=True)


def _linearised(weights: Weights, plain: Run) -> Run:
    """The run again, so that its gradients follow the rules."""
    x = plain.residuals[0].detach().requires_grad_(True)
    kept: dict[str, list[Any]] = {"residuals": [x], "middles": [], "v": [], "z": [], "neurons": [], "reads": [], "mlps": []}
    for layer, block in enumerate(weights.blocks):
        before, attention = x, block.attention
        v = linear(held_norm(x, block.attention_norm), attention.W_V, attention.b_V)
        split = v.unflatten(-1, (attention.n_key_value_heads, -1))
        z = mix(plain.pattern(layer).detach(), split, attention)
        x = x + held_norm(_written(z.flatten(2), attention), block.attention_post_norm)
        kept["middles"].append(x)
        source = None
        if block.mlp is not None:
            source = before.view_as(before) if weights.parallel else x.view_as(x)
            neurons = _held_neurons(held_norm(source, block.mlp_norm), block.mlp)
            kept["neurons"].append(neurons)
            kept["mlps"].append(held_norm(linear(neurons, block.mlp.W_out, block.mlp.b_out), block.mlp_post_norm))
            x = x + kept["mlps"][-1]
        for name, value in (("residuals", x), ("v", split), ("z", z), ("reads", _reads(plain, layer, block, v, source))):
            kept[name].append(value)
    return dataclasses.replace(plain, patterns=(), **{name: tuple(values) for name, values in kept.items()})


def _written(z: Tensor, attention: Attention) -> Tensor:
    return linear(z, attention.W_O, attention.b_O)


def _reads(plain: Run, layer: int, block: Block, v: Tensor, source: Tensor | None) -> Reads:
    """Linear parts; those of queries and keys carry nothing and stand for their shapes."""
    q, k = (getattr(plain, slot)[layer].flatten(2) for slot in ("q", "k"))
    return Reads(q, k, v, mlp=source)


def held_norm(x: Tensor, norm: Norm | None) -> Tensor:
    """A norm with its scale held."""
    if norm is None:
        return x
    centred = x - x.mean(dim=-1, keepdim=True) if norm.kind == "layer" else x
    out = centred / norm_scale(x, norm).detach()
    out = out if norm.weight is None else out * norm.weight
    return out if norm.bias is None else out + norm.bias


def _held_neurons(x: Tensor, mlp: MLP) -> Tensor:
    """Activations with the activation function held as a factor; a gated product shares its relevance in halves."""
    straight = linear(x, mlp.W_in, mlp.b_in)
    if mlp.W_gate is None:
        return straight * _ratio(straight, mlp)
    gate = linear(x, mlp.W_gate, mlp.b_gate)
    gate = gate * _ratio(gate, mlp)
    return (gate * straight.detach() + gate.detach() * straight) / 2


def _ratio(x: Tensor, mlp: MLP) -> Tensor:
    """Output over input of the activation function; where the input is zero, its slope there."""
    x = x.detach()
    tiny = x.abs() < 1e-6
    safe = torch.where(tiny, torch.full_like(x, 1e-6), x)
    return torch.where(tiny, activate(safe, mlp.activation) / safe, activate(x, mlp.activation) / safe)
