"""What is read off a run: columns, tokens, and one number a prompt."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.layers import normalise, unembed
from circuits.models.weights import Weights
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric, needs_answers_only


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What is read off a run: `score` turns the logits `[prompt read d_vocab]` at `columns` `[prompt read]` into one
    number a prompt. With `tokens` `[prompt token]` only these tokens' logits are computed, `[prompt read token]`."""

    columns: Int[Tensor, "prompt read"]
    score: Callable[[Tensor], Tensor]
    tokens: Int[Tensor, "prompt token"] | None = None

    @classmethod
    def of(cls, metric: Metric, pairs: PromptPairs) -> "Reading":
        """A metric at the answer columns of pairs."""
        columns = pairs.answer_columns[:, None]
        if not needs_answers_only(metric):
            return cls(columns, lambda logits: metric(logits[:, 0], pairs))
        first = torch.zeros_like(pairs.answers)
        renamed = dataclasses.replace(pairs, answers=first, distractors=first + 1)
        tokens = torch.stack([pairs.answers, pairs.distractors], dim=1)
        return cls(columns, lambda logits: metric(logits[:, 0], renamed), tokens)

    def scores(self, weights: Weights, x: Float[Tensor, "stream prompt read d_model"]) -> Float[Tensor, "stream prompt"]:
        """The numbers of some runs from their final residual streams at the columns that are read."""
        if self.tokens is None:
            logits = unembed(weights, x)
        else:
            logits = torch.einsum("sprd,ptd->sprt", normalise(x, weights.final_norm), weights.W_U.T[self.tokens])
            logits = logits if weights.b_U is None else logits + weights.b_U[self.tokens][None, :, None]
            if weights.logit_soft_cap is not None:
                logits = weights.logit_soft_cap * torch.tanh(logits / weights.logit_soft_cap)
        return torch.stack([self.score(part) for part in logits])

    def at_columns(self, x: Float[Tensor, "prompt position d_model"]) -> Float[Tensor, "prompt read d_model"]:
        """What stands at the columns that are read."""
        return x[torch.arange(x.shape[0], device=x.device)[:, None], self.columns]
