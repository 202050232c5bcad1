"""One number a prompt from the logits at its answer column.

A metric is a pure function `metric(logits, pairs)`: `logits` `[prompt d_vocab]` are those at `pairs.answer_columns`
(`answer_logits` picks them), the result is `[prompt]`. Logits in half precision are widened to float32. Every metric
raises NonFiniteError, with the prompt's name, for a logit that is NaN or infinite, and PromptError for logits of
another number of prompts.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Run
from circuits.tasks.prompts import PromptPairs, refuse_non_finite

Metric = Callable[[Tensor, PromptPairs], Tensor]


def answer_logits(run: Run, pairs: PromptPairs) -> Float[Tensor, "prompt d_vocab"]:
    """The logits `[prompt d_vocab]` of a run (of the clean or of the corrupt prompts) at the answer columns.

    Raises PromptError where the run is not of these prompts' shape.
    """
    if run.logits.shape[:2] != pairs.clean.ids.shape:
        raise PromptError(f"the run has logits of shape {tuple(run.logits.shape)}, the pairs {tuple(pairs.clean.ids.shape)}")
    rows = torch.arange(len(pairs), device=run.logits.device)
    return run.logits[rows, pairs.answer_columns.to(run.logits.device)]


def logit_difference(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """Answer's logit minus distractor's, in nats; positive = the answer is preferred (Wang et al. 2022)."""
    wide = _checked(logits, pairs)
    return _at(wide, pairs.answers) - _at(wide, pairs.distractors)


def needs_answers_only(metric: Metric) -> bool:
    """Whether a metric reads the logits of answer and distractor alone, so that no others need be computed."""
    return metric is logit_difference


def log_probability(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """Log of the answer's probability, in nats; at most 0, higher = the answer is more likely."""
    return _at(_checked(logits, pairs).log_softmax(dim=-1), pairs.answers)


def probability(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """The answer's probability, 0 to 1; higher = the answer is more likely (Meng et al. 2022)."""
    return _at(_checked(logits, pairs).softmax(dim=-1), pairs.answers)


def rank(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """How many other tokens have a logit as high as the answer's or higher: 0 = top, lower is better; a tie counts
    against the answer. No gradient."""
    wide = _checked(logits, pairs)
    return ((wide >= _at(wide, pairs.answers)[:, None]).sum(dim=-1) - 1).to(wide.dtype)


def accuracy(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
    """1 where the answer's logit is above every other token's, else 0 (a tie is 0). No gradient."""
    return (rank(logits, pairs) == 0).to(_wide(logits).dtype)


def kl_divergence(reference: Float[Tensor, "prompt d_vocab"]) -> Metric:
    """The metric KL(reference ‖ logits) in nats: 0 = the same next-token distribution as `reference` (logits
    `[prompt d_vocab]`, usually the clean run's), larger = further from it (Conmy et al. 2023).

    The metric raises PromptError for logits of another shape than `reference`.
    """

    def divergence(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
        """KL(reference ‖ logits) in nats."""
        if logits.shape != reference.shape:
            raise PromptError(f"logits have shape {tuple(logits.shape)}, the reference {tuple(reference.shape)}")
        log_p = _checked(reference, pairs).log_softmax(dim=-1)
        log_q = _checked(logits, pairs).log_softmax(dim=-1)
        return torch.einsum("pv,pv->p", log_p.exp(), log_p - log_q)

    divergence.__name__ = "kl_divergence"
    divergence.part = lambda rows: kl_divergence(reference[rows])  # type: ignore[attr-defined]
    return divergence


def of_prompts(metric: Metric, rows: slice) -> Metric:
    """The metric of some of its prompts: one that holds something for every prompt has a `part` that cuts it down."""
    part = getattr(metric, "part", None)
    return metric if part is None else part(rows)


def _checked(logits: Tensor, pairs: PromptPairs) -> Tensor:
    if logits.shape[0] != len(pairs):
        raise PromptError(f"logits of {logits.shape[0]} prompts for {len(pairs)} pairs")
    wide = _wide(logits)
    if not bool(wide.detach().isfinite().all()):
        # The first bad logit of each prompt, so that the message says NaN or infinity as it was.
        column = (~wide.detach().isfinite()).long().argmax(dim=-1)
        refuse_non_finite(_at(wide, column), pairs, "a logit")
    return wide


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _at(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens.to(values.device).long()[:, None])[:, 0]
