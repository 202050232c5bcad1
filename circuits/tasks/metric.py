"""What a metric is, and how one is made fit for the prompts of a function before that runs anything."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, PromptError, shown
from circuits.models import Model, Run
from circuits.tasks.prompts import PromptPairs

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
        return found if found.is_floating_point() else found.to(widened(logits).dtype)

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
            return cls(named(metric), score)
        return cls(named(metric), score, by_prompt=True, part=lambda rows: cls.of(part(rows)))

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


def named(metric: object) -> str:
    """What results call a callable: the name of its function or class."""
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


def widened(logits: Tensor) -> Tensor:
    """Logits of half precision in float32, others as they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
