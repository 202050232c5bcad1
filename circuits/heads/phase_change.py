"""When a curve of training changes, by a stated rule."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

from circuits.errors import CircuitsError, NonFiniteError


@dataclasses.dataclass(frozen=True)
class PhaseChange:
    """A rise from below `low` to above `high` in the course of training."""

    step: float
    """The middle of the steepest stretch (`steepest`) between `start` and `end`, or around them where that is longer."""
    start: int
    """The last recorded step below `low` before the rise; `end`: the first at or above `high`."""
    end: int
    before: float
    """The highest value up to `start`; above `low` where the curve had risen before and come back."""
    after: float
    """The value at the last recorded step."""
    share: float
    """The window from `start` to `end` as a share of all steps."""


def find_phase_change(
    steps: Sequence[int], values: Sequence[float], *, low: float = 0.1, high: float = 0.6
) -> PhaseChange | None:
    """Find where a curve rises from below `low` to `high` or more; None where it never does, or starts above `low`.

    Each value is first replaced by the median of itself and its two neighbours (the first and the
    last one by the median of itself, its neighbour and what that became), so that a single outlier is no change.
    Raises CircuitsError for steps that do not rise, fewer than three, or a `low` that is not below `high`; NonFiniteError
    for NaN and infinity.

    Args:
        steps: training steps, rising.
        values: the curve, one value a step.
        low: below it the curve has not begun to rise.
        high: from it on it has risen.

    >>> import circuits
    >>> change = circuits.find_phase_change([0, 100, 200, 300, 400, 500], [0.0, 0.02, 0.05, 0.5, 0.8, 0.9])
    >>> change.start, change.end
    (200, 400)
    """
    smooth = _smoothed(steps, values)
    if not low < high:
        raise CircuitsError(f"low={low} must be below high={high}")
    end = next((place for place, value in enumerate(smooth) if value >= high), None)
    start = next((place for place in range(end or 0, -1, -1) if smooth[place] < low), None)
    if end is None or start is None:
        return None
    step = _steepest(steps, smooth, span=0.05, sign=1, first=start, last=end)[0]
    share = (steps[end] - steps[start]) / (steps[-1] - steps[0])
    return PhaseChange(step, steps[start], steps[end], max(smooth[: start + 1]), smooth[-1], share)


def steepest(
    steps: Sequence[int], values: Sequence[float], *, falling: bool = False, span: float = 0.05
) -> tuple[float, float]:
    """The middle of the stretch over which a curve rises most, and by how much: of all stretches of `span` (a share) of the
    recorded steps, one interval at least, the first of equals. `falling`: falls most (the change is then negative).

    Smoothed and refused as in `find_phase_change`.
    """
    smooth = _smoothed(steps, values)
    return _steepest(steps, smooth, span=span, sign=-1 if falling else 1, first=0, last=len(steps) - 1)


def _steepest(
    steps: Sequence[int], smooth: Sequence[float], *, span: float, sign: int, first: int, last: int
) -> tuple[float, float]:
    """The steepest stretch between two records, or around them where they are nearer to each other than a stretch is long."""
    width = max(1, round(span * (len(steps) - 1)))
    low, high = sorted((first, last - width))
    places = range(max(low, 0), min(high, len(steps) - 1 - width) + 1)
    rises = {place: sign * (smooth[place + width] - smooth[place]) for place in places}
    place = max(rises, key=rises.__getitem__)
    return (steps[place] + steps[place + width]) / 2, sign * rises[place]


def _smoothed(steps: Sequence[int], values: Sequence[float]) -> list[float]:
    """Running medians of three; at the ends of the value, its neighbour and what that became."""
    if len(steps) != len(values) or len(steps) < 3:
        raise CircuitsError(f"{len(steps)} steps and {len(values)} values: expected as many of either, three at least")
    for earlier, later in itertools.pairwise(steps):
        if later <= earlier:
            raise CircuitsError(f"step {later} is recorded after step {earlier}: steps must rise")
    for step, value in zip(steps, values, strict=True):
        if not math.isfinite(value):
            raise NonFiniteError(f"the value at step {step} is {value}")
    inner = [statistics.median(values[place - 1 : place + 2]) for place in range(1, len(values) - 1)]
    ends = (statistics.median((values[0], *inner[:1], values[1])), statistics.median((values[-1], *inner[-1:], values[-2])))
    return [ends[0], *inner, ends[1]]
