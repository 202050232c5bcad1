"""What a notebook shows of a result: what it says in words, its first rows and its picture."""

import base64
import html
import io
from collections.abc import Callable
from typing import Any

from circuits.files.pictures import small_drawing_of
from circuits.files.words import one_line

ROWS, COLUMNS = 10, 12
DOTS_PER_INCH = (70, 50, 35, 20)
"""How finely a picture is drawn: the finest that is small enough."""
LARGEST_PICTURE = 120_000
"""Bytes of a picture."""


def preview(result: Any) -> str:
    """HTML of a result: one line, its summary where that says more, the first rows of its table, its picture. It never raises:
    what cannot be shown says why."""
    parts: list[tuple[str, Callable[[Any], str]]] = [("line", _line), ("summary", _words)]
    parts += [("table", _table), ("picture", _picture)]
    return "\n".join(_shown(name, part, result) for name, part in parts)


def _shown(name: str, part: Callable[[Any], str], result: Any) -> str:
    try:
        return part(result)
    except Exception as error:  # whatever it is: a cell that shows a result is no place to fail
        return f"<p>no {name}: {html.escape(one_line(f'{type(error).__name__}: {error}'))}</p>"


def _line(result: Any) -> str:
    return f"<p><code>{html.escape(repr(result))}</code></p>"


def _words(result: Any) -> str:
    """The summary, unless the line has said it all."""
    said = " ".join(result.summary.split())
    return "" if said.removesuffix(".") in repr(result) else f"<p>{html.escape(said)}</p>"


def _table(result: Any) -> str:
    table = result.to_dataframe()
    rest = f"<p>{len(table):,} rows, {len(table.columns)} columns: <code>to_dataframe()</code></p>" if len(table) > ROWS else ""
    return table.to_html(max_rows=ROWS, max_cols=COLUMNS, escape=True, border=0, float_format="{:.4g}".format) + rest


def _picture(result: Any) -> str:
    small = small_drawing_of(type(result))
    figure = result.plot() if small is None else small(result)
    image = io.BytesIO()
    for fineness in DOTS_PER_INCH:
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=fineness)
        if image.tell() <= LARGEST_PICTURE:
            break
    encoded = base64.b64encode(image.getvalue()).decode()
    return f'<img alt="{html.escape(type(result).__name__)}" src="data:image/png;base64,{encoded}">'
