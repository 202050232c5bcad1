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

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError, shown
from circuits.models import Model, Run
from circuits.tasks.prompts import PromptPairs, refuse_non_finite

Score = Callable[[Tensor, PromptPairs], Tensor]
Rows = slice | list[int]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number a prompt, with what the package has to know of it.

        Metric("margin", lambda logits, pairs: logits.max(dim=1).values - logits.mean(dim=1), by_prompt=True)

    `score(logits, pairs)` gives the numbers `[prompt]`. Where `reads` is "answers" it is given two columns of logits alone,
    the answer's and the distractor's, beside pairs whose answers and distractors are 0 and 1, so that no other logits need
    be computed; those of further answers and distractors, where a prompt has several, stand behind them. Calling a metric
    raises CircuitsError where `score` gives something else than a number a prompt.
    """

    name: str
    """As results, reports and pictures call it."""
    score: Score
    unit: str = ""
    """Such as "nats"; empty for a share or a count."""
    reads: Literal["answers", "all"] = "all"
    differentiable: bool = True
    """Whether it has a gradient by the logits that says something; attribution and trained gates need one."""
    lower_is_better: bool = False
    by_prompt: bool = False
    """Whether a prompt's number comes from its own logits and its own pair alone, so that a batch may be cut. Where that is
    not said, all prompts are scored at once."""
    part: Callable[[Rows], "Metric"] | None = None
    """For a metric that holds something for every prompt (such as a reference): the metric of some of the prompts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", getattr(self.score, "__doc__", None) or type(self).__doc__)

    def __call__(self, logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
        """The numbers. Raises CircuitsError where they are not one a prompt, and what `score` raises."""
        found = self.score(logits, pairs)
        if not isinstance(found, Tensor) or found.shape != (len(pairs),):
            got = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else shown(found)
            raise CircuitsError(
                f"{_spoken(self)} gave {got} for {len(pairs)} prompts; expected a tensor of one number a prompt, "
                f"[{len(pairs)}]: take no mean over prompts"
            )
        return found if found.is_floating_point() else found.to(_wide(logits).dtype)

    @property
    def __name__(self) -> str:
        return self.name

    @classmethod
    def of(cls, metric: Any) -> "Metric":
        """A metric as it is, or one that was made of a callable, named after its function or class ("metric" for a lambda).

        Raises CircuitsError for what is no metric, and for one that compares with the clean run (`kl_divergence`), which
        needs its logits: `fitted` finds them.
        """
        if isinstance(metric, Metric):
            return metric
        if isinstance(metric, Relative):
            raise CircuitsError(f"{metric.name} compares with logits [prompt d_vocab]: give {metric.name}(reference)")
        if not callable(metric):
            raise CircuitsError(f"a metric is called with logits and pairs and gives one number a prompt, got {shown(metric)}")
        score, part = cast(Score, metric), getattr(metric, "part", None)
        if not callable(part):
            return cls(_name(metric), score)
        return cls(_name(metric), score, by_prompt=True, part=lambda rows: cls.of(part(rows)))

    def on(self, rows: Rows) -> "Metric":
        """The metric of some of its prompts, to be called with their logits and `pairs[rows]`."""
        return self if self.part is None else self.part(rows)


@dataclasses.dataclass(frozen=True)
class Relative:
    """A metric that compares with the clean run: called with the logits `[prompt d_vocab]` to compare with it gives the
    metric. A function that is given it without finds them in the clean run of its own prompts."""

    name: str
    against: Callable[[Tensor], Metric]

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.against.__doc__)

    def __call__(self, reference: Float[Tensor, "prompt d_vocab"]) -> Metric:
        """The metric that compares with `reference`."""
        return self.against(reference)

    @property
    def __name__(self) -> str:
        return self.name


AnyMetric = Metric | Relative | Score
"""What functions take as a metric."""
_NAMELESS = "metric"
"""What a lambda is called in results."""
_AT_ONCE = 16
"""Prompts whose logits at every position are held together."""


