"""How long work says how far it has come."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many of these steps are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for: says nothing. Functions take None for it, and tell this one instead."""
