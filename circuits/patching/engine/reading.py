"""What is read off a run: columns, tokens, and one number a prompt."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.layers import linear, normalise, unembed
from circuits.models.weights import Weights
from circuits.tasks import PromptPairs
from circuits.tasks.metric import Metric, answer_tokens, answers_alone

VOCABULARY = 4096
"""Tokens that are unembedded at a time, at most, where only the sum over all is wanted."""
LOGITS = 2**20
"""Logits that are held at a time there, about: few enough that what is done to them finds them in the processor's cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What is read off a run: `score` turns the logits `[prompt read d_vocab]` at `columns` `[prompt read]` into one
    number a prompt. With `tokens` `[prompt token]` only these tokens' logits are computed, `[prompt read token]`, and
    with `normalised` their log-probabilities among all tokens in place of logits."""

    columns: Int[Tensor, "prompt read"]
    score: Callable[[Tensor], Tensor]
    tokens: Int[Tensor, "prompt token"] | None = None
    normalised: bool = False

    @classmethod
    def of(cls, metric: Metric, pairs: PromptPairs) -> "Reading":
        """A metric at the answer columns of pairs."""
        columns = pairs.answer_columns[:, None]
        if metric.reads == "all":
            return cls(columns, lambda logits: metric(logits[:, 0], pairs))
        alone = answers_alone(pairs)
        return cls(columns, lambda logits: metric(logits[:, 0], alone), answer_tokens(pairs))

    def logits(
        self, weights: Weights, x: Float[Tensor, "stream prompt read d_model"]
    ) -> Float[Tensor, "stream prompt read token"]:
        """The logits that `score` takes, of some runs from their final residual streams at the columns that are read."""
        if self.tokens is None:
            return unembed(weights, x)
        normed = normalise(x, weights.final_norm)
        logits = torch.einsum("sprd,ptd->sprt", normed, weights.W_U.T[self.tokens])
        logits = logits if weights.b_U is None else logits + weights.b_U[self.tokens][None, :, None]
        logits = capped(weights, logits)
        if not self.normalised:
            return logits
        total = log_sum(weights, normed)
        return logits.to(total.dtype) - total[..., None]

    def scores(self, weights: Weights, x: Float[Tensor, "stream prompt read d_model"]) -> Float[Tensor, "stream scored"]:
        """The numbers of some runs, one a prompt (of all prompts where these stand `among` others)."""
        return torch.stack([self.score(part) for part in self.logits(weights, x)])

    def among(self, rows: slice, weights: Weights, final: Float[Tensor, "prompt read d_model"]) -> "Reading":
        """The reading of some prompts' streams where a batch is cut but the metric has to see it whole: the other prompts
        stand still at `final`, their streams in the same run. Its `scores` are the numbers of all prompts, so that their
        sum's gradient by these streams is what it would be without the cut."""
        with torch.no_grad():
            still = self.logits(weights, final[None])[0]
        before, after = still[: rows.start], still[rows.stop :]
        tokens = None if self.tokens is None else self.tokens[rows]
        return Reading(
            self.columns[rows], lambda logits: self.score(torch.cat([before, logits, after])), tokens, self.normalised
        )

    def at_columns(self, x: Float[Tensor, "prompt position d_model"]) -> Float[Tensor, "prompt read d_model"]:
        """What stands at the columns that are read."""
        return x[torch.arange(x.shape[0], device=x.device)[:, None], self.columns]


def capped(weights: Weights, logits: Tensor) -> Tensor:
    """Logits as the model gives them out."""
    return logits if weights.logit_soft_cap is None else weights.logit_soft_cap * torch.tanh(logits / weights.logit_soft_cap)


def log_sum(weights: Weights, normed: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
    """log of the sum of exp over all logits, in float32 at least, from what the unembedding reads: a part of the vocabulary
    at a time, so that not all logits are held (they are d_vocab / d_model times as large)."""
    rows, W, b = normed.reshape(-1, normed.shape[-1]), weights.W_U, weights.b_U
    sums = []
    tokens = max(VOCABULARY // 8, min(VOCABULARY, LOGITS // max(1, len(rows))))
    for start in range(0, W.shape[1], tokens):
        part = slice(start, start + tokens)
        logits = capped(weights, linear(rows, W[:, part], None if b is None else b[part]))
        sums.append(logits.to(torch.promote_types(logits.dtype, torch.float32)).logsumexp(dim=-1))
    return torch.stack(sums).logsumexp(dim=0).reshape(normed.shape[:-1])


def read_within(
    budget: int, metric: Metric, pairs: PromptPairs, weights: Weights, x: Float[Tensor, "stream prompt read d_model"]
) -> Float[Tensor, "stream prompt"]:
    """The metric of some runs from their final residual streams at the answer columns, with about as many logits at a time as
    fit the budget (bytes). Runs are told apart first; prompts only where the metric scores each by itself."""
    tokens = answer_tokens(pairs).shape[1] if metric.reads == "answers" else weights.W_U.shape[1]
    room = max(1, budget // (4 * tokens * max(4, x.element_size())))
    if room < len(pairs) and metric.by_prompt:
        rows = [slice(start, min(start + room, len(pairs))) for start in range(0, len(pairs), room)]
        readings = [(some, Reading.of(metric.on(some), pairs[some])) for some in rows]
        parts = ([one.scores(weights, stream[None, some])[0] for some, one in readings] for stream in x)
        return torch.stack([torch.cat(part) for part in parts])
    reading = Reading.of(metric, pairs)
    return torch.cat([reading.scores(weights, some) for some in x.split(max(1, room // len(pairs)))])
