"""What each token's embedding adds to a class's margin, to first order: differentiable by the weights, so that it can be held
to what people say."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Edit, TokenBatch
from circuits.models.edits import Compiled
from circuits.models.forward import Keep, forward
from circuits.models.layers import embed
from circuits.models.weights import Weights

Baseline = Literal["zero", "mean"]
"""The embedding that stands for no token: zeros, or the mean over the vocabulary."""


def baseline_stream(weights: Weights, tokens: TokenBatch, kind: Baseline) -> Float[Tensor, "text position d_model"]:
    """The residual stream before layer 0 with the baseline in place of every token, positions as they are."""
    if kind not in ("zero", "mean"):
        raise PromptError(f"baseline {kind!r}: expected zero or mean")
    mean = weights.W_E.mean(dim=0, keepdim=True)
    one = dataclasses.replace(weights, W_E=mean if kind == "mean" else torch.zeros_like(mean))
    return embed(one, TokenBatch(torch.zeros_like(tokens.ids), tokens.mask))


def margins(
    weights: Weights,
    tokens: TokenBatch,
    labels: Int[Tensor, " text"],
    x: Float[Tensor, "text position d_model"],
    *,
    keep: Keep = "patterns",
) -> Float[Tensor, " text"]:
    """The logit of each text's class over the mean of the others', with `x` as the residual stream before layer 0. Twice
    differentiable with `keep="patterns"`, by which attention is computed with its patterns: the fused kernel has no second
    derivative."""
    edits: Compiled = {("input", 0): [(None, Edit("input", x))]}
    return margins_of(forward(weights, tokens, edits=edits, keep=keep, columns=tokens.last).logits[:, 0], labels)


def margins_of(logits: Float[Tensor, "text class"], labels: Int[Tensor, " text"]) -> Float[Tensor, " text"]:
    """The logit of each text's class over the mean of the others'."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - (logits.sum(dim=1) - own) / (logits.shape[1] - 1)


def input_gradients(
    weights: Weights, tokens: TokenBatch, labels: Int[Tensor, " text"], *, baseline: Baseline = "zero", graph: bool = False
) -> Float[Tensor, "text position"]:
    """Input times gradient of each text's margin (Shrikumar 2016): (embedding - baseline) · d margin / d embedding, one number
    a token, 0 at pads. With `graph` it can be differentiated by the weights in turn.

    Args:
        weights: a classifier's (`Classifier.model.weights`).
        tokens: the texts.
        labels: the class of each whose margin over the mean of the others is explained.
        baseline: what stands for no token.
        graph: keep what a gradient by the weights needs.
    """
    with torch.enable_grad():
        x = embed(weights, tokens)
        x = x if x.requires_grad else x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(margins(weights, tokens, labels, x).sum(), x, create_graph=graph)
        found = ((x - baseline_stream(weights, tokens, baseline)) * slope).sum(dim=-1)
    found = found.masked_fill(~tokens.mask, 0.0)
    return found if graph else found.detach()
