"""Plain text for a terminal: tables, numbers, and nothing in them that a terminal would obey."""

import json
import shlex
import textwrap
from collections.abc import Mapping, Sequence

import typer


def printable(text: object) -> str:
    """A value as text without control characters, which names in a foreign file may hold."""
    return "".join(char if char.isprintable() else "�" for char in str(text))


def one_line(text: object) -> str:
    """A value as printable text on one line."""
    return printable(" ".join(str(text).split()))


def quoted(word: str) -> str:
    """A word of a command line as a shell reads it back, on one line and without what a terminal would obey."""
    if word.isprintable():
        return shlex.quote(word)
    kept = "".join(char if char.isprintable() and char not in "\\'" else _escaped(char) for char in word)
    return f"$'{kept}'"


def _escaped(char: str) -> str:
    """A character as bash and zsh read it inside $'...'."""
    known = {"\n": "\\n", "\t": "\\t", "\\": "\\\\", "'": "\\'"}
    return known.get(char) or "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


def filled(text: object, *, width: int = 100) -> str:
    """A value as printable text, broken into lines at spaces."""
    return textwrap.fill(one_line(text), width, break_on_hyphens=False, break_long_words=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 2) -> str:
    """Columns side by side: the first one to the left, numbers to the right."""
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        padded = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(" " * indent + "   ".join(padded).rstrip())
    return "\n".join(lines)


def nats(effect: Mapping[str, float]) -> str:
    """An effect with its interval: `+1.23 [1.10, 1.36]`."""
    return f"{effect['effect']:+.2f} [{effect['low']:.2f}, {effect['high']:.2f}]"


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
