"""A page as one file of HTML: the data as JSON, one script and one style beside it, and a policy that lets nothing else run."""

import base64
import dataclasses
import hashlib
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import NonFiniteError
from circuits.files.writing import write_whole
from circuits.report.blocks import Section

SCRIPTS = (
    "elements",
    "numbers",
    "blocks",
    "links",
    "charts",
    "heatmaps",
    "excerpts",
    "words",
    "graph_data",
    "graph_layout",
    "graph_picture",
    "graph_hits",
    "graph_view",
    "graph_hands",
    "attention",
    "panel",
    "graph_tables",
    "explorer",
    "page",
)
"""The files of the script, in the order in which they stand in the page; the last one begins to draw."""
STYLES = ("colours", "page", "blocks", "explorer", "print")
_DIGITS = 6
"""Digits of a number in the page."""
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>circuits report</title>
<style>{style}</style>
</head>
<body>
<noscript>This page draws itself with a script of its own, which does not run here.</noscript>
<main id="page"></main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
_MARK = b"<title>circuits report</title>"
"""Stands in every page near its beginning: the title itself is set by the script."""


@dataclasses.dataclass(frozen=True)
class Page:
    """Sections under a title."""

    title: str
    sections: Sequence[Section]
    lead: str = ""
    """A line below the title."""

    def html(self) -> str:
        """The page. Raises NonFiniteError for NaN and infinities among its numbers."""
        sections = [section.plain() for section in self.sections]
        data = as_json({"title": self.title, "lead": self.lead, "sections": sections})
        script, style = joined("script", SCRIPTS, "js"), joined("style", STYLES, "css")
        script = f'(() => {{\n"use strict";\n{script}}})();\n'
        policy = "; ".join(
            [
                "default-src 'none'",
                f"script-src '{digest(script)}'",
                f"style-src '{digest(style)}'",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        )
        return _TEMPLATE.format(policy=policy, style=style, data=data, script=script)

    def save(self, path: Path) -> None:
        """Write the page, whole or not at all. Raises FileFormatError where that fails."""
        write_whole(path, self.html().encode("utf-8", "replace"))


def is_page(path: Path) -> bool:
    """Whether a file is a page that `Page.save` wrote."""
    try:
        with path.open("rb") as file:
            return _MARK in file.read(2_000)
    except OSError:
        return False


def joined(folder: str, names: Sequence[str], suffix: str) -> str:
    """Files of the script or the style one after another."""
    root = importlib.resources.files("circuits.report") / folder
    return "".join((root / f"{name}.{suffix}").read_text(encoding="utf-8") for name in names)


def digest(text: str) -> str:
    """What a Content-Security-Policy names a script or a style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_json(value: Any) -> str:
    """Plain values as JSON that can stand inside a script element: no character in it begins or ends markup."""
    text = json.dumps(short(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # JSON has these outside of its strings nowhere, and inside of them the escapes mean the same.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    # A surrogate alone has no UTF-8.
    return "".join(f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else char for char in text)


def short(value: Any) -> Any:
    """Plain values with numbers of a few digits. Raises NonFiniteError for NaN and infinities."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NonFiniteError(f"{value} cannot stand in a page: expected a finite number, or None")
        number = float(f"{value:.{_DIGITS}g}")
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(value, Mapping):
        return {str(key): short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [short(item) for item in value]
    return value
