"""One number a prompt from the logits at its answer column.

A metric is called as `metric(logits, pairs)`: `logits` `[prompt d_vocab]` are those at `pairs.answer_columns`
(`answer_logits` picks them), the result is `[prompt]`. Logits in half precision are widened to float32. The metrics here
raise NonFiniteError, with the prompt's name, for a logit that is NaN or infinite, and PromptError for logits of another
number of prompts.

Every function that takes a metric takes one of these, or anything that can be called in this way: a function, a
`functools.partial`, an object, a lambda over certain prompts. `Metric.of` wraps it. Nothing is known of such a metric, not
even whether a prompt's number comes from its own logits alone, so it always sees all prompts at once: a memory budget may
cut what is computed before it, never what it is given.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.tasks.gaps import refuse_non_finite
from circuits.tasks.metric import (
    AnyMetric,
    Metric,
    Relative,
    Rows,
    Score,
    answer_logits,
    answer_tokens,
    answers_alone,
    fitted,
    named,
    widened,
)
from circuits.tasks.prompts import PromptPairs

__all__ = [
    "METRICS",
    "AnyMetric",
    "Metric",
    "Relative",
    "Rows",
    "Score",
    "accuracy",
    "answer_logits",
    "answer_tokens",
    "answers_alone",
    "fitted",
    "kl_divergence",
    "log_probability",
    "logit_difference",
    "probability",
    "probability_difference",
    "rank",
]


def _metric(
    *, unit: str = "", reads: Literal["answers", "all"] = "all", differentiable: bool = True, lower_is_better: bool = False
) -> Callable[[Score], Metric]:
    """Make a metric of a function that scores every prompt by itself, under the function's name."""
    return lambda score: Metric(named(score), score, unit, reads, differentiable, lower_is_better, by_prompt=True)


