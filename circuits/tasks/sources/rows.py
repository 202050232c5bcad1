"""Rows of a file turned into what they stand for, one by one: all of them, or those that fit."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from circuits.errors import FileFormatError, PromptError, shown
from circuits.tasks.sources.contents import Row

Value = TypeVar("Value")
_HINT = "; --skip-bad (skip_bad=True) keeps the rows that fit"
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'…?|\"(?:[^\"\\]|\\.)*\"…?")
_LONGEST_TEXT = 1_000_000


@dataclasses.dataclass(frozen=True)
class Kept(Generic[Value]):
    """What rows stand for, where each stood, and how many others were left out, by reason, and the first of each reason."""

    values: tuple[Value, ...]
    rows: tuple[Row, ...]
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """All rows, with those that were left out."""
        return len(self.rows) + sum(self.skipped.values())

    @property
    def left_out(self) -> dict[str, int]:
        """How many rows were left out, by reason, which ends by naming the first of them."""
        return {f"{reason}, first in {self.first[reason]}": count for reason, count in self.skipped.items()}


def parse_rows(path: Path, rows: Sequence[Row], parse: Callable[[Row], Value], *, skip_bad: bool | None = None) -> Kept[Value]:
    """What each row stands for; `parse` raises PromptError, with the reason, for one that does not fit.

    With `skip_bad` those are counted by reason; else the first of them raises FileFormatError with its line (None: that it
    could be skipped is not said). Raises FileFormatError too where no row is left, or there is none.
    """
    if not rows:
        raise FileFormatError(f"{path}: holds no rows")
    return sift(path, Kept(tuple(rows), tuple(rows)), parse, skip_bad=skip_bad)


def sift(path: Path, kept: Kept[Any], parse: Callable[[Any], Value], *, skip_bad: bool | None) -> Kept[Value]:
    """A further step on what was kept, with the same rules as `parse_rows`."""
    values, rows = [], []
    skipped, first = Counter(kept.skipped), dict(kept.first)
    for value, row in zip(kept.values, kept.rows, strict=True):
        try:
            if row.damage:
                raise PromptError(row.damage)
            values.append(parse(value))
            rows.append(row)
        except PromptError as error:
            if not skip_bad:
                hint = "" if skip_bad is None else _HINT
                raise FileFormatError(f"{path}: {row.where}: {error}{hint}") from None
            kind = kind_of(str(error))
            skipped[kind] += 1
            first.setdefault(kind, row.where)
    found = Kept(tuple(values), tuple(rows), dict(skipped), first)
    if not rows:
        raise FileFormatError(f"{path}: none of {found.total} rows fits: {counted(found.left_out)}")
    return found


def kind_of(reason: str) -> str:
    """A reason without the texts and numbers that differ from row to row, to be counted."""
    plain = _QUOTED.sub("…", reason).split(";")[0]
    plain = re.sub(r"\s*\([^()]*\)", "", plain)
    return re.sub(r"-?\d[\d,.]*\b", "N", plain).removeprefix("…: ").strip()


def counted(skipped: Mapping[str, int]) -> str:
    """Reasons with their counts, the most frequent first."""
    ranked = sorted(skipped.items(), key=lambda one: (-one[1], one[0]))
    return "; ".join(f"{count:,} × {reason}" for reason, count in ranked)


def fields_of(row: Row) -> dict[str, Any]:
    """What a row that is an object holds. Raises PromptError for any other."""
    if not isinstance(row.value, dict):
        raise PromptError(f"the row is no object; it is {shown(row.value)}")
    return row.value


def inner(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A field that is an object. Raises PromptError for any other."""
    value = fields.get(name)
    if not isinstance(value, dict):
        raise PromptError(f'"{name}" is {shown(value)}; expected an object')
    return value


def text(fields: Mapping[str, Any], name: str) -> str:
    """A field that is text, and not empty. Raises PromptError for any other."""
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip() or not sound(value):
        raise PromptError(f'"{name}" is {shown(value)}; expected text that is not empty')
    if len(value) > _LONGEST_TEXT:
        raise PromptError(f'"{name}" has {len(value):,} characters; expected at most {_LONGEST_TEXT:,}')
    return value


def roles_of(fields: Mapping[str, Any]) -> tuple[tuple[str, str, int | None], ...]:
    """The roles of tokens that a row names (`roles`, an object or in CSV its JSON): name → words of the clean prompt, or
    `[words, n]` for the n-th time that they stand there. None where there is no such field. Raises PromptError for others."""
    value = fields.get("roles")
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise PromptError(f'"roles" is {shown(value)}; expected a JSON object of names and words') from None
    if not isinstance(value, dict):
        raise PromptError(f'"roles" is {shown(value)}; expected an object of names and words')
    found = []
    for name, words in value.items():
        words, which = words if isinstance(words, list) and len(words) == 2 else (words, None)
        numbered = which is None or (isinstance(which, int) and not isinstance(which, bool))
        if not isinstance(words, str) or not words.strip() or not sound(words) or not numbered:
            raise PromptError(f"role {shown(name)} is {shown(value[name])}; expected words of the prompt, or [words, n]")
        found.append((name, words, which))
    return tuple(found)


def sound(value: str) -> bool:
    """Whether a text holds no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def whole(fields: Mapping[str, Any], name: str) -> int:
    """A field that is a token id, as a number or in digits. Raises PromptError for any other."""
    value = fields.get(name)
    number = number_of(value)
    if number is None:
        raise PromptError(f"{name} is {shown(value)}; expected a token id")
    return number


def number_of(value: object) -> int | None:
    """A whole number of at most 18 digits, 0 or more, as a number or in digits (also "52.0"); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 <= value < 10**18 else None
    digits = value.strip().removesuffix(".0") if isinstance(value, str) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def is_target(value: object) -> bool:
    """Whether a value may be an answer: text or a token id."""
    return (isinstance(value, str) and sound(value)) or (isinstance(value, int) and not isinstance(value, bool))


def listed(values: Iterable[str]) -> str:
    """Names in quotation marks, separated by commas."""
    return ", ".join(f'"{value}"' for value in values)
