"""What a command says of a result: one value, as text for people and as an object for programs."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.text import one_line, table

_WIDEST = 72
"""Characters of a first column; what is longer stands on a line of its own."""
PICTURES = (".png", ".svg", ".pdf")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows below a header, with a line above and one below."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    below: str = ""
    indent: int = 0

    def text(self) -> str:
        """The table with its columns side by side; one with a title is set in."""
        lines = [self.title] if self.title else []
        lines.append(table(self.header, self.rows, indent=2 if self.title else self.indent))
        return "\n".join([*lines, *([self.below] if self.below else [])])


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Two columns below a heading: what, and what it is."""

    heading: str
    rows: Sequence[tuple[str, str]]

    def text(self) -> str:
        """The columns; what would stand too far to the right goes below."""
        return paired(self.heading, self.rows)


Part = Table | Pairs | str


def text_of(part: Part) -> str:
    """A part of a report as text."""
    return part if isinstance(part, str) else part.text()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A heading; tables and notes in the order in which they are read; the same figures for programs; files by name, with
    what is in each; and commands to try next, with what they tell."""

    heading: str
    parts: Sequence[Part] = ()
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    next: Sequence[tuple[str, str]] = ()

    @property
    def tables(self) -> list[Table]:
        """The tables."""
        return [part for part in self.parts if isinstance(part, Table)]

    @property
    def notes(self) -> list[str]:
        """What is said in words."""
        return [part for part in self.parts if isinstance(part, str)]

    @property
    def pictures(self) -> list[str]:
        """The names of those files that are pictures."""
        return [name for name in self.files if name.lower().endswith(PICTURES)]

    def text(self, folder: Path, *, said: Collection[str] = ()) -> str:
        """For people: the parts with an empty line between them, then where the files are and what to try next. Those that
        were `said` before are not said again."""
        parts = [part for part in [self.heading, *map(text_of, self.parts)] if part not in said]
        if self.files:
            parts.append(paired(f"Files in {one_line(folder)}", _listed(self.files)))
        if self.next:
            parts.append(paired("Try next", self.next))
        return "\n\n".join(part for part in parts if part)

    def as_json(self, folder: Path) -> dict[str, Any]:
        """For programs: the figures, and where the files are."""
        return {**self.data, "files": {name: str(folder / name) for name in self.files}}


def _listed(files: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and what is in each; those of a folder below, in one line."""
    rows = [(name, one_line(what)) for name, what in files.items() if "/" not in name]
    below = Counter(name.partition("/")[0] for name in files if "/" in name)
    return [*rows, *((f"{name}/", f"each of {count} by itself") for name, count in below.items())]


def written(folder: Path, known: Mapping[str, str]) -> dict[str, str]:
    """Of the files that a command may write, those that are in a folder, with what is in each."""
    return {name: what for name, what in known.items() if (folder / name).is_file()}


def records(rows: Any) -> list[dict[str, Any]]:
    """The rows of a data frame as plain values, NaN as None."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in rows.astype(object).to_dict("records")
    ]


def paired(heading: str, rows: Sequence[tuple[str, str]]) -> str:
    """A heading, and below it two columns; what would stand too far to the right goes below."""
    width = max((len(first) for first, _ in rows if len(first) <= _WIDEST), default=0)
    lines = [
        f"  {first.ljust(width)}   {second}" if len(first) <= _WIDEST else f"  {first}\n      {second}"
        for first, second in rows
    ]
    return "\n".join([heading, *lines])
