"""The largest of very many scores, taken in block by block."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError
from circuits.graph import Graph
from circuits.graph.places import edge_at

KEPT = 20_000
"""Edges of the neuron graph that are kept, unless a call says how many."""
SLACK = 2**16
"""Scores beyond twice those to keep that are gathered before the smaller ones are thrown away."""


class Largest:
    """The `keep` edges of largest |score| among those seen so far; of equal ones those that come earlier in the order of
    computation (by writer, then by reader). What is kept does not depend on the order or the shape of the blocks."""

    def __init__(self, keep: int, graph: Graph) -> None:
        self.keep, self.graph = keep, graph
        self.bound = -1.0 if keep else float("inf")
        """Scores below it cannot be among the largest any more."""
        self.last = -1
        """Of scores as large as the bound, those of an edge from this one on cannot."""
        self._codes: list[Tensor] = []
        self._values: list[Tensor] = []
        self._held = 0

    def add(self, block: Float[Tensor, "writer reader"], writer: int, reader: int) -> None:
        """Take in the scores of edges from the writers into the readers from these places on. Raises NonFiniteError."""
        # Two reductions tell of most blocks that nothing in them counts; |block| would be a copy of the largest array there is.
        peaks = torch.maximum(block.amax(dim=1), -block.amin(dim=1))
        highest = float(peaks.max())
        # So written, NaN is refused too: it is not below anything.
        if not highest < float("inf"):
            self._refuse(block, writer, reader)
        first = writer * self.graph.reader_count + reader
        # At the bound the order of computation decides, not the order in which blocks come: so tiles and budgets change nothing
        # (test_the_streamed_largest_are_the_dense_selection).
        if highest < self.bound or (highest == self.bound and first >= self.last):
            return
        rows = (peaks >= self.bound).nonzero()[:, 0]
        part = block[rows]
        sizes, least = part.abs(), self.bound
        if least < 0 and sizes.numel() > self.keep:  # the first of many: what is not among its own largest need not be sorted
            least = float(sizes.flatten().topk(self.keep).values[-1])
        at, column = (sizes >= least).nonzero(as_tuple=True)
        codes = (rows[at] + writer) * self.graph.reader_count + column + reader
        values = part[at, column].double()
        chosen = (values.abs() > self.bound) | (codes < self.last)
        self._codes.append(codes[chosen])
        self._values.append(values[chosen])
        self._held += len(self._codes[-1])
        # Sorting is dear: it waits until as many again have gathered, and most of those the bound will then keep out unsorted.
        if self._held > 2 * self.keep + SLACK or (self.bound < 0 and self._held > self.keep):
            self._compact()

    def found(self) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"], Float[Tensor, " edge"]]:
        """Writers' places, readers' places and scores, in the order of computation."""
        if not self._codes:
            none = torch.zeros(0, dtype=torch.long)
            return none, none.clone(), none.double()
        self._compact()
        codes, order = self._codes[0].sort()
        writers = codes.div(self.graph.reader_count, rounding_mode="floor")
        return writers.cpu(), (codes - writers * self.graph.reader_count).cpu(), self._values[0][order].cpu()

    def join(self, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"], values: Float[Tensor, " edge"]) -> None:
        """Take in what `found` gives of other edges."""
        self._codes.append(writers * self.graph.reader_count + readers)
        self._values.append(values)
        self._held += len(values)
        if self._held > 2 * self.keep + SLACK:
            self._compact()

    def _compact(self) -> None:
        """Throw away what is not among the largest, and raise the bound."""
        codes, values = torch.cat(self._codes), torch.cat(self._values)
        if len(codes) > self.keep:
            codes, order = codes.sort()
            values = values[order]
            # Codes stand in the order of computation by now, and the sort is stable: of equal scores the earlier edge stays.
            sizes, best = values.abs().sort(descending=True, stable=True)
            best = best[: self.keep]
            codes, values = codes[best], values[best]
            self.bound, self.last = float(sizes[self.keep - 1]), int(codes[-1])
        self._codes, self._values, self._held = [codes], [values], len(codes)

    def _refuse(self, block: Tensor, writer: int, reader: int) -> None:
        row, column = (~block.isfinite()).nonzero()[0].tolist()
        edge = edge_at(self.graph, writer + row, reader + column)
        raise NonFiniteError(f"the score of {edge} is {float(block[row, column])}")
