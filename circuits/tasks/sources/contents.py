"""What a file of prompts holds before its layout is known: rows of CSV, of a JSON list or of JSON Lines, or one JSON object."""

import contextlib
import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from circuits.errors import FileFormatError, shown
from circuits.files.limits import is_regular
from circuits.files.reading import read_bytes, strict_decoder, unreadable

LARGEST_FILE = 64 * 2**20
_OTHERS = {
    b"PAR1": "a Parquet file; write JSON Lines first: pandas.read_parquet(FILE).to_json(NAME, orient='records', lines=True)",
    b"PK\x03\x04": "an archive; unpack it first",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x80": "a Python pickle, which is not read: reading it could run what it holds",
    b"ARROW1": "an Arrow file; write it as JSON Lines first: Dataset.from_file(FILE).to_json(NAME)",
}
"""What other files begin with."""
_NESTED = "nested too deeply"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row: its place from 0, without the header, its line from 1 where that is known, and what it holds (`damage`: why it
    holds nothing that can be read)."""

    index: int
    line: int | None
    value: object = None
    damage: str = ""

    @property
    def where(self) -> str:
        """The row as messages name it."""
        return f"row {self.index}" + ("" if self.line is None else f" (line {self.line})")


@dataclasses.dataclass(frozen=True)
class Contents:
    """A file's rows, or the JSON object that it is."""

    path: Path
    kind: Literal["CSV", "JSON", "JSON Lines"]
    rows: tuple[Row, ...] = ()
    document: Mapping[str, Any] | None = None
    header: tuple[str, ...] = ()
    """The columns of CSV."""
    lines: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """For lists in the object, by key: the line of each entry."""

    @property
    def keys(self) -> frozenset[str]:
        """The columns, or the keys of the first row that is an object."""
        first = next((row.value for row in self.rows if isinstance(row.value, dict)), {})
        return frozenset(self.header or map(str, first))

    @property
    def top(self) -> frozenset[str]:
        """The keys of the object that a file is; none for rows."""
        return frozenset(self.document or ())

    def entries(self, key: str) -> tuple[Row, ...]:
        """The entries of a list in the object, as rows. Raises FileFormatError where it is no list, or empty."""
        listed = (self.document or {}).get(key)
        if not isinstance(listed, list) or not listed:
            raise FileFormatError(f'{self.path}: "{key}" must be a list that is not empty, got {shown(listed)}')
        lines = self.lines.get(key, ())
        known: Sequence[int | None] = lines if len(lines) == len(listed) else [None] * len(listed)
        return tuple(Row(index, line, value) for index, (line, value) in enumerate(zip(known, listed, strict=True)))


def read_contents(path: str | Path) -> Contents:
    """Read a file of prompts as far as it can be without knowing its layout. Raises FileFormatError for one that is missing,
    empty, larger than 64 MiB, not UTF-8, no CSV, no JSON, or of a kind that is told from its first bytes and not read."""
    path = Path(path)
    _refuse_others(path)
    text = read_bytes(path, max_bytes=LARGEST_FILE, kind="rows").decode("utf-8-sig")
    start = text.lstrip()[:1]
    if not start:
        raise FileFormatError(f"{path}: is empty")
    if start == "[":
        rows = [Row(index, line, value) for index, (line, value) in enumerate(_listed(path, text, text.index("[")))]
        return Contents(path, "JSON", tuple(rows))
    if start != "{" and _is_one_value(text):
        raise FileFormatError(f"{path}: holds one JSON value, {shown(text.strip())}; expected a list or an object")
    if start != "{":
        header, rows = _table(path, text)
        return Contents(path, "CSV", tuple(rows), header=header)
    if _is_lines(text):
        return Contents(path, "JSON Lines", tuple(_json_lines(text)))
    document = _object(path, text)
    return Contents(path, "JSON", (Row(0, 1, document),), document, lines=_lines_of_lists(path, text, document))


def _refuse_others(path: Path) -> None:
    """Raise FileFormatError for a file that begins as one of another kind does."""
    try:
        if not is_regular(path):
            return
        with path.open("rb") as file:
            begins = file.read(16)
    except OSError as error:
        raise unreadable(path, error) from None
    other = next((said for start, said in _OTHERS.items() if begins.startswith(start)), None)
    if other is not None:
        raise FileFormatError(f"{path}: {other}")


