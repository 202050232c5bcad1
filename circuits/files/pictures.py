"""Who draws what: a room that draws registers its figures here, so that a result can be drawn by rooms it does not import."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from circuits.errors import CircuitsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawing = TypeVar("Drawing", bound=Callable[..., Any])

DRAWINGS: dict[type, Callable[..., Any]] = {}
"""What `draws` has registered in this process: kind of result → the function that draws one."""

THUMBNAILS: dict[type, Callable[..., Any]] = {}
"""The same for notebooks, of kinds whose picture may be too large for a cell."""

GALLERIES: list[str] = []
"""Modules that register figures when they are imported, which happens when the first picture is asked for."""


def hung_in(module: str) -> None:
    """Name a module that registers figures, without importing it: the package's front names the room of plots."""
    if module not in GALLERIES:
        GALLERIES.append(module)


def draws(*kinds: type) -> Callable[[Drawing], Drawing]:
    """Register the decorated function as the one that draws results of these kinds; its first argument is the result. A
    function registered before is replaced."""

    def register(drawing: Drawing) -> Drawing:
        """Note which kinds it draws."""
        DRAWINGS.update(dict.fromkeys(kinds, drawing))
        return drawing

    return register


def draws_small(*kinds: type) -> Callable[[Drawing], Drawing]:
    """Register the decorated function as the one that draws results of these kinds in a notebook's cell."""

    def register(drawing: Drawing) -> Drawing:
        """Note which kinds it draws."""
        THUMBNAILS.update(dict.fromkeys(kinds, drawing))
        return drawing

    return register


def drawing_of(kind: type) -> Callable[..., "Figure"]:
    """The function that draws results of a kind, to be called with the result and the options that it takes. Raises
    CircuitsError where nobody has registered one."""
    if kind not in DRAWINGS:
        _open_galleries()
    if kind not in DRAWINGS:
        raise CircuitsError(f"no picture of {kind.__name__}: register a function with circuits.files.pictures.draws")
    return DRAWINGS[kind]


def small_drawing_of(kind: type) -> Callable[..., "Figure"] | None:
    """The function that draws results of a kind for a notebook's cell; None where their usual picture serves there too."""
    _open_galleries()
    return THUMBNAILS.get(kind)


def _open_galleries() -> None:
    for module in GALLERIES:
        importlib.import_module(module)
