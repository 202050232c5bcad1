"""The pieces of a forward pass: norms, embedding, attention, MLPs, unembedding, each a plain function on weights."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuits.models.geometry import Rotation, rotate
from circuits.models.tokens import TokenBatch
from circuits.models.weights import MLP, Activation, Attention, Norm, Weights

Slot = Literal["q", "k", "v"]
SLOTS: tuple[Slot, ...] = ("q", "k", "v")


def normalise(x: Float[Tensor, "... width"], norm: Norm | None) -> Float[Tensor, "... width"]:
    """LayerNorm or RMSNorm over the last axis; RMSNorm computes in at least float32 as the originals do."""
    if norm is None:
        return x
    if norm.kind == "layer":
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    # Squares of half-precision numbers overflow or lose their digits; the originals widen here too.
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    # A product of its own, so that the gain can be multiplied in place: a new tensor costs as much as the arithmetic on it.
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + norm.eps)
    return (wide if norm.weight is None else wide.mul_(norm.weight)).to(x.dtype)


def norm_scale(x: Float[Tensor, "... width"], norm: Norm | None) -> Float[Tensor, "... 1"]:
    """The number a norm divides by: sqrt(variance + eps) for LayerNorm, sqrt(mean square + eps) for RMSNorm, else 1."""
    if norm is None:
        return torch.ones_like(x[..., :1])
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(dim=-1, keepdim=True) if norm.kind == "layer" else wide
    return (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt().to(x.dtype)


def activate(x: Float[Tensor, "... d_mlp"], kind: Activation) -> Float[Tensor, "... d_mlp"]:
    """The nonlinearity of an MLP. An infinite x, one that overflowed, gives an infinity or NaN under every one of them."""
    match kind:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            # ReLU alone would make 0 of minus infinity. Yet in which infinity a sum ends whose terms are too large depends on
            # the order of its additions, so on the processor: a 0 there would be chance. Minus infinity times a slope of zero
            # is NaN, as under the other activations, and all checks see it; minus zero leaves no -0.0 for numbers below 0.
            # Sums in float16 are made in float32: minus infinity is then a true number below all that float16 holds.
            return F.relu(x) if x.dtype == torch.float16 else F.leaky_relu(x, negative_slope=-0.0)
        case "silu":
            return F.silu(x)
        case "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        case "solu":
            return x * x.softmax(dim=-1)


def activate_(x: Float[Tensor, "... d_mlp"], kind: Activation) -> Float[Tensor, "... d_mlp"]:
    """`activate`, written over `x` where there is an operation that does so."""
    match kind:
        case "gelu":
            return torch.ops.aten.gelu_(x)
        case "gelu_tanh":
            return torch.ops.aten.gelu_(x, approximate="tanh")
        case "silu":
            return F.silu(x, inplace=True)
        case _:
            return activate(x, kind)


def linear(x: Float[Tensor, "... d_in"], W: Tensor, b: Tensor | None) -> Float[Tensor, "... d_out"]:
    """`x @ W + b` as one matrix product."""
    if b is None:
        return x @ W
    return torch.addmm(b, x.reshape(-1, x.shape[-1]), W).unflatten(0, x.shape[:-1])


def projected(x: Float[Tensor, "... d_model"], attention: Attention, slot: Slot) -> Float[Tensor, "... head_d_head"]:
    """The linear part of queries, keys or values: what they are before any norm of theirs and before rotary positions."""
    return linear(x, getattr(attention, f"W_{slot.upper()}"), getattr(attention, f"b_{slot.upper()}"))


def headed(out: Float[Tensor, "... head_d_head"], attention: Attention, slot: Slot) -> Float[Tensor, "... head d_head"]:
    """The linear part of queries, keys or values with q/k norms applied, split into heads (for keys and values one a
    key-value group)."""
    heads = attention.n_heads if slot == "q" else attention.n_key_value_heads
    norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
    if attention.norm_over_heads:
        out = normalise(out, norm)
    out = out.unflatten(-1, (heads, -1))
    return out if attention.norm_over_heads else normalise(out, norm)


def project(x: Float[Tensor, "... d_model"], attention: Attention, slot: Slot) -> Float[Tensor, "... head d_head"]:
    """Queries, keys or values from the normed residual, with q/k norms applied and rotary positions not yet; keys and
    values have one head a key-value group."""
    return headed(projected(x, attention, slot), attention, slot)


def placed(x: Tensor, slot: Slot, rotation: Rotation | None) -> Tensor:
    """Projected queries, keys or values with rotary positions applied, where the layer has them (`Geometry.rotation`)."""
    return x if rotation is None or slot == "v" else rotate(x, rotation)


def attention_pattern(
    q: Float[Tensor, "prompt query head d_head"],
    k: Float[Tensor, "prompt key group d_head"],
    attention: Attention,
    bias: Tensor | None,
) -> Float[Tensor, "prompt head query key"]:
    """Softmax of the scaled, capped and masked scores; rows sum to 1. `bias` is added to the scores; None masks what lies
    ahead."""
    k = k.repeat_interleave(attention.n_heads // attention.n_key_value_heads, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * attention.scale
    if attention.soft_cap is not None:
        scores = attention.soft_cap * torch.tanh(scores / attention.soft_cap)
    if bias is None:
        width = scores.shape[-1]
        future = torch.ones(width, width, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    else:
        scores = scores + bias
    # Sums of many small numbers: softmax in float32, as the originals do.
    half = scores.dtype in (torch.bfloat16, torch.float16)
    return scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype) if half else scores.softmax(dim=-1)


def mix(
    pattern: Float[Tensor, "prompt head query key"], v: Float[Tensor, "prompt key group d_head"], attention: Attention
) -> Float[Tensor, "prompt query head d_head"]:
    """z: values averaged by the pattern."""
    v = v.repeat_interleave(attention.n_heads // attention.n_key_value_heads, dim=2)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)


def attend(
    q: Tensor, k: Tensor, v: Tensor, attention: Attention, bias: Tensor | None
) -> Float[Tensor, "prompt query head d_head"]:
    """z without holding the pattern (fused where the scores have no soft cap); `bias` as in `attention_pattern`."""
    if attention.soft_cap is not None:
        # The fused kernel has no soft cap of the scores.
        return mix(attention_pattern(q, k, attention, bias), v, attention)
    groups = attention.n_heads // attention.n_key_value_heads
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    z = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None, scale=attention.scale)
    return z.transpose(1, 2)


def attention_output(z: Float[Tensor, "... head d_head"], attention: Attention, post: Norm | None) -> Tensor:
    """What attention adds to the residual stream, `[... d_model]`."""
    return normalise(linear(z.flatten(-2), attention.W_O, attention.b_O), post)


def pre_activations(x: Float[Tensor, "... d_model"], mlp: MLP) -> tuple[Tensor, ...]:
    """What each neuron computes with, `[... d_mlp]`, from the normed residual: `x W_in + b_in` and, where there is one,
    the gate's `x W_gate + b_gate`."""
    linear_part = linear(x, mlp.W_in, mlp.b_in)
    return (linear_part,) if mlp.W_gate is None else (linear_part, linear(x, mlp.W_gate, mlp.b_gate))


