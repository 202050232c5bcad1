"""What edges outside a circuit carry, and what every node does that reads nothing else."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Run
from circuits.models.folding import through_norm
from circuits.models.geometry import Geometry
from circuits.models.layers import (
    SLOTS,
    attend,
    attention_output,
    linear,
    mlp_output,
    norm_scale,
    normalise,
    placed,
    pre_activations,
    project,
)
from circuits.models.weights import Block, Norm

OutsideKind = Literal["corrupt", "mean", "zero"]
"""What edges outside a circuit carry: the corrupt (other) run's values, their mean over prompts, or zero."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerOutside:
    """One layer. `heads` and `mlp` (or `neurons`) are what edges outside carry: coordinates before the output weights, or
    the MLP's whole output; the other fields are what the layer computes with when it reads nothing but that."""

    attention_reads: Float[Tensor, "prompt position d_model"]
    mlp_reads: Float[Tensor, "prompt position d_model"] | None
    slots: dict[str, Float[Tensor, "prompt position group d_head"]]
    z: Float[Tensor, "prompt position head d_head"]
    heads: Float[Tensor, "prompt position head d_head"]
    pre: tuple[Float[Tensor, "prompt position d_mlp"], ...]
    neurons: Float[Tensor, "prompt position d_mlp"] | None
    mlp: Float[Tensor, "prompt position d_model"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Outside:
    """What edges outside the circuit carry, from the input to the logits."""

    input: Float[Tensor, "prompt position d_model"]
    layers: tuple[LayerOutside, ...]
    final: Float[Tensor, "prompt position d_model"]
    resting: bool
    """Whether a node that reads only what is outside gives just what edges outside carry (true of a whole run's values)."""


def outside_of(kind: OutsideKind, other: Run, *, neurons: bool = False) -> Outside:
    """Values from the run `other` as they are ("corrupt"), their mean over prompts (by position where all prompts are of one
    length, else over all tokens), or zero; of single neurons or of whole MLPs with their bias."""
    if kind == "corrupt":
        return _of_run(other)
    if kind == "zero":
        return _held(other, torch.zeros_like, neurons)
    mask = other.tokens.mask

    def mean(values: Tensor) -> Tensor:
        """The mean over prompts, in the place of each value."""
        # Position by position only where positions mean the same in all prompts; pads are no tokens and count in no mean.
        if bool(mask.all()):
            return values.mean(dim=0, keepdim=True).expand_as(values)
        return values[mask].mean(dim=0).expand_as(values)

    return _held(other, mean, neurons)


def prompts_outside(rest: Outside, part: slice) -> Outside:
    """What is outside for some prompts."""

    def cut(value: Any) -> Any:
        """Some prompts of a value, inside whatever holds it."""
        if isinstance(value, Tensor):
            return value[part]
        if isinstance(value, dict):
            return {name: cut(item) for name, item in value.items()}
        return tuple(cut(item) for item in value) if isinstance(value, tuple) else value

    layers = tuple(
        type(layer)(**{field.name: cut(getattr(layer, field.name)) for field in dataclasses.fields(layer)})
        for layer in rest.layers
    )
    return Outside(rest.input[part], layers, rest.final[part], rest.resting)


def _of_run(run: Run) -> Outside:
    layers = []
    for layer, block in enumerate(run.weights.blocks):
        reads = run.residuals[layer] if run.weights.parallel else run.middles[layer]
        neurons, written, pre = None, None, ()
        if block.mlp is not None:
            pre = pre_activations(normalise(reads, block.mlp_norm), block.mlp)
            neurons = scaled_neurons(run.neurons[layer], block)
            written = mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm)
        slots = {slot: getattr(run, slot)[layer] for slot in SLOTS}
        # Before the output weights: d_head numbers a head and token instead of d_model.
        heads = scaled_heads(run.z[layer], block)
        layers.append(
            LayerOutside(run.residuals[layer], reads if block.mlp else None, slots, run.z[layer], heads, pre, neurons, written)
        )
    return Outside(run.residuals[0], tuple(layers), run.residuals[-1], True)


def _held(run: Run, change: Callable[[Tensor], Tensor], by_neuron: bool) -> Outside:
    """Every node's value changed to a constant of its own, and what each node does that reads such constants alone."""
    weights, geometry = run.weights, Geometry(run.weights, run.tokens, run.residuals[0].dtype)
    # Two things go side by side: what edges carry (constants) and what each node would compute from them (slots, z, pre), which
    # is what a circuit's reader starts from that has no edge inside.
    x = start = change(run.residuals[0])
    layers = []
    for layer, block in enumerate(weights.blocks):
        before, attention = x, block.attention
        normed = normalise(x, block.attention_norm)
        slots = {slot: placed(project(normed, attention, slot), slot, geometry.rotation(layer)) for slot in SLOTS}
        z = attend(slots["q"], slots["k"], slots["v"], attention, geometry.bias(attention.window))
        heads = change(scaled_heads(run.z[layer], block))
        x = x + heads.flatten(2) @ through_norm(attention.W_O, block.attention_post_norm)
        # An output bias is no node's: it is there whatever a circuit holds, else the empty circuit would lack it.
        x = x if (bias := shared_bias(attention.b_O, block.attention_post_norm)) is None else x + bias
        if block.mlp is None:
            layers.append(LayerOutside(before, None, slots, z, heads, (), None, None))
            continue
        reads = before if weights.parallel else x
        pre = pre_activations(normalise(reads, block.mlp_norm), block.mlp)
        neurons, written = scaled_neurons(run.neurons[layer], block), None
        if by_neuron:
            # Of neurons b_out is nobody's as well; a whole MLP is replaced with it.
            neurons, bias = change(neurons), shared_bias(block.mlp.b_out, block.mlp_post_norm)
            x = x + neurons @ through_norm(block.mlp.W_out, block.mlp_post_norm)
            x = x if bias is None else x + bias
        else:
            written = change(mlp_output(run.neurons[layer], block.mlp, block.mlp_post_norm))
            x = x + written
        layers.append(LayerOutside(before, reads, slots, z, heads, pre, neurons, written))
    return Outside(start, tuple(layers), x, False)


def scaled_heads(z: Float[Tensor, "... head d_head"], block: Block) -> Float[Tensor, "... head d_head"]:
    """Mixed values over the scale of the norm after attention, where there is one."""
    # The norm behind divides the sum of heads by one number; dividing each head by it makes what they write add up again.
    post = block.attention_post_norm
    return z if post is None else z / norm_scale(attention_output(z, block.attention, None), post)[..., None]


def scaled_neurons(neurons: Float[Tensor, "... d_mlp"], block: Block) -> Float[Tensor, "... d_mlp"]:
    """Activations over the scale of the norm after the MLP, where there is one."""
    post, mlp = block.mlp_post_norm, block.mlp
    assert mlp is not None
    return neurons if post is None else neurons / norm_scale(linear(neurons, mlp.W_out, mlp.b_out), post)


def shared_bias(bias: Tensor | None, norm: Norm | None) -> Tensor | None:
    """What a sublayer writes beside its nodes: its output bias, or that of the norm after it."""
    return bias if norm is None else norm.bias
