"""What a classifier goes by, as shares of its tokens: machine rationales that can be differentiated by the weights."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import embed
from circuits.models.weights import Weights
from circuits.uses.attributing.gradients import baseline_stream, input_gradients, margins

Rationale = Literal["gradient", "attention", "learned"]
RATIONALES: tuple[Rationale, ...] = ("gradient", "attention", "learned")
STREAMS: tuple[Rationale, ...] = ("attention", "learned")
"""Those that are read from patterns and streams, which no head changes."""
REMOVAL = "removal"
"""What is not shares of tokens: by how much the margin moves when all unwanted tokens are taken away together."""
_NONE = 1e-9


@dataclasses.dataclass(eq=False)
class RationaleHead:
    """The small head of learned rationales: a number a token, from the last residual stream. Whenever it is used again, it
    first takes a step of Adam with what the last backward pass left in its gradients."""

    weight: Float[Tensor, " d_model"]
    adam: torch.optim.Adam

    @classmethod
    def of(cls, weights: Weights, *, rate: float = 1e-3) -> "RationaleHead":
        """An untrained one: all tokens alike."""
        weight = torch.zeros_like(weights.W_E[0]).detach().requires_grad_()
        return cls(weight, torch.optim.Adam([weight], lr=rate))

    def scores(self, stream: Float[Tensor, "text position d_model"]) -> Float[Tensor, "text position"]:
        """A number a token, after the step that is due."""
        if self.weight.grad is not None:
            self.adam.step()
            self.adam.zero_grad()
        normed = torch.nn.functional.layer_norm(stream, stream.shape[-1:])
        return normed @ self.weight


def removal_effects(
    weights: Weights, tokens: TokenBatch, labels: Int[Tensor, " text"], unwanted: Bool[Tensor, "text position"]
) -> Float[Tensor, " text"]:
    """By how much each text's margin (nats) falls when the mean embedding stands in place of its unwanted tokens;
    differentiable by the weights. Exact where a gradient is the first order of it."""
    x = embed(weights, tokens)
    without = torch.where(unwanted[:, :, None], baseline_stream(weights, tokens, "mean"), x)
    return margins(weights, tokens, labels, x) - margins(weights, tokens, labels, without)


def token_shares(
    weights: Weights,
    tokens: TokenBatch,
    labels: Int[Tensor, " text"],
    words: Bool[Tensor, "text position"],
    rationale: Rationale,
    scorer: RationaleHead | None = None,
) -> Float[Tensor, "text position"]:
    """How much each token of a word counts, in shares that sum to 1 over a text; 0 for other tokens.

    `gradient`: the size of input times gradient of the margin; `attention`: what the last token attends to, the mean over heads
    and layers; `learned`: the softmax of a small head's numbers (`scorer`). Raises PromptError for another one.
    """
    if rationale == "gradient":
        sizes = input_gradients(weights, tokens, labels, graph=True).abs()
    elif rationale == "attention":
        patterns = forward(weights, tokens, keep="patterns", logits=False).patterns
        rows = torch.arange(len(tokens), device=tokens.ids.device)
        sizes = torch.stack([pattern[rows, :, tokens.last].mean(dim=1) for pattern in patterns]).mean(dim=0)
    elif rationale == "learned" and scorer is not None:
        stream = forward(weights, tokens, keep="writes", logits=False).residuals[-1]
        return scorer.scores(stream).masked_fill(~words, -torch.inf).softmax(dim=1)
    else:
        raise PromptError(f"rationale {rationale!r}: expected one of {', '.join(RATIONALES)}, learned with its scorer")
    sizes = sizes.masked_fill(~words, 0.0)
    total = sizes.sum(dim=1, keepdim=True)
    # Where nothing counts, as under a head of zeros, shares have no gradient that says anything.
    some = total > _NONE
    return torch.where(some, sizes / torch.where(some, total, 1.0), 0.0)
