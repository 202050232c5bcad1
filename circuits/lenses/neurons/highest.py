"""The largest values of very many columns, taken in block by block."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.heads.weight_tables.ranking import best_of_rows


class Highest:
    """The `keep` largest values of each column among the rows seen so far, and the places of those rows; of equal values
    the earlier rows. Rows come in the order of their places, in blocks of any size: what is kept does not depend on it.

    A block costs one look at its largest values. Only columns where that beats the smallest kept one are sorted: after
    `n` blocks about `keep / n` of them.
    """

    def __init__(self, columns: int, keep: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.values = torch.full((columns, keep), -torch.inf, dtype=dtype, device=device)
        """Kept values `[column keep]`, largest first; -inf where there are none yet."""
        self.places = torch.full((columns, keep), -1, dtype=torch.long, device=device)
        """Their rows' places; -1 where there are none yet."""

    def add(self, block: Float[Tensor, "row column"], places: Int[Tensor, " row"]) -> None:
        """Take in further rows, of finite values."""
        keep = self.values.shape[1]
        if not len(block) or not keep:
            return
        better = (block.amax(dim=0) > self.values[:, -1]).nonzero()[:, 0]
        if not len(better):
            return
        values, rows = best_of_rows(block[:, better].T.contiguous(), min(keep, len(block)))
        values = torch.cat([self.values[better], values], dim=1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, :keep]
        self.values[better] = values.gather(1, order)
        self.places[better] = torch.cat([self.places[better], places[rows]], dim=1).gather(1, order)

    def join(self, values: Float[Tensor, "column keep"], places: Int[Tensor, "column keep"]) -> None:
        """Take in the largest values of rows that come after all of these, and their places."""
        keep = self.values.shape[1]
        values = torch.cat([self.values, values.to(self.values)], dim=1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, :keep]
        places = torch.cat([self.places, places.to(self.places)], dim=1)
        self.values, self.places = values.gather(1, order), places.gather(1, order)
