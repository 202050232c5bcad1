"""What a notebook shows of a result: its first rows and its picture."""

import base64
import html
import io
from collections.abc import Callable
from typing import Any

from circuits.files.words import one_line

ROWS, COLUMNS = 10, 12
DOTS_PER_INCH = 70


def preview(result: Any) -> str:
    """HTML of a result: one line, the first rows of its table, its picture. It never raises: what cannot be shown says why."""
    parts: list[tuple[str, Callable[[Any], str]]] = [("line", _line), ("table", _table), ("picture", _picture)]
    return "\n".join(_shown(name, part, result) for name, part in parts)


def _shown(name: str, part: Callable[[Any], str], result: Any) -> str:
    try:
        return part(result)
    except Exception as error:  # whatever it is: a cell that shows a result is no place to fail
        return f"<p>no {name}: {html.escape(one_line(f'{type(error).__name__}: {error}'))}</p>"


def _line(result: Any) -> str:
    return f"<p><code>{html.escape(repr(result))}</code></p>"


def _table(result: Any) -> str:
    table = result.to_dataframe()
    rest = f"<p>{len(table):,} rows, {len(table.columns)} columns: <code>to_dataframe()</code></p>" if len(table) > ROWS else ""
    return table.to_html(max_rows=ROWS, max_cols=COLUMNS, escape=True, border=0, float_format="{:.4g}".format) + rest


def _picture(result: Any) -> str:
    image = io.BytesIO()
    result.plot().savefig(image, format="png", dpi=DOTS_PER_INCH)
    encoded = base64.b64encode(image.getvalue()).decode()
    return f'<img alt="{html.escape(type(result).__name__)}" src="data:image/png;base64,{encoded}">'
