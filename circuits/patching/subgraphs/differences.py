"""How far the values of nodes have moved from what edges outside carry, and what readers read of them."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.patching.subgraphs.sharing import Reads

Picked = tuple[Tensor, Tensor]
"""Indices of prompts and columns, of one shape together."""
_TOGETHER = 64
"""Readings that are summed in one product at most."""
_TIMES, _MOVED = 0.02, 0.4
"""About how many nanoseconds it takes to multiply two numbers in a product, and to fetch one from memory."""


class Differences:
    """Values of input, heads and whole MLPs are held as what they write; those of neurons as changes of activation beside their
    output weights. `dense` and `neurons`: the numbers of either kind."""

    def __init__(self, like: Float[Tensor, "prompt position d_model"], dense: Sequence[int], neurons: Sequence[int]) -> None:
        self._rows = {value: row for row, value in enumerate(dense)}
        # Values stand before prompts and positions: what many readers read is then a 0-1 matrix times this table, flattened
        # without a copy.
        self._dense = like.new_zeros(len(dense), *like.shape)
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
        for part in self._alike(reads, at_once):
            yield part, self._summed(part, rest, picked)

    def _alike(self, reads: Sequence[Reads], at_once: int) -> Iterator[Sequence[Reads]]:
        """Readings in a row, at most so many together, cut where those of another circuit begin: its values are other rows of
        the table, and a product goes over all rows between the first and the last."""
        part: list[Reads] = []
        last = 0
        for one in reads:
            row = max((self._rows.get(value, 0) for value in one), default=0)
            if part and (len(part) == at_once or row - last > len(one)):
                yield part
                part = []
            part.append(one)
            last = row if len(part) == 1 else max(last, row)
        if part:
            yield part

    def _summed(self, reads: Sequence[Reads], rest: Tensor, picked: Picked | None) -> Tensor:
        table = self._dense if picked is None else self._dense[:, picked[0], picked[1]]
        flat, still = table.flatten(1), rest.flatten()
        dense = [[self._rows[value] for value in one if value in self._rows] for one in reads]
        used = sorted({row for rows in dense for row in rows})
        count, span = sum(map(len, dense)), used[-1] + 1 - used[0] if used else 0
        # A stretch of the table is a view, rows here and there are copied (fetched, written, fetched again); few readings of
        # few values are best added one by one.
        product = [max(_TIMES * len(reads), _MOVED) * width for width in (span, len(used))]
        if min(product[0], product[1] + 2 * _MOVED * len(used)) < 2 * _MOVED * count:
            read = _product(flat, dense, used, still, whole=product[0] <= product[1] + 2 * _MOVED * len(used))
        else:
            read = still.repeat(len(reads), 1)
            for into, rows in zip(read, dense, strict=True):
                for row in rows:
                    into += flat[row]
        self._neurons.add_to(read, reads, picked)
        return read.unflatten(1, rest.shape)


def _product(
    flat: Float[Tensor, "row flat"], rows: list[list[int]], used: list[int], still: Float[Tensor, " flat"], *, whole: bool
) -> Float[Tensor, "reading flat"]:
    """Sums of rows of a table, and of what is read at rest, as one product with a 0-1 matrix: with the `whole` stretch of the
    table between the first and the last of the rows, or with a copy of those that are used."""
    first, last = used[0], used[-1] + 1
    place = {row: row - first for row in used} if whole else {row: index for index, row in enumerate(used)}
    mask = flat.new_zeros(len(rows), last - first if whole else len(used))
    into = torch.tensor([index for index, own in enumerate(rows) for _ in own])
    mask[into, torch.tensor([place[row] for own in rows for row in own])] = 1.0
    return torch.addmm(still[None], mask, flat[first:last] if whole else flat[used])


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
