"""How far the values of nodes have moved from what edges outside carry, and what readers read of them."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.patching.subgraphs.sharing import Reads

Picked = tuple[Tensor, Tensor]
"""Indices of prompts and columns, of one shape together."""
_TOGETHER = 64
"""Readings that are summed in one product at most."""
_TIMES, _MOVED = 0.02, 0.4
"""About how many nanoseconds it takes to multiply two numbers in a product, and to fetch one from memory."""
_SUMMED = 0.4
"""The same for a number that is added where a reading's values are summed one after the other."""


class Differences:
    """Values of input, heads and whole MLPs are held as what they write; those of neurons as changes of activation beside their
    output weights. `dense` and `neurons`: the numbers of either kind."""

    def __init__(self, like: Float[Tensor, "prompt position d_model"], dense: Sequence[int], neurons: Sequence[int]) -> None:
        self._rows = {value: row for row, value in enumerate(dense)}
        # Values stand before prompts and positions: what many readers read is then a 0-1 matrix times this table, flattened
        # without a copy.
        self._dense = like.new_zeros(1 + len(dense), *like.shape)
        # The last row is for what is read at rest: a value like others to whatever sums readings one by one.
        self._neurons = _Neurons(like, neurons)

    def place(self, value: int) -> Float[Tensor, "prompt position d_model"]:
        """Where the difference of a dense value is to be written."""
        return self._dense[self._rows[value]]

    def set_neurons(
        self, values: Sequence[int], changes: Float[Tensor, "value prompt position"], W: Float[Tensor, "value d_model"]
    ) -> None:
        """The changes of some neurons' activations, and their output weights."""
        self._neurons.set(values, changes.flatten(1), W)

    def streams(
        self,
        reads: Sequence[Reads],
        rest: Float[Tensor, "prompt position d_model"],
        budget: int,
        picked: Picked | None = None,
    ) -> Iterator[tuple[Sequence[Reads], Float[Tensor, "reading prompt position d_model"]]]:
        """What is read where these values moved, in parts within a budget of bytes. `rest`: what is read at rest. `picked`: the
        prompts and positions that are wanted."""
        # Three arrays of that size are alive at once: what is read, and two within a norm.
        at_once = min(_TOGETHER, max(1, budget // (3 * rest.numel() * rest.element_size())))
        table = self._dense
        if picked is not None:
            table = table[:, picked[0], picked[1]]
        table[-1] = rest
        for start in range(0, len(reads), at_once):
            part = reads[start : start + at_once]
            yield part, self._summed(part, table, picked)

    def _summed(self, reads: Sequence[Reads], table: Tensor, picked: Picked | None) -> Tensor:
        flat = table.flatten(1)
        read = flat.new_empty(len(reads), flat.shape[1])
        dense = [[self._rows[value] for value in one if value in self._rows] for one in reads]
        singly: list[int] = []
        for start, end in _alike(dense):
            some = dense[start:end]
            used = sorted({row for rows in some for row in rows})
            count, span = sum(map(len, some)), used[-1] + 1 - used[0] if used else 0
            # A stretch of the table is a view, rows here and there are copied (fetched, written, fetched again); readings of
            # few values, or of values that others do not read, are best summed one by one.
            whole, copied = (max(_TIMES * len(some), _MOVED) * width for width in (span, len(used)))
            copied += 2 * _MOVED * len(used)
            if min(whole, copied) < _SUMMED * count:
                _product(flat, some, used, whole=whole <= copied, out=read[start:end])
            else:
                singly += range(start, end)
        if len(singly) == len(reads):
            read = _sums(table, dense).flatten(1)
        elif singly:
            read[singly] = _sums(table, [dense[index] for index in singly]).flatten(1)
        self._neurons.add_to(read, reads, picked)
        return read.unflatten(1, table.shape[1:])


def _alike(rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Readings in a row, from where to where, cut where those of another circuit begin: its values are other rows of the table,
    and a product goes over all rows between the first and the last."""
    start = last = 0
    for index, one in enumerate(rows):
        row = max(one, default=0)
        if index > start and row - last > len(one):
            yield start, index
            start = index
        last = row if index == start else max(last, row)
    if rows:
        yield start, len(rows)


def _sums(
    table: Float[Tensor, "row prompt position d_model"], rows: Sequence[Sequence[int]]
) -> Float[Tensor, "reading prompt position d_model"]:
    """Sums of rows of a table and of its last row, reading by reading and position by position: each number is fetched once,
    and what is summed stays in the processor until it is whole."""
    spots, last, device = table[0, ..., 0].numel(), len(table) - 1, table.device
    counts = torch.tensor([1 + len(own) for own in rows], device=device)
    members = torch.tensor([row for own in rows for row in (*own, last)], device=device)
    first = counts.cumsum(0) - counts
    # Of each bag, one a reading and position, its reading; of each member, its bag and its place in that.
    reading = torch.arange(len(rows), device=device).repeat_interleave(spots)
    sizes = counts[reading]
    offsets = sizes.cumsum(0) - sizes
    bag = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
    place = torch.arange(len(bag), device=device) - offsets[bag]
    index = members[first[reading][bag] + place] * spots + bag % spots
    found = F.embedding_bag(index, table.flatten(0, -2), offsets, mode="sum")
    return found.unflatten(0, (len(rows), *table.shape[1:-1]))


def _product(flat: Float[Tensor, "row flat"], rows: list[list[int]], used: list[int], *, whole: bool, out: Tensor) -> None:
    """Sums of rows of a table, and of its last row, as one product with a 0-1 matrix: with the `whole` stretch of the table
    between the first and the last of the rows, or with a copy of those that are used."""
    first, last = used[0], used[-1] + 1
    place = {row: row - first for row in used} if whole else {row: index for index, row in enumerate(used)}
    mask = flat.new_zeros(len(rows), last - first if whole else len(used))
    into = torch.tensor([index for index, own in enumerate(rows) for _ in own])
    mask[into, torch.tensor([place[row] for own in rows for row in own])] = 1.0
    torch.addmm(flat[-1:], mask, flat[first:last] if whole else flat[used], out=out)


class _Neurons:
    """Neurons that moved: changes of activation and output weights, a row each."""

    def __init__(self, like: Float[Tensor, "prompt position d_model"], values: Sequence[int]) -> None:
        prompts, positions, d_model = like.shape
        self._shape = (prompts, positions)
        # Row 0 is the neuron that fills up readers of fewer neurons than their size: zero on both sides.
        self._rows = {value: row for row, value in enumerate(values, start=1)}
        self._changes = like.new_zeros(1 + len(values), prompts * positions)
        self._weights = like.new_zeros(1 + len(values), d_model)

    def set(self, values: Sequence[int], changes: Float[Tensor, "value flat"], W: Float[Tensor, "value d_model"]) -> None:
        """What some neurons changed by, and their output weights."""
        rows = torch.tensor([self._rows[value] for value in values])
        self._changes[rows], self._weights[rows] = changes, W

    def add_to(self, read: Float[Tensor, "reading flat"], reads: Sequence[Reads], picked: Picked | None) -> None:
        """Add what neurons write to what is read, in place. Readings are taken together by how many neurons they hold, rounded
        up to a power of two."""
        own = [[self._rows[value] for value in one if value in self._rows] for one in reads] if self._rows else []
        if not any(own):
            return
        changes = self._changes
        if picked is not None:
            changes = changes.unflatten(1, self._shape)[:, picked[0], picked[1]].flatten(1)
        # bmm wants equally many neurons a reading. Padding all to the longest would cost readings x longest; by powers of two
        # it costs less than twice the edges, in few products.
        by_size: dict[int, list[int]] = {}
        for index, rows in enumerate(own):
            if rows:
                by_size.setdefault(1 << (len(rows) - 1).bit_length(), []).append(index)
        for size, which in by_size.items():
            table = torch.tensor([own[index] + [0] * (size - len(own[index])) for index in which])
            at_once = max(1, 2**24 // (size * (changes.shape[1] + self._weights.shape[1])))
            for part, into in zip(table.split(at_once), torch.tensor(which).split(at_once), strict=True):
                self._add(read, part, into, changes)

    def _add(self, read: Tensor, part: Int[Tensor, "reading neuron"], into: Int[Tensor, " reading"], changes: Tensor) -> None:
        moved = torch.bmm(changes[part].transpose(1, 2), self._weights[part])
        read[into] += moved.flatten(1)
