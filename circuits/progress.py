"""How long work says how far it has come."""

from collections.abc import Callable
from typing import Any

from circuits.errors import CircuitsError, shown

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many of these steps are done, and how many there are."""

Found = Callable[[Any], None]
"""Called with each part of a long answer as soon as it is there, in order: a result that can be saved by itself. What it
raises stops the work."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for: says nothing. Functions take None for it, and tell this one instead."""


def unheard(part: Any) -> None:
    """Parts that nobody asked for: keeps none. Functions take None for it, and call this one instead."""


def heard(found: Found | None) -> Found:
    """Who hears the parts of a long answer. Raises CircuitsError, before any work, for what cannot be called."""
    if found is not None and not callable(found):
        raise CircuitsError(f"found={shown(found)}: expected a function that is called with each part as soon as it is there")
    return found or unheard
