"""What a model says at the answer columns of prompts, and the prompts of a task that it gets right."""

import dataclasses
import random
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models import Model, TokenBatch
from circuits.progress import Progress, silent
from circuits.tasks.metrics import Metric, answer_logits, logit_difference, rank
from circuits.tasks.prompts import PromptPairs

_AT_ONCE = 16
"""Prompts that run together."""
_MOST, _HOPELESS = 8, 32
"""How many prompts are drawn at most for each that is asked for; after how many without a right one no more are."""


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """What was read at the answer columns: the metric, how many other tokens are as likely as the answer or likelier (0: the
    model is right), and the most likely token."""

    score: Float[Tensor, " prompt"]
    rank: Int[Tensor, " prompt"]
    top: Int[Tensor, " prompt"]

    def __getitem__(self, rows: list[int]) -> "Readings":
        return Readings(self.score[rows], self.rank[rows], self.top[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """Pairs of a task: of `count` drawn, those that the model gets right; without `count`, as they were drawn."""

    pairs: PromptPairs
    count: int | None = None
    clean: Readings | None = None
    """What was read of the clean prompts on the way."""


def read_answers(model: Model, tokens: TokenBatch, pairs: PromptPairs, metric: Metric = logit_difference) -> Readings:
    """Run one side of pairs (`pairs.clean` or `pairs.corrupt`), a few prompts at a time, and read its answers; nothing else is
    kept. Raises NonFiniteError, with the prompt, for logits that are no numbers."""
    parts = []
    for start in range(0, len(pairs), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        with torch.no_grad():
            parts.append(answer_logits(model.run(tokens[rows], keep="logits"), pairs[rows]))
    logits = torch.cat(parts)
    score, place = metric(logits, pairs), rank(logits, pairs)
    return Readings(score.detach().double().cpu(), place.long().cpu(), logits.argmax(dim=-1).cpu())


def draw_right(
    model: Model,
    draw: Callable[[Model, int, int], PromptPairs],
    count: int,
    seed: int,
    *,
    progress: Progress | None = None,
) -> Drawn:
    """Pairs of a task whose answer is the model's top token, `count` of them where so many are found.

    `draw(model, count, seed)` gives the task's pairs. Those that it gives first stay where the model gets all of them right;
    otherwise more are drawn, up to eight for each that is asked for. Where no two can be had, the first ones come as they are.
    """
    report, what = progress or silent, "choosing prompts that are right"
    report(what, 0, count)
    first = draw(model, count, seed)
    reading = read_answers(model, first.clean, first)
    right = [row for row, place in enumerate(reading.rank.tolist()) if place == 0]
    if len(right) == len(first) or (not right and len(first) >= _HOPELESS):
        report(what, count, count)
        return Drawn(first, len(first) if right else None, reading)
    more = draw(model, count * _MOST, seed)
    order = _order(first, more, seed)
    kept: list[int] = []
    readings, checked = [], 0
    while order[checked:] and len(kept) < count and (kept or checked < _HOPELESS):
        rows = order[checked : checked + _AT_ONCE]
        part = read_answers(model, more.clean[rows], more[rows])
        places = [place for place, value in enumerate(part.rank.tolist()) if value == 0][: count - len(kept)]
        kept += [rows[place] for place in places]
        readings.append(part[places])
        checked += len(rows) if len(kept) < count else places[-1] + 1
        report(what, len(kept), count)
    report(what, count, count)
    if len(kept) < min(count, 2):
        return Drawn(first, None, reading)
    whole = Readings(*(torch.cat([getattr(part, name) for part in readings]) for name in ("score", "rank", "top")))
    return Drawn(more[kept], checked, whole)


def _order(first: PromptPairs, more: PromptPairs, seed: int) -> list[int]:
    """In which order more pairs are looked at: those that were drawn first, then the rest as the seed has it (a table stands
    in the order of its relations)."""
    places: dict[tuple[int, ...], int] = {}
    for row, key in enumerate(_keys(more)):
        places.setdefault(key, row)
    again = dict.fromkeys(places[key] for key in _keys(first) if key in places)
    rest = [row for row in range(len(more)) if row not in again]
    random.Random(seed).shuffle(rest)
    return [*again, *rest]


def _keys(pairs: PromptPairs) -> list[tuple[int, ...]]:
    """What makes a pair the same one in another batch, whatever its padding."""
    sides = [_rows(side) for side in (pairs.clean, pairs.corrupt)]
    return [(*clean, *corrupt, answer) for clean, corrupt, answer in zip(*sides, pairs.answers.tolist(), strict=True)]


def _rows(tokens: TokenBatch) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(tokens.ids.cpu(), tokens.mask.cpu(), strict=True)]
