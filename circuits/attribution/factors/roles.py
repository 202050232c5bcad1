"""Attribution with roles of tokens: tokens in the order of their roles, gradients by keys and values role by role of queries.

An edge into keys or values goes from a role s to the queries of a role t. With A the pattern, dz the gradient by mixed values,
and dS = A (dz v^T - sum A dz v^T) that by the scores, what the queries of t take of the gradients by keys and values at a
token c is

    dk[t, c] = sum over i in t of dS[i, c] q[i]        dv[t, c] = sum over i in t of A[i, c] dz[i]

and their sums over t are the gradients themselves, so that all else stays as it is without roles (Haklay et al. 2025).
"""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.attribution.gradients import Gradients
from circuits.graph import Graph, Roles
from circuits.models import Model
from circuits.models.layers import Slot
from circuits.tasks import PromptPairs

Part = Literal["attention", "mlp", "logits"]
"""What reads together: queries, keys and values of a layer, its MLP, the logits."""


@dataclasses.dataclass(frozen=True, eq=False)
class RoleOrder:
    """Tokens of some prompts in the order of their roles: those of one role in the same places of every prompt, so that each
    role's are one slice. Places that a prompt does not fill hold some token of it and do not count (`there`)."""

    roles: Roles
    masks: Bool[Tensor, "role prompt position"]
    index: Int[Tensor, "prompt place"]
    there: Bool[Tensor, "prompt place"]
    active: int
    """How many roles there are from the first on, counted from the last one back, that look at tokens that count."""

    @classmethod
    def of(cls, pairs: PromptPairs, whole: Bool[Tensor, "prompt position"]) -> "RoleOrder":
        """The order of the tokens of pairs that have roles; `whole`: those that count."""
        assert pairs.roles is not None
        masks, indices = pairs.roles.masks(), []
        for mask in masks:
            # A stable sort: the role's own columns first, in their order.
            size = int(mask.sum(dim=1).max())
            indices.append((~mask).long().argsort(dim=1, stable=True)[:, :size])
        there = [mask.gather(1, index) for mask, index in zip(masks, indices, strict=True)]
        moving = {role for role, mask in enumerate(masks) if bool((mask & whole).any())}
        looking = [query for query, seen in enumerate(pairs.roles.roles.looks) if moving.intersection(seen)]
        active = len(masks) - looking[0] if looking else 1
        return cls(pairs.roles.roles, masks, torch.cat(indices, dim=1), torch.cat(there, dim=1), active)

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
    queries = order.masks.flip(0)[: order.active, :, None, :, None].to(moved.dtype)
    found_by: dict[Slot, Tensor] = {}
    slots: tuple[tuple[Slot, Tensor, Tensor], ...] = (("k", moved, q), ("v", pattern, dz))
    for slot, weights, values in slots:
        by_head = (weights * queries).transpose(3, 4) @ values
        found_by[slot] = by_head.unflatten(2, (-1, size)).sum(dim=3).transpose(2, 3)
    return found_by


@dataclasses.dataclass(frozen=True)
class Columns:
    """How scores are gathered: for each label a matrix of writers and columns, a column a reader. Labels are positions, or
    roles of writers; then keys and values have a column for each role of queries, from the last to the first that looks at
    the label's."""

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

    def start(self, label: int, layer: int, part: Part) -> int:
        """Where the columns of a part of a layer begin; of the logits in the layer after the last."""
        layer_size = self.attention(label) + self.graph.mlp_writers
        return layer * layer_size + (self.attention(label) if part == "mlp" else 0)

    def count(self, label: int) -> int:
        """All columns of a label."""
        return self.start(label, self.graph.n_layers, "logits") + 1

    def sizes(self) -> list[int]:
        """How many entries the matrix of each label has."""
        return [self.graph.writer_count * self.count(label) for label in range(self.labels)]

    def split(self, flat: Float[Tensor, " entry"]) -> list[Float[Tensor, "writer column"]]:
        """The matrices of all labels, from their entries one after the other."""
        return [part.view(self.graph.writer_count, -1) for part in flat.split(self.sizes())]

    def places(self, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"]) -> Int[Tensor, " edge"]:
        """Where the scores of edges between roles stand among the entries of all labels, by places in the graph with roles."""
        assert self.roles is not None
        count, heads, both = len(self.roles), self.graph.n_heads, 2 * self.graph.n_key_value_heads
        plain, query = readers.div(count, rounding_mode="floor"), readers % count
        layer = plain.div(heads + both + self.graph.mlp_writers, rounding_mode="floor")
        index = plain % (heads + both + self.graph.mlp_writers)
        label, writer = writers % count, writers.div(count, rounding_mode="floor")
        attention, size = (
            torch.tensor([one(label) for label in range(count)])[label]
            for one in (self.attention, lambda label: self.start(label, 1, "attention"))
        )
        column = torch.where(index < heads, index, index + (count - 1 - query) * both)
        column = torch.where(index >= heads + both, attention, column)
        column = torch.where(layer >= self.graph.n_layers, 0, column)
        before = torch.tensor([0, *self.sizes()]).cumsum(0)[label]
        counts = torch.tensor([self.count(one) for one in range(count)])[label]
        return before + writer * counts + layer * size + column
