"""What a model says at the answer columns of prompts, and the prompts of a task that it gets right."""

import dataclasses
import math
import random
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.progress import Progress, silent
from circuits.tasks.metric import Metric
from circuits.tasks.metrics import logit_difference, rank
from circuits.tasks.prompts import PromptPairs

_AT_ONCE = 16
"""Prompts that run together."""
_MOST, _HOPELESS = 32, 128
"""How many prompts are drawn at most for each that is asked for; after how many without a right one no more are."""

_WHAT = "choosing prompts that are right"


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
    """Pairs of a task: of `count` drawn, those that the model gets right, or where fewer than two are, the first; without
    `count`, as they were drawn."""

    pairs: PromptPairs
    count: int | None = None
    asked: int | None = None
    """How many were asked for."""
    clean: Readings | None = None
    """What was read of the clean prompts on the way."""


def read_answers(model: Model, tokens: TokenBatch, pairs: PromptPairs, metric: Metric = logit_difference) -> Readings:
    """Run one side of pairs (`pairs.clean` or `pairs.corrupt`), a few prompts at a time, and read its answers; nothing else is
    kept, and no other column is unembedded. Raises NonFiniteError, with the prompt, for logits that are no numbers."""
    parts = []
    for start in range(0, len(pairs), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        with torch.no_grad():
            batch = model.prepare(tokens[rows])
            run = forward(model.weights, batch, keep="logits", columns=pairs.answer_columns[rows])
            parts.append(run.logits[:, 0])
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
    otherwise more are drawn, up to 32 for each that is asked for, unless none of 128 is right. Where no two can be had, the
    first ones come as they are.
    """
    report = progress or silent
    report(_WHAT, 0, count)
    first = draw(model, count, seed)
    reading = read_answers(model, first.clean, first)
    right, found = int((reading.rank == 0).sum()), Drawn(first, len(first), count, reading)
    if right < len(first) and (right or len(first) < _HOPELESS):
        likely = min(_MOST, math.ceil(2 * len(first) / right) + 1) if right else _MOST
        for times in dict.fromkeys((likely, _MOST)):
            more = draw(model, count * times, seed)
            rows, checked, read = _right_rows(model, more, _order(first, more, seed), count, report)
            if len(rows) >= count:
                break
        enough = len(rows) >= min(count, 2)
        found = Drawn(more[rows], checked, count, read) if enough else Drawn(first, checked, count, reading)
    report(_WHAT, count, count)
    return found


def _right_rows(
    model: Model, pairs: PromptPairs, order: list[int], count: int, report: Progress
) -> tuple[list[int], int, Readings]:
    """The first `count` rows, in an order, that the model gets right; how many were looked at; what was read of them."""
    checked, kept = 0, list[int]()
    readings: list[Readings] = []
    while order[checked:] and len(kept) < count and (kept or checked < _HOPELESS):
        rows = order[checked : checked + _AT_ONCE]
        part = read_answers(model, pairs.clean[rows], pairs[rows])
        places = [place for place, value in enumerate(part.rank.tolist()) if value == 0][: count - len(kept)]
        kept += [rows[place] for place in places]
        readings.append(part[places])
        checked += len(rows) if len(kept) < count else places[-1] + 1
        report(_WHAT, len(kept), count)
    whole = [torch.cat([getattr(part, name) for part in readings]) for name in ("score", "rank", "top")]
    return kept, checked, Readings(*whole)


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
