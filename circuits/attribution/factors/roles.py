"""Attribution with roles of tokens: tokens in the order of their roles, gradients by keys and values role by role of queries.

An edge into keys or values goes from a role s to the queries of a role t. With A the pattern, dz the gradient by mixed values,
and dS = A (dz v^T - sum A dz v^T) that by the scores, what the queries of t take of the gradients by keys and values at a
token c is

    dk[t, c] = sum over i in t of dS[i, c] q[i]        dv[t, c] = sum over i in t of A[i, c] dz[i]

and their sums over t are the gradients themselves, so that all else stays as it is without roles (Haklay et al. 2025).
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.attribution.gradients import Gradients
from circuits.graph import Graph, Roles
from circuits.models import Model
from circuits.models.layers import Slot
from circuits.tasks import PromptPairs


@dataclasses.dataclass(frozen=True, eq=False)
class RoleOrder:
    """Tokens of some prompts in the order of their roles: those of one role in the same places of every prompt, so that each
    role's are one slice. Places that a prompt does not fill hold some token of it and do not count (`there`)."""

    roles: Roles
    masks: Bool[Tensor, "role prompt position"]
    index: Int[Tensor, "prompt place"]
    there: Bool[Tensor, "prompt place"]
    sizes: tuple[int, ...]
    """How many places each role has."""
    stops: tuple[int, ...]
    """The roles whose queries look at tokens that count, from the last one back to the first such: how many places, from the
    first on, are those of roles for which scores have columns of theirs (`Columns`)."""

    @classmethod
    def of(cls, pairs: PromptPairs, whole: Bool[Tensor, "prompt position"]) -> "RoleOrder":
        """The order of the tokens of pairs that have roles; `whole`: those that count."""
        assert pairs.roles is not None
        masks, indices, roles = pairs.roles.masks(), [], pairs.roles.roles
        for mask in masks:
            # A stable sort: the role's own columns first, in their order.
            size = int(mask.sum(dim=1).max())
            indices.append((~mask).long().argsort(dim=1, stable=True)[:, :size])
        there = [mask.gather(1, index) for mask, index in zip(masks, indices, strict=True)]
        sizes = tuple(index.shape[1] for index in indices)
        # Where the places of roles that have tokens that count end, by the first role whose queries look at them.
        ends = [
            (next(query for query, seen in enumerate(roles.looks) if role in seen), sum(sizes[: role + 1]))
            for role, mask in enumerate(masks)
            if bool((mask & whole).any())
        ]
        lowest = min((first for first, _ in ends), default=len(roles))
        stops = tuple(max(end for first, end in ends if first <= query) for query in range(len(roles) - 1, lowest - 1, -1))
        return cls(roles, masks, torch.cat(indices, dim=1), torch.cat(there, dim=1), sizes, stops)

    def sort(self, x: Tensor, dim: int = 1) -> Tensor:
        """A tensor whose axes `dim - 1` and `dim` are prompt and position, with tokens in this order."""
        rows = torch.arange(len(self.index), device=self.index.device)[:, None]
        return x[(*[slice(None)] * (dim - 1), rows, self.index)]


def by_queries(
    model: Model, found: Gradients, layer: int, order: RoleOrder
) -> dict[Slot, Float[Tensor, "role prompt position group d_head"]]:
    """The gradients by keys and values that come through the queries of each active role alone, the last role first."""
    attention, run = model.weights.blocks[layer].attention, found.run
    size = attention.n_heads // attention.n_key_value_heads
    q, dz = (part.transpose(1, 2) for part in (run.q[layer], found.z[layer]))
    k, v = (part[layer].repeat_interleave(size, dim=2).transpose(1, 2) for part in (run.k, run.v))
    pattern, moved = run.pattern(layer), dz @ v.transpose(2, 3)
    moved = pattern * (moved - (pattern * moved).sum(dim=-1, keepdim=True)) * attention.scale
    if attention.soft_cap is not None:
        moved = moved * (1 - torch.tanh(q @ k.transpose(2, 3) * (attention.scale / attention.soft_cap)).square())
    found_by: dict[Slot, Tensor] = {}
    slots: tuple[tuple[Slot, Tensor, Tensor], ...] = (("k", moved, q), ("v", pattern, dz))
    for slot, weights, values in slots:
        # Queries in the order of their roles, those of a group's heads side by side: each role's are one slice.
        weights, values = (_by_group(order, part, size) for part in (weights, values))
        weights.mul_(order.there[:, None, :, None, None])
        shape = (len(order.stops), *weights.shape[:2], weights.shape[4], values.shape[4])
        sums, stop = values.new_empty(shape), weights.shape[2]
        for place, width in enumerate(reversed(order.sizes[len(order.sizes) - len(order.stops) :])):
            some = (part[:, :, stop - width : stop].flatten(2, 3).flatten(0, 1) for part in (weights, values))
            left, right = some
            torch.bmm(left.transpose(1, 2), right, out=sums[place].flatten(0, 1))
            stop -= width
        found_by[slot] = sums.transpose(2, 3)
    return found_by