@_metric(unit="nats", reads="answers")
def logit_difference(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """Answer's logit minus distractor's, in nats; positive = the answer is preferred (Wang et al. 2022).

    Of several answers, and of several distractors, the mean of their logits or the largest, as `pairs.several` says.

    Args:
        logits: those at the answer columns (`answer_logits` picks them).
        pairs: whose answers and distractors are read.

    >>> import circuits, torch
    >>> pairs = circuits.PromptPairs.from_tokens(5, clean=[[1, 2]], corrupt=[[1, 3]], answers=[4], distractors=[0])
    >>> circuits.metrics.logit_difference(torch.tensor([[1.0, 0.0, 0.0, 0.0, 3.5]]), pairs)
    tensor([2.5000])
    """
    wide = _checked(logits, pairs)
    return _of(wide, pairs, _mean) - _of(wide, pairs, _mean, wrong=True)


@_metric(unit="nats")
def log_probability(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """Log of the answer's probability, in nats; at most 0, higher = the answer is more likely. Probabilities of several answers
    add up, or the largest counts, as `pairs.several` says."""
    return _of(_checked(logits, pairs).log_softmax(dim=-1), pairs, _log_sum)


@_metric()
def probability(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """The answer's probability, 0 to 1; higher = the answer is more likely (Meng et al. 2022). Those of several answers add
    up, or the largest counts, as `pairs.several` says."""
    return _of(_checked(logits, pairs).softmax(dim=-1), pairs, _sum)


@_metric()
def probability_difference(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """The answer's probability minus the distractor's, -1 to 1; positive = the answer is preferred. Those of several answers,
    and of several distractors, add up (Hanna et al. 2023), or the largest count, as `pairs.several` says."""
    chances = _checked(logits, pairs).softmax(dim=-1)
    return _of(chances, pairs, _sum) - _of(chances, pairs, _sum, wrong=True)


@_metric(unit="tokens", differentiable=False, lower_is_better=True)
def rank(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """How many other tokens have a logit as high as the answer's or higher: 0 = top, lower is better; a tie counts
    against the answer. Of several answers the best one counts, and none of the others stands before it. No gradient."""
    wide = _checked(logits, pairs)
    if pairs.answer_sets is None:
        return ((wide >= _at(wide, pairs.answers)[:, None]).sum(dim=-1) - 1).to(wide.dtype)
    sets = pairs.answer_sets.to(wide.device)
    own = wide.gather(-1, sets.clamp(min=0)).masked_fill(sets < 0, -torch.inf)
    best = own.max(dim=-1, keepdim=True).values
    return ((wide >= best).sum(dim=-1) - (own >= best).sum(dim=-1)).to(wide.dtype)


@_metric(differentiable=False)
def accuracy(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """1 where the answer's logit (of several, that of one) is above every other token's, else 0 (a tie is 0). No gradient."""
    return (rank(logits, pairs) == 0).to(widened(logits).dtype)


def _kl_divergence(reference: Float[Tensor, "prompt d_vocab"]) -> Metric:
    """The metric KL(reference ‖ logits) in nats: 0 = the same next-token distribution as `reference` (logits
    `[prompt d_vocab]`, usually the clean run's), larger = further from it (Conmy et al. 2023).

    The metric raises PromptError for logits of another shape than `reference`. Given to a function as it is,
    `kl_divergence` compares with the clean run of the prompts that the function works on.
    """

    def divergence(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
        """KL(reference ‖ logits) in nats."""
        if logits.shape != reference.shape:
            raise PromptError(f"logits have shape {tuple(logits.shape)}, the reference {tuple(reference.shape)}")
        log_p = _checked(reference, pairs).log_softmax(dim=-1)
        log_q = _checked(logits, pairs).log_softmax(dim=-1)
        return torch.einsum("pv,pv->p", log_p.exp(), log_p - log_q)

    def part(rows: Rows) -> Metric:
        """The metric of some prompts."""
        return _kl_divergence(reference[rows])

    return Metric("kl_divergence", divergence, unit="nats", lower_is_better=True, by_prompt=True, part=part)


kl_divergence = Relative("kl_divergence", _kl_divergence)

_ALL = (logit_difference, log_probability, probability, probability_difference, rank, accuracy, kl_divergence)
METRICS: Mapping[str, Metric | Relative] = MappingProxyType({metric.name: metric for metric in _ALL})
"""Every metric of the package by its name."""


def _checked(logits: Tensor, pairs: PromptPairs) -> Tensor:
    if logits.shape[0] != len(pairs):
        raise PromptError(f"logits of {logits.shape[0]} prompts for {len(pairs)} pairs")
    wide = widened(logits)
    if not bool(wide.detach().isfinite().all()):
        # The first bad logit of each prompt, so that the message says NaN or infinity as it was.
        column = (~wide.detach().isfinite()).long().argmax(dim=-1)
        refuse_non_finite(_at(wide, column), pairs, "a logit")
    return wide


def _at(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens.to(values.device).long()[:, None])[:, 0]


def _of(
    values: Tensor, pairs: PromptPairs, joined: Callable[[Tensor, Tensor], Tensor], *, wrong: bool = False
) -> Float[Tensor, " prompt"]:
    """The values at the answers (or distractors); several of a prompt joined, `joined(values, there)`, or the largest."""
    first, sets = (pairs.distractors, pairs.distractor_sets) if wrong else (pairs.answers, pairs.answer_sets)
    if sets is None:
        return _at(values, first)
    sets = sets.to(values.device)
    there, found = sets >= 0, values.gather(-1, sets.clamp(min=0).long())
    if pairs.several == "max":
        return found.masked_fill(~there, -torch.inf).max(dim=-1).values
    return joined(found, there)


def _mean(found: Tensor, there: Tensor) -> Tensor:
    return _sum(found, there) / there.sum(dim=-1)


def _sum(found: Tensor, there: Tensor) -> Tensor:
    return found.masked_fill(~there, 0).sum(dim=-1)


def _log_sum(found: Tensor, there: Tensor) -> Tensor:
    return found.masked_fill(~there, -torch.inf).logsumexp(dim=-1)
