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
    index: Int[Tensor, "prompt place"]
    there: Bool[Tensor, "prompt place"]
    spans: tuple[slice, ...]
    """The places of each role."""

    @classmethod
    def of(cls, pairs: PromptPairs) -> "RoleOrder":
        """The order of the tokens of pairs that have roles."""
        assert pairs.roles is not None
        indices, there, spans, start = [], [], [], 0
        for mask in pairs.roles.masks():
            size = int(mask.sum(dim=1).max())
            # A stable sort: the role's own columns first, in their order.
            indices.append((~mask).long().argsort(dim=1, stable=True)[:, :size])
            there.append(mask.gather(1, indices[-1]))
            spans.append(slice(start, start + size))
            start += size
        return cls(pairs.roles.roles, torch.cat(indices, dim=1), torch.cat(there, dim=1), tuple(spans))

    def sort(self, x: Tensor, dim: int = 1) -> Tensor:
        """A tensor whose axes `dim - 1` and `dim` are prompt and position, with tokens in this order."""
        shape = [1] * x.ndim
        shape[dim - 1], shape[dim] = self.index.shape
        sizes = [*x.shape]
        sizes[dim] = self.index.shape[1]
        return x.gather(dim, self.index.view(shape).expand(sizes))

    def first_looking(self, role: int) -> int:
        """The first role whose queries look at a role."""
        return next(query for query, seen in enumerate(self.roles.looks) if role in seen)


def by_queries(
    model: Model, found: Gradients, layer: int, order: RoleOrder
) -> list[dict[Slot, Float[Tensor, "prompt position group d_head"]]]:
    """For each role the gradients by keys and values that come through its queries alone."""
    attention, run = model.weights.blocks[layer].attention, found.run
    size = attention.n_heads // attention.n_key_value_heads
    pattern, k, v = run.pattern(layer), run.k[layer], run.v[layer]
    k, v = (part.repeat_interleave(size, dim=2) for part in (k, v))
    moved = torch.einsum("pqhd,pkhd->phqk", found.z[layer], v)
    moved = pattern * (moved - (pattern * moved).sum(dim=-1, keepdim=True)) * attention.scale
    if attention.soft_cap is not None:
        scores = torch.einsum("pqhd,pkhd->phqk", run.q[layer], k) * attention.scale
        moved = moved * (1 - torch.tanh(scores / attention.soft_cap).square())
    pattern, moved = (order.sort(part.transpose(1, 2)) for part in (pattern, moved))
    counts = order.there[:, :, None, None]
    q, dz = order.sort(run.q[layer]) * counts, order.sort(found.z[layer]) * counts
    slopes = []
    for span in order.spans:
        by_key = torch.einsum("pqhk,pqhd->pkhd", moved[:, span], q[:, span])
        by_value = torch.einsum("pqhk,pqhd->pkhd", pattern[:, span], dz[:, span])
        slopes.append({slot: part.unflatten(2, (-1, size)).sum(dim=3) for slot, part in (("k", by_key), ("v", by_value))})
    return slopes


@dataclasses.dataclass(frozen=True)
class Columns:
    """How scores are gathered: a column a reader, of keys and values one a role of queries, from the last role to the first, so
    that those that look at a role are at the front."""

    graph: Graph
    """Without roles."""
    roles: Roles | None

    @property
    def of_layer(self) -> int:
        """Columns of a layer."""
        roles = 1 if self.roles is None else len(self.roles)
        return self.graph.n_heads + 2 * self.graph.n_key_value_heads * roles + self.graph.mlp_writers

    @property
    def count(self) -> int:
        """Columns of all layers, and of the logits."""
        return self.graph.n_layers * self.of_layer + 1

    def places(self, whole: Graph, readers: Int[Tensor, " edge"]) -> Int[Tensor, " edge"]:
        """The columns of readers, given by their places in the graph with these roles."""
        if self.roles is None:
            return readers
        count, inputs = len(self.roles), self.graph.head_readers + self.graph.mlp_writers
        plain, query = readers.div(count, rounding_mode="floor"), readers % count
        layer, index = plain.div(inputs, rounding_mode="floor"), plain % inputs
        heads, both = self.graph.n_heads, 2 * self.graph.n_key_value_heads
        column = torch.where(index < heads, index, index + (count - 1 - query) * both)
        column = torch.where(index >= heads + both, heads + both * count + index - heads - both, column)
        return torch.where(readers == whole.reader_count - 1, self.count - 1, layer * self.of_layer + column)
