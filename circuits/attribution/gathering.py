"""Scores of edges as they come, batch by batch, and their means over prompts with standard errors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.factors.roles import Columns
from circuits.attribution.scores import EdgeScores
from circuits.errors import NonFiniteError
from circuits.models import Model
from circuits.patching.subgraphs.members import is_edge


class Gathered:
    """Scores of some prompts as they come. What comes `once` for each edge is summed over prompts right away; else each
    prompt's are held until all is there, for squares are of whole scores."""

    def __init__(self, columns: Columns, prompts: int, dtype: torch.dtype, device: torch.device, *, once: bool) -> None:
        self.columns = columns
        # Sums over points and columns: at least float32, whatever the model computes in.
        how: Any = {"dtype": torch.promote_types(dtype, torch.float32), "device": device}
        size = columns.graph.writer_count
        labels = range(columns.labels)
        self._held = [] if once else [torch.zeros(prompts, columns.count(label), size, **how) for label in labels]
        self._sums = torch.zeros(sum(columns.sizes()) if once else 0, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._sums)
        self._parts = [columns.split(part) for part in (self._sums, self._squares)] if once else []

    def add(self, label: int, writers: slice, start: int, found: Float[Tensor, "prompt column writer"]) -> None:
        """Take in the scores of some writers and columns of a label."""
        columns = slice(start, start + found.shape[1])
        if self._held:
            self._held[label][:, columns, writers] += found
            return
        sums, squares = (parts[label].T[columns, writers] for parts in self._parts)
        found = found.double()
        sums += found.sum(dim=0)
        squares += found.square_().sum(dim=0)

    def sums(self) -> tuple[Tensor, Tensor]:
        """Sums of scores and of their squares over prompts, of all labels one after the other. Raises NonFiniteError where a
        score is not a number."""
        sums, squares = self._sums, self._squares
        if self._held:
            sums = torch.cat([part.sum(dim=0, dtype=torch.float64).flatten() for part in self._held])
            squares = torch.cat([part.square().sum(dim=0, dtype=torch.float64).flatten() for part in self._held])
        if not bool(squares.isfinite().all()):
            raise NonFiniteError("an edge's score is NaN or infinite")
        return sums.cpu(), squares.cpu()


@dataclasses.dataclass
class Total:
    """Sums over prompts of scores and of their squares, as `Columns` has them, and how many prompts have each position."""

    columns: Columns
    labels: tuple[str, ...]
    sums: Tensor
    squares: Tensor
    counts: Tensor
    prompts: int = 0

    @classmethod
    def empty(cls, columns: Columns, masks: dict[str, Tensor]) -> "Total":
        """Nothing seen so far."""
        zeros = torch.zeros(sum(columns.sizes()), dtype=torch.float64)
        return cls(columns, tuple(masks), zeros, zeros.clone(), torch.zeros(len(masks), dtype=torch.float64))

    def add(self, sums: Tensor, squares: Tensor, having: Sequence[int], prompts: int) -> None:
        """Take in the sums of some prompts, of which so many have each position; those that lack it have scores of 0 there."""
        self.sums += sums
        self.squares += squares
        self.counts += torch.tensor(having)
        self.prompts += prompts

    @property
    def from_input(self) -> float:
        """The sum of the scores of the input's edges, mean over prompts."""
        return float(sum(part[0].sum() for part in self.columns.split(self.sums))) / self.prompts

    def scores(self, model: Model, details: dict[str, Any]) -> EdgeScores:
        """Means over prompts and their standard errors."""
        if self.columns.roles is not None:
            graph = model.graph(roles=self.columns.roles)
            writers, readers = is_edge(graph).nonzero(as_tuple=True)
            place = self.columns.places(writers, readers)
            some = (self.sums[place][None], self.squares[place][None], self.counts[:1, None])
            return EdgeScores(graph, writers, readers, *_means(*some), metadata=details)
        sums, squares = (torch.stack(self.columns.split(part)) for part in (self.sums, self.squares))
        mean, errors = _means(sums, squares, self.counts[:, None, None])
        shares = None if bool((self.counts == self.prompts).all()) else self.counts / self.prompts
        return EdgeScores.dense(model.graph(), mean, errors, labels=self.labels, shares=shares, metadata=details)


def _means(sums: Tensor, squares: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Means and their standard errors (0 of one prompt)."""
    mean = sums / counts
    errors = ((squares / counts - mean.square()).clamp(min=0) / (counts - 1).clamp(min=1)).sqrt()
    return mean, errors.where(counts > 1, 0.0)
