"""Probes of other sizes at one place, on the task and on its control: wider ones know more by heart, narrower ones less."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.probes.fitting import Judged
from circuits.probes.question import Question
from circuits.probes.results import HiddenLayer
from circuits.probes.wide import fit_hidden
from circuits.progress import Progress
from circuits.runs import shards


def to_try(hidden: int | Sequence[int], ranks: Sequence[int]) -> list[tuple[int, bool]]:
    """What is tried at the best place: numbers of units, and whether they are linear. Raises PromptError for
    numbers out of range."""
    units = [hidden] if isinstance(hidden, int) else list(hidden)
    if min(units, default=0) < 0:
        raise PromptError(f"hidden={min(units)}: expected a number of units, or 0")
    if min(ranks, default=1) < 1:
        raise PromptError(f"ranks={min(ranks)}: expected 1 or more")
    return [(number, False) for number in units if number] + [(number, True) for number in ranks]


def try_others(
    read: Callable[[str], Tensor],
    site: str,
    question: Question,
    linear: Judged,
    tried: Sequence[tuple[int, bool]],
    progress: Progress,
) -> Iterator[HiddenLayer]:
    """Each of them at a place, with the first seed's split and the vectors scaled as for the linear probe there."""
    if not tried:
        return
    x, what = read(site), "trying other probes"

    def found(place: int) -> dict[str, Any]:
        """What one of them gets."""
        units, is_linear = tried[place]
        return dataclasses.asdict(_tried_at(x, site, question, linear, units, is_linear=is_linear))

    progress(what, 0, len(tried))
    for done, other in enumerate(shards(what, len(tried), found), 1):
        yield HiddenLayer(**other)
        progress(what, done, len(tried))


def _tried_at(
    x: Float[Tensor, "word width"], site: str, question: Question, linear: Judged, units: int, *, is_linear: bool
) -> HiddenLayer:
    """A hidden layer, or a linear one, at a place, on the task and on its control, with the first seed's split."""
    asked, split, scale = question.asked, question.split, linear.probe.scale
    train, judged = scale.apply(x[split.train]), scale.apply(x[split.judge])

    def right(labels: Tensor) -> Float[Tensor, "seed judge"]:
        """Which judged words are told by a probe for these labels."""
        fitted = fit_hidden(train, labels[split.train], classes=asked.classes, hidden=units, linear=is_linear)
        return (fitted.scores(judged).argmax(dim=1) == labels[split.judge]).double()[None]

    task, control, seen = right(asked.labels), right(asked.controls[0]), asked.seen[0]
    accuracy, error = question.error(task)
    selectivity, selectivity_error = question.error(task - control, seen)
    shares = (accuracy, error, question.error(control, seen)[0], selectivity, selectivity_error)
    return HiddenLayer(site, units, *shares, linear=is_linear)