def fitted(metric: AnyMetric, model: Model, pairs: PromptPairs, *, gradient: bool = False) -> Metric:
    """The metric that a function works with, before it runs anything: wrapped; with the clean run's logits where it compares
    with them; and tried once, on random logits of these prompts, unless it says that it works on any.

    Raises CircuitsError for what gives no number a prompt here, and with `gradient` for what has no gradient.
    """
    found = metric(_clean_logits(model, pairs)) if isinstance(metric, Relative) else Metric.of(metric)
    if gradient and not found.differentiable:
        raise _no_gradient(found)
    if found.by_prompt and found.part is None:
        return found
    tokens = answer_tokens(pairs).shape[1] if found.reads == "answers" else model.weights.W_U.shape[1]
    logits = torch.randn(len(pairs), tokens, generator=torch.Generator().manual_seed(0))
    logits = logits.to(model.device, model.dtype).requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        try:
            scores = found(logits, answers_alone(pairs) if found.reads == "answers" else pairs)
        except CircuitsError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            where = f"logits {list(logits.shape)} of these prompts"
            raise CircuitsError(f"{_spoken(found)} fails on {where}: {reason}") from error
    if gradient and not scores.requires_grad:
        raise _no_gradient(found)
    return found


def _no_gradient(metric: Metric) -> CircuitsError:
    return CircuitsError(
        f"{_spoken(metric)} has no gradient by the logits, which this needs: take logit_difference, log_probability or "
        "probability, or measure by patching"
    )


def _clean_logits(model: Model, pairs: PromptPairs) -> Float[Tensor, "prompt d_vocab"]:
    parts = [pairs[start : start + _AT_ONCE] for start in range(0, len(pairs), _AT_ONCE)]
    with torch.no_grad():
        return torch.cat([answer_logits(model.run(part.clean, keep="logits"), part) for part in parts])


def _spoken(metric: Metric) -> str:
    return "the given metric" if metric.name == _NAMELESS else f"the metric {metric.name}"


def _name(metric: object) -> str:
    while isinstance(metric, functools.partial):
        metric = metric.func
    name = getattr(metric, "__name__", None)
    name = name if isinstance(name, str) else type(metric).__name__
    return _NAMELESS if name == "<lambda>" else name


def answer_tokens(pairs: PromptPairs) -> Int[Tensor, "prompt token"]:
    """The tokens whose logits a metric reads that reads answers alone: answer and distractor, then where there are several the
    other answers and the other distractors (0 where a prompt has fewer)."""
    columns = [pairs.answers[:, None], pairs.distractors[:, None]]
    columns += [some[:, 1:].clamp(min=0) for some in (pairs.answer_sets, pairs.distractor_sets) if some is not None]
    return torch.cat(columns, dim=1)


def answers_alone(pairs: PromptPairs) -> PromptPairs:
    """The pairs beside the logits of `answer_tokens` alone: answer and distractor are tokens 0 and 1 there, others follow."""
    first = torch.zeros_like(pairs.answers)
    sets, place = [], 2
    for index, some in enumerate((pairs.answer_sets, pairs.distractor_sets)):
        if some is None:
            sets.append(None)
            continue
        more = some.shape[1] - 1
        there = torch.arange(place, place + more, device=some.device).expand(len(pairs), -1)
        there = torch.cat([torch.full_like(some[:, :1], index), there], dim=1)
        sets.append(there.masked_fill(some < 0, -1))
        place += more
    return dataclasses.replace(pairs, answers=first, distractors=first + 1, answer_sets=sets[0], distractor_sets=sets[1])


def answer_logits(run: Run, pairs: PromptPairs) -> Float[Tensor, "prompt d_vocab"]:
    """The logits `[prompt d_vocab]` of a run (of the clean or of the corrupt prompts) at the answer columns.

    Raises PromptError where the run is not of these prompts' shape.
    """
    if run.logits.shape[:2] != pairs.clean.ids.shape:
        raise PromptError(f"the run has logits of shape {tuple(run.logits.shape)}, the pairs {tuple(pairs.clean.ids.shape)}")
    rows = torch.arange(len(pairs), device=run.logits.device)
    return run.logits[rows, pairs.answer_columns.to(run.logits.device)]


def _metric(
    *, unit: str = "", reads: Literal["answers", "all"] = "all", differentiable: bool = True, lower_is_better: bool = False
) -> Callable[[Score], Metric]:
    """Make a metric of a function that scores every prompt by itself, under the function's name."""
    return lambda score: Metric(_name(score), score, unit, reads, differentiable, lower_is_better, by_prompt=True)


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
    return (rank(logits, pairs) == 0).to(_wide(logits).dtype)


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