def _is_one_value(text: str) -> bool:
    """Whether a text is null, true, a number or one string in JSON, and so no header of CSV with columns that are known."""
    try:
        strict_decoder().decode(text.strip())
    except (ValueError, RecursionError):
        return False
    return True


def _is_lines(text: str) -> bool:
    """Whether a text is one JSON object a line: several lines, most of them from brace to brace."""
    lines = braced = 0
    for line in io.StringIO(text, newline="\n"):
        if bare := line.strip():
            lines += 1
            braced += bare[0] == "{" and bare[-1] == "}"
    return lines > 1 and 2 * braced >= lines


def _json_lines(text: str) -> Iterator[Row]:
    decoder, index = strict_decoder(), 0
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if line.strip():
            try:
                yield Row(index, number, decoder.decode(line.rstrip("\n")))
            except (ValueError, RecursionError) as error:
                yield Row(index, number, damage=_said(error))
            index += 1


def _object(path: Path, text: str) -> dict[str, Any]:
    try:
        return strict_decoder().decode(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: {_said(error, place=True)}") from None


def _listed(path: Path, text: str, at: int) -> Iterator[tuple[int, object]]:
    """The entries of a JSON list that begins at a character and ends the text, each with its line."""
    decoder, place = strict_decoder(), at
    line = text.count("\n", 0, at) + 1
    at = _past_space(text, at + 1)
    try:
        while text[at : at + 1] != "]":
            line, place = line + text.count("\n", place, at), at
            value, at = decoder.raw_decode(text, at)
            yield line, value
            at = _past_space(text, at)
            if text[at : at + 1] == ",":
                at = _past_space(text, at + 1)
                if text[at : at + 1] == "]":
                    raise json.JSONDecodeError("a comma before the list's end", text, at)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("expected , or ]", text, at)
        rest = _past_space(text, at + 1)
        if rest < len(text):
            raise json.JSONDecodeError("more after the list's end", text, rest)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: {_said(error, place=True)}") from None


def _lines_of_lists(path: Path, text: str, document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """For every list of objects in a JSON object, the line of each entry; none where they cannot be told."""
    found = {}
    for key, value in document.items():
        start = re.search(rf"{re.escape(json.dumps(key))}\s*:\s*\[", text)
        if isinstance(value, list) and value and isinstance(value[0], dict) and start is not None:
            with contextlib.suppress(ValueError):  # where the same words stand in a text before
                found[key] = tuple(_entries(text, start.end() - 1))
    return found


def _entries(text: str, at: int) -> Iterator[int]:
    """The line of each entry of a sound JSON list that begins at a character."""
    decoder, place = json.JSONDecoder(), at
    line = text.count("\n", 0, at) + 1
    at = _past_space(text, at + 1)
    while text[at : at + 1] not in ("]", ""):
        line, place = line + text.count("\n", place, at), at
        yield line
        _, at = decoder.raw_decode(text, at)
        at = _past_space(text, at)
        at = _past_space(text, at + 1) if text[at : at + 1] == "," else at


def _past_space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\n", "\t", "\r"):
        at += 1
    return at


def _said(error: Exception, *, place: bool = False) -> str:
    """What is wrong with JSON, in one line."""
    if isinstance(error, RecursionError):
        return _NESTED
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at " + (f"line {error.lineno}, " if place else "") + f"column {error.colno}"
    return str(error)


def _table(path: Path, text: str) -> tuple[tuple[str, ...], list[Row]]:
    """The header of CSV and its rows, each with the columns by name; columns are parted by tabs where the header holds one."""
    parted = "\t" if "\t" in text.lstrip("\r\n").partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=parted)
    header: tuple[str, ...] = ()
    rows: list[Row] = []
    line = 1
    try:
        for cells in reader:
            if cells and not header:
                header = tuple(cells)
            elif cells:
                damage = "" if len(cells) == len(header) else f"{len(cells)} fields, the header has {len(header)}"
                value = None if damage else dict(zip(header, cells, strict=True))
                rows.append(Row(len(rows), line, value, damage))
            line = reader.line_num + 1
    except csv.Error as error:
        raise FileFormatError(f"{path}: line {reader.line_num}: not CSV: {error}") from None
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise FileFormatError(f"{path}: the column {shown(twice)} appears twice in the header")
    return header, rows
