"""Which behaviours a model has: each task asked on some of its prompts, before anything long is begun."""

import dataclasses
import time
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelError, PromptError
from circuits.models import Model
from circuits.progress import Progress, silent
from circuits.search.studying.asked import StudyTask
from circuits.search.studying.results import MeasuredBehaviour, State
from circuits.statistics import FEWEST, Effect, ratio_intervals, share_interval
from circuits.tasks import PromptPairs, look_at_prompts
from circuits.tasks.sharing import groups_of

COUNT = 32
"""Prompts of a task that are asked first."""
LEAST_RIGHT = 0.25
"""Of tasks that ask for what a model knows, the least share of prompts that it must get right: of fewer too many would have to
be drawn for one that can be searched on."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a model reads the prompts of a task."""

    seconds: float
    """For one prompt, a few of them together."""


def measure(
    model: Model, tasks: Sequence[StudyTask], *, count: int = COUNT, seed: int = 0, progress: Progress | None = None
) -> tuple[list[MeasuredBehaviour], dict[str, Pace]]:
    """Ask each task on `count` prompts, clean and corrupt: whether the model prefers the answer on the clean prompts and does
    so less on the corrupt ones, both with the whole 95 % interval; of a task that asks for what a model knows, also whether it
    is right on a quarter. With it, how long a prompt of the task takes. What the tokenizer cannot say is said to be so."""
    report, found, paces = progress or silent, list[MeasuredBehaviour](), dict[str, Pace]()
    for place, one in enumerate(tasks):
        report("measuring behaviours", place, len(tasks))
        try:
            pairs = one.pairs(model, count, seed)
            metric = one.metric(model, pairs)
            if not paces:  # the first run of all is slower than those that follow
                look_at_prompts(model, pairs[:2], metric)
            began = time.perf_counter()
            looked = look_at_prompts(model, pairs, metric)
            paces[one.name] = Pace((time.perf_counter() - began) / (2 * len(pairs)))
        except (PromptError, ModelError) as error:
            found.append(MeasuredBehaviour(task=one.name, about=one.about, state="cannot be asked", why=str(error)))
            continue
        found.append(_measured(one, pairs, looked.metric, metric.unit, looked.ranks == 0, looked.clean, looked.corrupt, seed))
    report("measuring behaviours", len(tasks), len(tasks))
    return found, paces


def _measured(
    task: StudyTask,
    pairs: PromptPairs,
    metric: str,
    unit: str,
    right: Tensor,
    clean: Float[Tensor, " prompt"],
    corrupt: Float[Tensor, " prompt"],
    seed: int,
) -> MeasuredBehaviour:
    groups = groups_of(pairs)
    independent = int(groups.max()) + 1
    sides = torch.stack([clean.double(), (clean - corrupt).double(), torch.ones(len(pairs), dtype=torch.float64)])
    sums = torch.zeros(3, independent, dtype=torch.float64).index_add_(1, groups, sides)
    on_clean, gap = ratio_intervals(sums[:2], sums[2], seed=seed)
    top, preferred = (share_interval(float(side.double().mean()), independent) for side in (right, clean > 0))
    state, why = _decided(task, independent, top, on_clean, gap)
    return MeasuredBehaviour(
        task=task.name,
        about=task.about,
        state=state,
        why=why,
        metric=metric,
        unit=unit,
        prompts=len(pairs),
        independent=independent,
        tokens=int(pairs.clean.mask.sum(dim=1).max()),
        right=top,
        preferred=preferred,
        clean=on_clean,
        gap=gap,
    )


def _decided(task: StudyTask, independent: int, right: Effect, clean: Effect, gap: Effect) -> tuple[State, str]:
    """Whether the model does what is asked, and what decided it."""
    if independent < FEWEST:
        return "has not", f"only {independent} independent prompts: it takes {FEWEST} or more to say so"
    if clean.low <= 0:
        return "has not", "the answer is not surely preferred to the distractor on clean prompts"
    if gap.low <= 0:
        return "has not", "corrupt prompts do not surely lower that"
    if task.known and right.effect < LEAST_RIGHT:
        return "has not", f"right on {right.effect:.0%} of the prompts, of which at least {LEAST_RIGHT:.0%} are needed"
    return "has", "the answer is preferred on clean prompts, and less so on corrupt ones"
