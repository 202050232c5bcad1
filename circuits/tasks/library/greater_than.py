"""Greater-than (Hanna et al. 2023): a span of time ends in a year after the one it began in."""

import dataclasses
import random
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks.library.wording import Case, encode, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.metric import Metric
from circuits.tasks.metrics import _checked
from circuits.tasks.prompts import PromptPairs

CENTURIES = range(11, 18)
_TEMPLATE = "The {noun} lasted from the year {century}{start} to the year {century}"
_YEAR, _DECADE = "start_year", "start_decade"
"""Where the start is read: its two digits as one token, or the first of its single digits."""
_NEARLY_ALL = 90
"""Years of a century that must be single digits."""


def greater_than(model: Model, count: int = 32, seed: int = 0) -> PromptPairs:
    """Pairs like `The war lasted from the year 1743 to the year 17`; in the corrupt prompt the span begins in 1701.

    The answer is a year drawn from those above the start year, the distractor one from 02 to the start year;
    `greater_than_metric` reads them all. Where the tokenizer splits years into a century and single digits, the answer is the
    digit of a later decade and the distractor that of an earlier one from 1 on: years of the start's own decade cannot be
    told yet. Positions: `noun`, `start_year`, `end`, with single digits also `start_decade`. Raises PromptError for a
    tokenizer that splits years otherwise, ModelError for a model without one.
    """
    values, starts = _values(model)
    digits = len(values) == 10
    nouns = list(single_tokens(model, word_list("spans"), least=1, what="spans of time"))
    template, draw, cases = sayable(model, [_TEMPLATE])[0], random.Random(seed), []
    for _ in range(count):
        century, start = draw.choice(starts)
        words = {"noun": draw.choice(nouns), "century": str(century)}
        own, least, last = (start // 10, 1, start // 10 - 1) if digits else (start, 2, start)
        answer, distractor = draw.randint(own + 1, len(values) - 1), draw.randint(least, last)
        cases.append(
            Case(
                template,
                words | {"start": f"{start:02d}"},
                words | {"start": "01"},
                int(values[answer]),
                int(values[distractor]),
                {"noun": "noun", _YEAR: "start"},
            )
        )
    pairs = pairs_of(model, cases)
    decade = {_DECADE: pairs.positions[_YEAR] - 1} if digits else {}
    return dataclasses.replace(pairs, positions={**pairs.positions, **decade})


def greater_than_metric(model: Model, pairs: PromptPairs) -> Metric:
    """The metric Σ p(year > YY) − Σ p(year ≤ YY) over the two-digit years, from −1 to 1; positive = later years preferred.
    Where years are single digits: Σ p(decade > Y) − Σ p(decade < Y), over the digits of decades.

    YY (Y) is read at `start_year` (`start_decade`) of the pairs that the metric is given, which may be any rows of `pairs`.
    Raises PromptError, here or there, for pairs of another task.
    """
    place = _DECADE if _DECADE in pairs.positions else _YEAR
    _columns(pairs, place)
    tokens = _values(model)[0]
    _starts(tokens, pairs, place)

    def score(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
        """What is later, less what is not."""
        wide = _checked(logits, pairs)
        own = _starts(tokens, pairs, place).to(wide.device)[:, None]
        value = torch.arange(len(tokens), device=wide.device)
        below = value < own if place == _DECADE else value <= own
        chances = wide.softmax(dim=-1)[:, tokens.to(wide.device)]
        return torch.einsum("py,py->p", chances, (value > own).to(wide.dtype) - below.to(wide.dtype))

    return Metric("greater_than", score, by_prompt=True)


def _values(model: Model) -> tuple[Int[Tensor, " value"], list[tuple[int, int]]]:
    """The tokens that answers are drawn from, of the years 00 to 99 or of the digits 0 to 9, and every (century, start year) to
    ask about. Raises PromptError where years are neither."""
    try:
        return _years(model)
    except PromptError:
        digits = _digits(model)
        if digits is None:
            raise
        return digits


def _years(model: Model) -> tuple[Int[Tensor, " year"], list[tuple[int, int]]]:
    years = year_tokens(model)
    split = [(century, year) for century, year, _ in _splits(model)]
    starts = [(century, year) for century, year in split if 2 <= year <= 98 and (century, 1) in split]
    if not starts:
        split_as = f"01 among them; 1743 is {_pieces(model, 1743)}"
        raise PromptError(f"{model.name}: no century's years split into a century and two digits, {split_as}")
    return years, starts


def _digits(model: Model) -> tuple[Int[Tensor, " digit"], list[tuple[int, int]]] | None:
    """The same of years that are a century and two single digits, as nearly all of a century are (1700 may be a token of its
    own); None where there are none."""
    tokens, starts = dict[int, int](), list[tuple[int, int]]()
    for century in CENTURIES:
        own = dict[int, int]()
        split = [year for year in range(100) if _is_split(model, century, year, own)]
        if len(split) >= _NEARLY_ALL and 1 in split and len(own) == 10 and own == (tokens or own):
            tokens = own
            starts += [(century, year) for year in split if 20 <= year < 90]
    return (torch.tensor([tokens[digit] for digit in range(10)]), starts) if starts else None


def _is_split(model: Model, century: int, year: int, tokens: dict[int, int]) -> bool:
    """Whether a year is its century and two single digits; their tokens are added to `tokens`, with which they must agree."""
    head, ids = encode(model, f"the year {century}"), encode(model, f"the year {century}{year:02d}")
    tail, digits = ids[len(head) :], divmod(year, 10)
    if ids[: len(head)] != head or [model.to_string([token]).strip() for token in tail] != [str(digit) for digit in digits]:
        return False
    return all(tokens.setdefault(digit, token) == token for digit, token in zip(digits, tail, strict=True))


def _pieces(model: Model, year: int) -> str:
    strings = model.to_token_strings(encode(model, f" {year}"))
    return repr(" | ".join(piece.strip() for piece in strings if piece.strip()))


def year_tokens(model: Model) -> Int[Tensor, " year"]:
    """The tokens of the years 00 to 99 as they follow a century. Raises PromptError where one of them is not one token."""
    found = {}
    for _, year, token in _splits(model):
        found.setdefault(year, token)
    for year in range(100):
        # Years that no century splits off, such as 00 where round numbers are tokens, are taken by themselves.
        plain = encode(model, f"{year:02d}")
        if year not in found and len(plain) == 1 and model.to_string(plain) == f"{year:02d}":
            found[year] = plain[0]
    missing = next((year for year in (43, *range(100)) if year not in found), None)
    if missing is not None:
        raise PromptError(
            f"{model.name}: greater-than needs years of a century and two digits in one token, or in one each; "
            f"17{missing:02d} is {_pieces(model, 1700 + missing)}"
        )
    return torch.tensor([found[year] for year in range(100)])


def _splits(model: Model) -> Iterator[tuple[int, int, int]]:
    """Every (century, year, token) where the last two digits of a year are one token behind the century's."""
    for century in CENTURIES:
        head = encode(model, f"the year {century}")
        for year in range(100):
            ids = encode(model, f"the year {century}{year:02d}")
            if ids[:-1] == head and model.to_string(ids[-1:]).strip() == f"{year:02d}":
                yield century, year, ids[-1]


def _columns(pairs: PromptPairs, place: str) -> Int[Tensor, " prompt"]:
    columns = pairs.positions.get(place)
    if columns is None:
        raise PromptError(f"the pairs have no position {place}; this metric is for greater_than(model) alone")
    return columns


def _starts(tokens: Int[Tensor, " value"], pairs: PromptPairs, place: str) -> Int[Tensor, " prompt"]:
    """The year, or the decade's digit, that stands at a position of each clean prompt."""
    columns = _columns(pairs, place)
    there = pairs.clean.ids.gather(1, columns.clamp(min=0)[:, None]) == tokens.to(pairs.clean.ids.device)
    bad = ~there.any(dim=1)
    if bool(bad.any()):
        raise PromptError(f"{pairs.name(int(bad.long().argmax()))}: no year stands at its position {place}")
    return there.long().argmax(dim=1)
