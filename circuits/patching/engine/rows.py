"""Rows of several tensors through one function: a matrix product wants many rows at once, the processor's cache few."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

AT_ONCE = 768
"""Rows that a processor takes at a time, or some more (a graphics card takes all): enough that the weights, which are read anew
each time, cost little, and few enough that what lies between two products stays in its cache."""

RowFunction = Callable[[Tensor], tuple[Tensor, ...]]
Found = Iterator[tuple[int, slice, tuple[Tensor, ...]]]


def in_chunks(
    function: RowFunction, sources: Sequence[Tensor], axes: int = 1
) -> Iterator[tuple[int, slice, tuple[Tensor, ...]]]:
    """A function of rows, on the rows of all sources, some hundred at a time; the last `axes` axes of a source are one row.
    Gives, in no order, the place of a source, which of its first axis, and what came out for these."""
    waiting: list[tuple[int, slice, Tensor]] = []
    rows = 0
    for place, source in enumerate(sources):
        each = source.shape[1 : source.ndim - axes].numel()
        cpu = source.device.type == "cpu"
        step = max(1, -(-AT_ONCE // max(1, each))) if cpu else max(1, len(source))
        for start in range(0, len(source), step):
            some = slice(start, min(start + step, len(source)))
            part, count = (place, some, source[some]), (some.stop - start) * each
            if cpu and count >= AT_ONCE:
                # Enough by itself: joined to others its rows would be copied.
                yield from _computed(function, [part], axes)
                continue
            waiting.append(part)
            rows += count
            if cpu and rows >= AT_ONCE:
                yield from _computed(function, waiting, axes)
                waiting, rows = [], 0
    if waiting:
        yield from _computed(function, waiting, axes)


def _computed(function: RowFunction, parts: Sequence[tuple[int, slice, Tensor]], axes: int) -> Found:
    flat = [part.flatten(0, -axes - 1) for _, _, part in parts]
    # One part needs no copy.
    found = function(flat[0] if len(flat) == 1 else torch.cat(flat))
    split = [value.split([len(rows) for rows in flat]) for value in found]
    for (place, some, part), *values in zip(parts, *split, strict=True):
        lead = part.shape[: part.ndim - axes]
        yield place, some, tuple(value.unflatten(0, lead) for value in values)


def joined(function: Callable[[Tensor], Tensor], parts: Sequence[Tensor], axes: int = 1) -> list[Tensor]:
    """A function of rows, on the rows of all parts."""
    found: list[Tensor | None] = [None] * len(parts)
    for place, some, (value,) in in_chunks(lambda rows: (function(rows),), parts, axes):
        whole = parts[place]
        if some == slice(0, len(whole)):
            found[place] = value
            continue
        target = found[place]
        if target is None:
            target = found[place] = value.new_empty(len(whole), *value.shape[1:])
        target[some] = value
    # Parts without rows pass through the function too: what comes out has its own width.
    return [
        function(part.flatten(0, -axes - 1)).unflatten(0, part.shape[: part.ndim - axes]) if value is None else value
        for part, value in zip(parts, found, strict=True)
    ]