def activated(pre: tuple[Float[Tensor, "... d_mlp"], ...], mlp: MLP) -> Float[Tensor, "... d_mlp"]:
    """Each neuron's activation from its pre-activations."""
    if mlp.W_gate is None:
        return activate(pre[0], mlp.activation)
    return activate(pre[1], mlp.activation) * pre[0]


def neuron_activations(x: Float[Tensor, "... d_model"], mlp: MLP) -> Float[Tensor, "... d_mlp"]:
    """Each neuron's activation from the normed residual."""
    if torch.is_grad_enabled():
        return activated(pre_activations(x, mlp), mlp)
    # Nobody asks for gradients, and nobody else holds what lies between: it is written over, for these are the widest tensors
    # of a layer, and every new one costs about as much as the arithmetic on it.
    if mlp.W_gate is None:
        return activate_(linear(x, mlp.W_in, mlp.b_in), mlp.activation)
    return activate_(linear(x, mlp.W_gate, mlp.b_gate), mlp.activation).mul_(linear(x, mlp.W_in, mlp.b_in))


def mlp_output(neurons: Float[Tensor, "... d_mlp"], mlp: MLP, post: Norm | None) -> Tensor:
    """What an MLP adds to the residual stream, `[... d_model]`."""
    return normalise(linear(neurons, mlp.W_out, mlp.b_out), post)


def embed(weights: Weights, tokens: TokenBatch, noise: Tensor | None = None) -> Float[Tensor, "prompt position d_model"]:
    """The residual stream before layer 0: scaled token embeddings, their norm, learned positions. `noise` of that shape is
    added to the token embeddings before all else."""
    x = F.embedding(tokens.ids, weights.W_E)
    x = x if noise is None else x + noise
    if weights.embedding_scale != 1.0:
        # The scale is rounded to the model's type first, as Gemma's code does: in bfloat16 that is another number.
        x = x * torch.tensor(weights.embedding_scale, dtype=x.dtype, device=x.device)
    x = normalise(x, weights.embedding_norm)
    if weights.W_pos is None:
        return x
    if tokens.padded:
        return x + weights.W_pos[tokens.positions]
    return x + weights.W_pos[: tokens.ids.shape[1]]


def unembed(weights: Weights, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab_out"]:
    """Logits from the final residual stream."""
    x = normalise(x, weights.final_norm)
    flat = x.reshape(-1, x.shape[-1])
    logits = flat @ weights.W_U if weights.b_U is None else torch.addmm(weights.b_U, flat, weights.W_U)
    if weights.logit_soft_cap is not None:
        logits = weights.logit_soft_cap * torch.tanh(logits / weights.logit_soft_cap)
    return logits.unflatten(0, x.shape[:-1])
