"""Greater-than (Hanna et al. 2023): a span of time ends in a year after the one it began in."""

import random
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks.library.wording import Case, encode, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.metrics import Metric, _checked
from circuits.tasks.prompts import PromptPairs

CENTURIES = range(11, 18)
_TEMPLATE = "The {noun} lasted from the year {century}{start} to the year {century}"


def greater_than(model: Model, count: int = 32, seed: int = 0) -> PromptPairs:
    """Pairs like `The war lasted from the year 1743 to the year 17`; in the corrupt prompt the span begins in 1701.

    The answer is a year drawn from those above the start year, the distractor one from 02 to the start year;
    `greater_than_metric` reads them all. Positions: `noun`, `start_year`, `end`. Raises PromptError for a tokenizer that
    does not split years into a century and two digits in one token, ModelError for a model without one.
    """
    years = year_tokens(model)
    split = [(century, year) for century, year, _ in _splits(model)]
    starts = [(century, year) for century, year in split if 2 <= year <= 98 and (century, 1) in split]
    if not starts:
        raise PromptError(f"{model.name}: no century's years split into a century and two digits, 01 among them")
    nouns = list(single_tokens(model, word_list("spans"), least=1, what="spans of time"))
    template, draw, cases = sayable(model, [_TEMPLATE])[0], random.Random(seed), []
    for _ in range(count):
        century, start = draw.choice(starts)
        words = {"noun": draw.choice(nouns), "century": str(century)}
        answer, distractor = draw.randint(start + 1, 99), draw.randint(2, start)
        cases.append(
            Case(
                template,
                words | {"start": f"{start:02d}"},
                words | {"start": "01"},
                int(years[answer]),
                int(years[distractor]),
                {"noun": "noun", "start_year": "start"},
            )
        )
    return pairs_of(model, cases)


def greater_than_metric(model: Model, pairs: PromptPairs) -> Metric:
    """The metric Σ p(year > YY) − Σ p(year ≤ YY) over the two-digit years, from −1 to 1; positive = later years preferred.

    YY is read at `start_year` of the pairs that the metric is given, which may be any rows of `pairs`. Raises PromptError,
    here or there, for pairs of another task.
    """
    tokens = year_tokens(model)
    _start_years(tokens, pairs)

    def score(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
        """Σ p(year > YY) − Σ p(year ≤ YY)."""
        wide = _checked(logits, pairs)
        start = _start_years(tokens, pairs).to(wide.device)
        above = torch.arange(100, device=wide.device) > start[:, None]
        chances = wide.softmax(dim=-1)[:, tokens.to(wide.device)]
        return torch.einsum("py,py->p", chances, 2 * above.to(wide.dtype) - 1)

    return Metric("greater_than", score, by_prompt=True)


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
        pieces = " | ".join(
            piece.strip() for piece in model.to_token_strings(encode(model, f" 17{missing:02d}")) if piece.strip()
        )
        raise PromptError(
            f"{model.name}: greater-than needs years of a century and two digits in one token; 17{missing:02d} is {pieces!r}"
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


def _start_years(tokens: Int[Tensor, " year"], pairs: PromptPairs) -> Int[Tensor, " prompt"]:
    columns = pairs.positions.get("start_year")
    if columns is None:
        raise PromptError("the pairs have no position start_year; this metric is for greater_than(model) alone")
    there = pairs.clean.ids.gather(1, columns.clamp(min=0)[:, None]) == tokens.to(pairs.clean.ids.device)
    bad = ~there.any(dim=1)
    if bool(bad.any()):
        raise PromptError(f"{pairs.name(int(bad.long().argmax()))}: no year stands at its position start_year")
    return there.long().argmax(dim=1)
