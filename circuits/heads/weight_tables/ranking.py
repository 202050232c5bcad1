"""The largest entries of a matrix that is never whole: rows come in blocks, and of equal entries the earlier is taken."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2**24
"""Entries of a block of rows that are held at once (two or three arrays of so many, while one is worked on)."""
_SLICE = 32
_TILE_ROWS, _TILE_COLUMNS = 512, 1024


def blocks(rows: int, columns: int) -> Iterator[Int[Tensor, " row"]]:
    """Row numbers, so many at a time that a block has at most BLOCK entries (one row at least)."""
    yield from torch.arange(rows).split(max(1, BLOCK // max(1, columns)))


def best_of_rows(values: Float[Tensor, "row column"], k: int) -> tuple[Float[Tensor, "row least"], Int[Tensor, "row least"]]:
    """The k largest of each row (all of a shorter one) and their columns, best first; of equal ones the earlier column."""
    k = min(k, values.shape[1])
    one_more = min(k + 1, values.shape[1])
    candidates, places = _candidates(values, one_more)
    found, columns = candidates.topk(one_more, dim=1)
    columns = columns if places is None else places.gather(1, columns)
    # `topk` says nothing of which of equal values it takes, and devices differ: rows where the k-th is tied are sorted whole.
    tied = (found[:, k - 1] == found[:, -1]).nonzero()[:, 0] if one_more > k else columns[:0, 0]
    found, columns = found[:, :k], columns[:, :k]
    if len(tied):
        order = values[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
        columns[tied], found[tied] = order, values[tied].gather(1, order)
    columns, order = columns.sort(dim=1)
    found, again = found.gather(1, order).sort(dim=1, descending=True, stable=True)
    return found, columns.gather(1, again)


def _candidates(values: Tensor, k: int) -> tuple[Tensor, Tensor | None]:
    """Values of each row among which its k largest are, with their columns (None: all of them). Of a long row, slices of every
    so-many-th column are looked at first: the k with the largest maxima hold the k largest values."""
    count = values.shape[1] // _SLICE
    if count < 4 * k:
        return values, None
    slices = values[:, : count * _SLICE].unflatten(1, (_SLICE, count))
    chosen = slices.amax(dim=1).topk(k, dim=1).indices
    steps = count * torch.arange(_SLICE, device=values.device)
    columns = (chosen[:, None, :] + steps[:, None]).flatten(1)
    rest = torch.arange(_SLICE * count, values.shape[1], device=values.device).expand(len(values), -1)
    columns = torch.cat([columns, rest], dim=1)
    return values.gather(1, columns), columns


def peaks(
    left: Float[Tensor, "row rank"], right: Float[Tensor, "rank column"], offset: Float[Tensor, " column"] | None = None
) -> Float[Tensor, " row"]:
    """The largest entry of each row of left @ right (+ offset), in tiles that stay near the processor: NaN where one is NaN."""
    tops = [left.new_full((len(part),), -torch.inf) for part in left.split(_TILE_ROWS)]
    for start in range(0, right.shape[1], _TILE_COLUMNS):
        columns = right[:, start : start + _TILE_COLUMNS].contiguous()
        for top, part in zip(tops, left.split(_TILE_ROWS), strict=True):
            tile = part @ columns
            if offset is not None:
                tile += offset[start : start + _TILE_COLUMNS]
            torch.maximum(top, tile.amax(dim=1), out=top)
    return torch.cat(tops)


def best_of_all(
    rows: int,
    columns: int,
    block: Callable[[Int[Tensor, " row"]], Float[Tensor, "row column"]],
    k: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Float[Tensor, " least"], Int[Tensor, " least"], Int[Tensor, " least"]]:
    """The k largest entries of a `rows` × `columns` matrix whose rows `block` makes: values, rows and columns, best first; of
    equal ones that of the earlier row, then of the earlier column. `report` hears how many rows of how many are done."""
    best: tuple[Tensor, Tensor] | None = None
    for ids in blocks(rows, columns):
        values, done = block(ids), int(ids[-1]) + 1
        ids = ids.to(values.device)
        if best is not None and len(best[0]) == k:
            worthy = (values.amax(dim=1) >= best[0][-1]).nonzero()[:, 0]
            values, ids = values[worthy], ids[worthy]
        found, places = best_of_rows(values, k)
        found, places = found.flatten(), (places + ids[:, None] * columns).flatten()
        if best is not None:
            found, places = torch.cat([best[0], found]), torch.cat([best[1], places])
        order = found.sort(descending=True, stable=True).indices[:k]
        best = found[order], places[order]
        report(done, rows)
    assert best is not None
    values, places = best
    return values, places // columns, places % columns
