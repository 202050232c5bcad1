"""Plain text for a terminal: tables, numbers, and nothing in them that a terminal would obey."""

import json
import os
import shlex
import sys
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


def colours_allowed() -> bool:
    """Whether what is printed is read in a terminal that shows colours, by somebody who has not asked for none
    (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def weighed_words(words: Sequence[str], numbers: Sequence[float], *, colours: bool, width: int = 100) -> str:
    """Words by a number each, in lines: blue above 0 and red below it, the strongest third reversed. Without colours a mark
    stands behind them: [++] and [--] from two thirds of the largest number on, [+] and [-] from one third on."""
    largest = max(map(abs, numbers), default=0.0)
    lines, used = [[]], 0
    for word, number in zip(words, numbers, strict=True):
        share = abs(number) / largest if largest else 0.0
        level = 2 if share >= 2 / 3 else 1 if share >= 1 / 3 else 0
        said = printable(word)
        marked = said if colours or not level else f"{said}[{('+' if number > 0 else '-') * level}]"
        if used and used + 1 + len(marked) > width:
            lines.append([])
            used = 0
        used += len(marked) + (1 if used else 0)
        hue = "blue" if number > 0 else "red"
        lines[-1].append(typer.style(said, fg=hue, bold=True, reverse=level == 2) if colours and level else marked)
    return "\n".join(" ".join(line) for line in lines)


def nats(effect: Mapping[str, float]) -> str:
    """An effect with its interval: `+1.23 [1.10, 1.36]`."""
    return f"{effect['effect']:+.2f} [{effect['low']:.2f}, {effect['high']:.2f}]"


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
