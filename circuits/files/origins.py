"""The command line that a file comes from: told while a command works, written into the file of every result, read from it."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any

from circuits.errors import FileFormatError

KEY = "command"
"""Under which a file has it; files of functions that no command called, and older ones, lack it."""
_LINE: contextvars.ContextVar[str] = contextvars.ContextVar("command line", default="")


@contextlib.contextmanager
def made_by(line: str) -> Iterator[None]:
    """While the block lasts, results are saved with this command line (empty: with none)."""
    before = _LINE.set(line)
    try:
        yield
    finally:
        _LINE.reset(before)


def origin() -> dict[str, str]:
    """What a result that is saved now says of where it comes from: its command line, where one is known."""
    return {KEY: _LINE.get()} if _LINE.get() else {}


def without_origin(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without its command line. Raises FileFormatError where that is no text."""
    rest = dict(document)
    if not isinstance(rest.pop(KEY, ""), str):
        raise FileFormatError(f"{KEY} is no text")
    return rest


def origin_of(document: object) -> str:
    """The command line that a document names; "" where it names none."""
    found = document.get(KEY) if isinstance(document, Mapping) else None
    return found if isinstance(found, str) else ""