def _by_group(order: RoleOrder, x: Tensor, size: int) -> Float[Tensor, "prompt group place head width"]:
    """What queries of heads hold, `[prompt head position width]`, by group of `size` heads and in the order of roles."""
    return order.sort(x.transpose(1, 2)).unflatten(2, (-1, size)).transpose(1, 2).contiguous()


@dataclasses.dataclass(frozen=True)
class Columns:
    """How scores are gathered: for each label a matrix of writers and columns, a column a reader, one column after the other.
    Labels are positions, or roles of writers; then keys and values have a column for each role of queries, from the last to the
    first that looks at the label's."""

    graph: Graph
    """Without roles."""
    roles: Roles | None
    labels: int

    def queries(self, label: int) -> int:
        """For how many roles of queries keys and values have columns."""
        if self.roles is None:
            return 1
        return len(self.roles) - next(query for query, seen in enumerate(self.roles.looks) if label in seen)

    def attention(self, label: int) -> int:
        """Columns of the attention of one layer."""
        return self.graph.n_heads + 2 * self.graph.n_key_value_heads * self.queries(label)

    def start(self, label: int, layer: int) -> int:
        """Where the columns of a layer begin, attention and then the MLP; of the logits in the layer after the last."""
        return layer * (self.attention(label) + self.graph.mlp_writers)

    def count(self, label: int) -> int:
        """All columns of a label."""
        return self.start(label, self.graph.n_layers) + 1

    def sizes(self) -> list[int]:
        """How many entries the matrix of each label has."""
        return [self.graph.writer_count * self.count(label) for label in range(self.labels)]

    def split(self, flat: Float[Tensor, " entry"]) -> list[Float[Tensor, "writer column"]]:
        """The matrices of all labels, from their entries one after the other."""
        return [part.view(-1, self.graph.writer_count).T for part in flat.split(self.sizes())]

    def places(self, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"]) -> Int[Tensor, " edge"]:
        """Where the scores of edges between roles stand among the entries of all labels, by places in the graph with roles."""
        assert self.roles is not None
        count = len(self.roles)
        return self._starts()[readers, writers % count] + writers.div(count, rounding_mode="floor")

    def _starts(self) -> Int[Tensor, "reader label"]:
        """Where the column of each reader at a role begins in the matrix of each label, among the entries of all."""
        assert self.roles is not None
        count, heads, both = len(self.roles), self.graph.n_heads, 2 * self.graph.n_key_value_heads
        inputs = heads + both + self.graph.mlp_writers
        readers = torch.arange((self.graph.n_layers * inputs + 1) * count)[:, None]
        plain, query = readers.div(count, rounding_mode="floor"), readers % count
        layer, index = plain.div(inputs, rounding_mode="floor"), plain % inputs
        attention, size = (
            torch.tensor([one(label) for label in range(count)]) for one in (self.attention, lambda label: self.start(label, 1))
        )
        column = torch.where(index < heads, index, index + (count - 1 - query) * both)
        column = torch.where(index >= heads + both, attention, column)
        column = torch.where(layer >= self.graph.n_layers, 0, column)
        before = torch.tensor([0, *self.sizes()[:-1]]).cumsum(0)
        return before + (layer * size + column) * self.graph.writer_count
