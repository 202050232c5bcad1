"""Norms as linear maps: what stands in front of weights or behind them, but for the scale and the bias."""

from jaxtyping import Float
from torch import Tensor

from circuits.models.weights import Norm


def behind_norm(W: Float[Tensor, "*stack d_model columns"], norm: Norm | None) -> Float[Tensor, "*stack d_model columns"]:
    """Weights that read behind a norm, its gain and then its centring folded in: `(x / scale) @ this` is what they read."""
    if norm is None:
        return W
    W = W if norm.weight is None else norm.weight[:, None] * W
    return W - W.mean(dim=-2, keepdim=True) if norm.kind == "layer" else W


def through_norm(
    x: Float[Tensor, "*stack d_model"], norm: Norm | None, scale: float | Tensor = 1.0
) -> Float[Tensor, "*stack d_model"]:
    """What vectors (of a residual stream, or rows of output weights) become in a norm but for its bias: centred where it
    centres, times its gain, over the scale."""
    if norm is None:
        return x
    x = x - x.mean(dim=-1, keepdim=True) if norm.kind == "layer" else x
    x = x if norm.weight is None else x * norm.weight
    return x if isinstance(scale, float) and scale == 1.0 else x / scale
