"""Any other result as a section: what it says in words, and the first rows of its table."""

import math
from typing import Any

from circuits.files.results import Result
from circuits.report.blocks import Grid, Paragraphs, Section

_MOST_ROWS, _LONGEST = 200, 400
"""Rows of a table, and characters of a cell, that are shown."""


def result_section(result: Result, *, title: str) -> Section:
    """A result in words and as a table."""
    return Section(title, [Paragraphs([result.summary]), table_of(result, folded=False)])


def table_of(result: Result, *, folded: bool = True) -> Grid:
    """A result's own table, its first rows; `folded`: it is opened by a click."""
    table = result.to_dataframe()
    rows = [[_cell(value) for value in row] for row in table.head(_MOST_ROWS).astype(object).itertuples(index=False)]
    more = f", the first {_MOST_ROWS} of {len(table):,} rows" if len(table) > _MOST_ROWS else ""
    header = [str(name).replace("_", " ") for name in table.columns]
    return Grid(header, rows, f"The table{more}", folded=folded)


def _cell(value: Any) -> str | float | int | None:
    """A value of a table as a page shows it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return value
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
