"""Lines of charts with their intervals, from numbers of which some may be missing."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from circuits.probes.results import SURE


def line(
    name: str, x: Sequence[float], y: Iterable[float], errors: Iterable[float] | None = None, *, colour: str, look: str = "line"
) -> dict[str, Any]:
    """A series of a `Chart` through numbers at places, with 95 % intervals where standard errors are given. What is no finite
    number is left out."""
    values = [float(value) for value in y]
    spread = [0.0] * len(values) if errors is None else [float(error) for error in errors]
    kept = [
        (float(x[at]), value, error)
        for at, (value, error) in enumerate(zip(values, spread, strict=True))
        if math.isfinite(value) and math.isfinite(error)
    ]
    found: dict[str, Any] = {"name": name, "look": look, "colour": colour}
    found |= {"x": [at for at, _, _ in kept], "y": [value for _, value, _ in kept]}
    if errors is not None:
        found |= {"low": [value - SURE * error for _, value, error in kept]}
        found |= {"high": [value + SURE * error for _, value, error in kept]}
    return found


def level(name: str, x: Sequence[float], height: float, *, colour: str = "faint") -> dict[str, Any]:
    """A series that is the same everywhere, as baselines are."""
    return line(name, x, [height] * len(x), colour=colour)


def shown(*series: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that have a point."""
    return [one for one in series if one["x"]]
