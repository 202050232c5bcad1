"""Text that a figure can show: no formulas, no characters that the font lacks, no line that runs out of its place."""

import functools
import textwrap

from matplotlib.font_manager import FontProperties, findfont, get_font

_VISIBLE = {" ": "·", "\n": "↵", "\t": "→", "\r": "↵"}


def shown_token(token: str, *, longest: int = 10) -> str:
    """A token as a label: spaces and line ends visible, unprintable characters as �, cut off at `longest`."""
    shown = "".join(_VISIBLE.get(char, char) for char in token)
    return shortened(shown, longest) or "∅"


def shortened(text: str, longest: int) -> str:
    """At most `longest` characters of a text, with … where some are left out; characters without a glyph become �."""
    drawable = "".join(char if _has_glyph(char) else "�" for char in text)
    return drawable if len(drawable) <= longest else drawable[: longest - 1] + "…"


def wrapped(text: str, width: int, *, lines: int = 3) -> str:
    """A text broken into lines of `width` characters, at most `lines` of them."""
    return "\n".join(textwrap.wrap(shortened(text, width * lines), width, break_on_hyphens=False)[:lines])


@functools.cache
def _has_glyph(char: str) -> bool:
    font = get_font(findfont(FontProperties()))
    return char.isprintable() and font.get_char_index(ord(char)) != 0
