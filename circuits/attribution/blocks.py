"""Scores of edges from many coordinates to many, a block at a time, by three matrix products and nothing else of that size.

A writer's output differs by coordinates times output weights, a reader's number moves by slopes times input weights (less
what the norm takes away), so for coordinates u and j, with A the changes, W_o the output weights, D the slopes over the
norm's scale, V the folded input weights and X the normed residual,

    score[u, j] = (W_o V)[u, j] (A^T D)[u, j] - (A * X W_o^T)^T (D * X V)[u, j] / d_model

summed over the coordinates of a writer and of a reader; rows are prompts and positions (Syed et al. 2023, with the exact
derivative of the norm).
"""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.topk import Largest

TILE = 2**22
"""Entries of a block that is worked on at once: few enough for a shared cache, many enough for fast products."""


@dataclasses.dataclass(frozen=True, eq=False)
class Writers:
    """Writers in a row, from a place on: writer w's output differs by the sum over its `width` coordinates of change times
    W. Without W the only writer is the input, and its coordinates are the residual stream's."""

    place: int
    change: Float[Tensor, "row coordinate"]
    W: Float[Tensor, "coordinate d_model"] | None
    width: int


@dataclasses.dataclass(frozen=True, eq=False)
class Readers:
    """Readers in a row, from a place on, each of `width` coordinates."""

    place: int
    width: int
    parts: tuple[tuple[Float[Tensor, "d_model coordinate"], Float[Tensor, "row coordinate"]], ...]
    """Input weights with the norm folded in, and mean slopes; a gated neuron has two."""
    unit: Float[Tensor, "step row d_model"] | None
    """What a writer's output is projected on, for each gradient run (the normed residual); None: on nothing."""
    pull: Float[Tensor, "step_row reader"] | None
    """How far a reader is moved by that projection."""
    rows: Int[Tensor, " row"] | None = None
    """Rows that the readers' slopes are not zero in; None: all."""

    @classmethod
    def of(
        cls,
        place: int,
        weights: tuple[Float[Tensor, "d_model coordinate"], ...],
        slopes: tuple[Float[Tensor, "step row coordinate"], ...],
        unit: Float[Tensor, "step row d_model"] | None,
        width: int,
    ) -> "Readers":
        """From weights and, for each gradient run, slopes that hold its weight in the mean."""
        # Pads, tokens behind the answer and, in the last layer, all that no key or value is read of have no slope: their rows
        # would be multiplied by zeros.
        used = torch.stack([(slope != 0).any(dim=2).any(dim=0) for slope in slopes]).any(dim=0)
        rows = None if bool(used.all()) else used.nonzero()[:, 0]
        if rows is not None:
            slopes = tuple(slope[:, rows] for slope in slopes)
            unit = None if unit is None else unit[:, rows]
        # Without the norm's part a score is linear in the slope, so that gradient runs are summed before any product; that part
        # multiplies slope and normed residual, which differ from run to run, and keeps them apart.
        parts = tuple((W, slope.sum(dim=0)) for W, slope in zip(weights, slopes, strict=True))
        if unit is None:
            return cls(place, width, parts, None, None, rows)
        flat, pulls = unit.flatten(0, 1), []
        for W, slope in zip(weights, slopes, strict=True):
            pulls.append((flat @ W).mul_(slope.flatten(0, 1)).unflatten(1, (-1, width)).sum(dim=2))
        pull = sum(pulls[1:], start=pulls[0]).div_(-unit.shape[2])
        return cls(place, width, parts, unit, pull, rows)

    @classmethod
    def logits(cls, place: int, slope: Float[Tensor, "row d_model"]) -> "Readers":
        """The only reader whose slope is known by the residual stream."""
        return cls(place, 1, (), slope[None], slope.new_ones(len(slope), 1))

    @property
    def coordinates(self) -> int:
        """Coordinates of all of them."""
        return self.parts[0][0].shape[1] if self.parts else self.width


class Scorer:
    """Computes blocks in tiles of its own and hands them to the largest."""

    def __init__(self, largest: Largest, dtype: torch.dtype, device: torch.device) -> None:
        self.largest = largest
        self.tiles = [torch.empty(0, dtype=dtype, device=device) for _ in range(3)]

    def add(self, writers: Writers, readers: Readers) -> None:
        """Score every edge from these writers into these readers."""
        change = writers.change if readers.rows is None else writers.change[readers.rows]
        if writers.W is None:
            self.largest.add(from_input(change, readers), writers.place, readers.place)
            return
        for first in tiles(len(writers.W), writers.width, readers.coordinates):
            block = self._block(change[:, first], writers.W[first], writers.width, readers)
            self.largest.add(block, writers.place + first.start // writers.width, readers.place)

    def _block(self, change: Tensor, W: Tensor, width: int, readers: Readers) -> Float[Tensor, "writer reader"]:
        block = None
        for V, slope in readers.parts:
            # Into memory that is used again: arrays of this size are mapped and cleared by the system at every call, which
            # costs as much as the product.
            weights = torch.mm(W, V, out=self._tile(0 if block is None else 1, len(W), V.shape[1]))
            moved = torch.mm(change.T, slope, out=self._tile(2, len(W), V.shape[1]))
            block = weights.mul_(moved) if block is None else block.addcmul_(weights, moved)
        if block is not None:
            block = block if readers.width == 1 else block.unflatten(1, (-1, readers.width)).sum(dim=2)
            block = block if width == 1 else block.unflatten(0, (-1, width)).sum(dim=1)
        if readers.unit is None or readers.pull is None:
            assert block is not None
            return block
        along = torch.matmul(readers.unit, W.T).mul_(change).flatten(0, 1)
        along = along if width == 1 else along.unflatten(1, (-1, width)).sum(dim=2)
        return along.T @ readers.pull if block is None else block.addmm_(along.T, readers.pull)

    def _tile(self, index: int, rows: int, columns: int) -> Tensor:
        if self.tiles[index].numel() < rows * columns:
            self.tiles[index] = self.tiles[index].new_empty(rows * columns)
        return self.tiles[index][: rows * columns].view(rows, columns)


def tiles(count: int, width: int, columns: int) -> Iterator[slice]:
    """Cut coordinates into tiles of whole writers."""
    # Whole writers: a writer cut in two would be two scores of one edge.
    step = max(1, TILE // (columns * width)) * width
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def from_input(change: Float[Tensor, "row d_model"], readers: Readers) -> Float[Tensor, "1 reader"]:
    """Scores of the input's edges: what is added to the residual stream is known as it is."""
    block = change.new_zeros(1, readers.coordinates // readers.width)
    for V, slope in readers.parts:
        block += (change @ V).mul_(slope).sum(dim=0).unflatten(0, (-1, readers.width)).sum(dim=1)
    if readers.unit is not None and readers.pull is not None:
        block += (readers.unit * change).sum(dim=2).flatten()[None] @ readers.pull
    return block
