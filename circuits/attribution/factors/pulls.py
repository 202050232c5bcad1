"""How readers pull on the metric, averaged over gradient runs before it meets what the writers changed.

An edge's score is the change D of what its writer wrote times the gradient by what its reader alone reads. The change is the
same at every gradient run i, so that gradients are averaged first: over positions t, with W the input weights of reader r,
norm folded in, s the mean over runs of its slope over the norm's scale, x the normed residual, and b the slope times what the
reader reads of it,

    score[w, r] = sum_t D[w, t] . (W[r] s[r, t] - sum_i b[i, r, t] x[i, t] / d_model)

whose second part is what moves the norm's scale. One product of D, whatever the number of runs, and none to find b, since what
readers read is known from the run.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.factors.roles import RoleOrder, by_queries
from circuits.attribution.gradients import Gradients, joining, slot_slope, slots_apart, unit_and_scale
from circuits.graph.places import reads_from
from circuits.models import Model
from circuits.models.folding import behind_norm
from circuits.models.layers import SLOTS, Slot
from circuits.models.weights import Block

AT_ONCE = 8
"""Gradient runs whose normed residuals are held at a time."""


class Pulls:
    """The mean gradient of some runs by what readers read, as factors; of readers that read a writer from place `first` on.
    With an `order` of roles keys and values are read once for each role of queries, and tokens stand in that order."""

    def __init__(self, model: Model, first: int = 0, order: RoleOrder | None = None) -> None:
        self.model, self.first, self.order = model, first, order
        graph, layers = model.graph(), range(model.n_layers)
        self._start = 0 if first == 0 else (first - 1) // (graph.n_heads + graph.mlp_writers)
        """The layer of that writer: no reader of an earlier one reads it."""
        self._slopes: list[list[Tensor]] = [[] for _ in layers]
        """Of every layer, section by section (`_sections`), `[reader prompt position width]`."""
        self._along: list[list[list[Tensor]]] = [[] for _ in layers]
        """b of every run, for each of the same, `[reader prompt position]`."""
        self._units: list[list[Tensor]] = [[] for _ in layers]
        self._mlps: list[Tensor] = []
        self._final: Tensor | None = None
        self._still = {layer: _constants(model.weights.blocks[layer]) for layer in layers[self._start :]}

    @torch.no_grad()
    def add(self, found: Gradients, weight: float) -> None:
        """Take in a gradient run with its weight in the mean."""
        for layer, block in enumerate(self.model.weights.blocks[self._start :], self._start):
            unit, scale = unit_and_scale(found.run.residuals[layer], block.attention_norm)
            by_slot = self._by_slot(found, layer, scale)
            sections = [[(slot, by_slot[role][slot]) for slot in slots] for role, slots in self._sections(block)]
            if unit is not None and not found.held_norms:
                along = [torch.cat([self._brought(found, layer, *one) for one in some]) for some in sections]
                self._along[layer].append([self._sorted(part.mul_(-weight / self.model.d_model), 2) for part in along])
                self._units[layer].append(self._sorted(unit, 1))
            slopes = [self._sorted(torch.cat([slope for _, slope in some]), 2) for some in sections]
            _accumulate(self._slopes[layer], slopes, weight)
        _accumulate(self._mlps, [self._sorted(slope, 1) for slope in found.mlp], weight)
        final = [] if self._final is None else [self._final]
        _accumulate(final, [self._sorted(found.final, 1)], weight)
        (self._final,) = final

    def _sorted(self, x: Tensor, dim: int) -> Tensor:
        return x if self.order is None else self.order.sort(x, dim)

    def _sections(self, block: Block) -> list[tuple[int, tuple[Slot, ...]]]:
        """What of a layer is read together: queries, keys and values, or where a norm joins heads each by itself; with
        roles keys and values once a role of queries, from the last to the first. Each with that role."""
        apart = slots_apart(block.attention)
        if self.order is None:
            return [(0, (slot,)) for slot in SLOTS] if apart else [(0, SLOTS)]
        both: list[tuple[Slot, ...]] = [("k",), ("v",)] if apart else [("k", "v")]
        return [(0, ("q",)), *((role, slots) for role in reversed(range(len(self.order.roles))) for slots in both)]

    def _by_slot(self, found: Gradients, layer: int, scale: Tensor) -> list[dict[Slot, Tensor]]:
        """Slopes by slot, with roles for each role of queries (of the queries themselves once)."""
        if self.order is None:
            given = [{slot: getattr(found, slot)[layer] for slot in SLOTS}]
        else:
            given = by_queries(self.model, found, layer, self.order)
            given[0] = {"q": found.q[layer], **given[0]}
        return [
            {slot: slot_slope(self.model, found, layer, slot, slope, scale) for slot, slope in some.items()} for some in given
        ]

    def _brought(self, found: Gradients, layer: int, slot: Slot, slope: Tensor) -> Float[Tensor, "reader prompt position"]:
        """What a slot's readers read of the normed residual, biases aside, times their slopes."""
        read, still = getattr(found.run.reads[layer], slot), self._still[layer][slot]
        read = read if still is None else read - still
        if joining(self.model.weights.blocks[layer].attention, slot) is None:
            read = read.unflatten(-1, (len(slope), -1)).permute(2, 0, 1, 3)
        return (read * slope).sum(dim=-1)

    def by_reader(self, columns: slice) -> Iterator[tuple[slice, int, Float[Tensor, "reader prompt position d_model"]]]:
        """For each group of readers their columns among the scores (their places, unless there are roles), how many writers
        they read, and the mean gradient by what each of them alone reads, at some columns. The tensor is written over for the
        next group."""
        graph, place = self.model.graph(), 0
        # A reading's before is the same for all of a layer's attention, and for its MLP.
        before, inputs = reads_from(graph), graph.head_readers + graph.mlp_writers
        memory = torch.empty(0, dtype=self.model.dtype, device=self.model.device)
        for layer, block in enumerate(self.model.weights.blocks):
            count = sum(self._sizes(block))
            reads = before[layer * inputs] if graph.n_layers else 1
            if reads > self.first:
                shape = (
                    count,
                    *self._slopes[layer][0].shape[1:2],
                    len(range(*columns.indices(self._width))),
                    self.model.d_model,
                )
                size = math.prod(shape)
                memory = memory if memory.numel() >= size else memory.new_empty(size)
                pulled = memory[:size].view(shape)
                self._pull(pulled, layer, block, columns)
                yield slice(place, place + count), reads, pulled
            place += count
            if block.mlp is not None:
                reads = before[layer * inputs + graph.head_readers]
                if reads > self.first:
                    yield slice(place, place + 1), reads, self._mlps[layer][None, :, columns]
                place += 1
        assert self._final is not None
        yield slice(place, place + 1), before[-1], self._final[None, :, columns]

    @property
    def _width(self) -> int:
        assert self._final is not None
        return self._final.shape[1]

    def _sizes(self, block: Block) -> list[int]:
        """How many readers each section of a layer has."""
        heads, groups = block.attention.n_heads, block.attention.n_key_value_heads
        return [sum(heads if slot == "q" else groups for slot in slots) for _, slots in self._sections(block)]

    def looking(self, role: int) -> int:
        """How many of the readers of a layer's attention, from the first on, there are until the last that looks at a role."""
        attention = self.model.weights.blocks[0].attention
        assert self.order is not None
        queries = len(self.order.roles) - self.order.first_looking(role)
        return attention.n_heads + 2 * attention.n_key_value_heads * queries

    def _pull(self, pulled: Tensor, layer: int, block: Block, columns: slice) -> None:
        """Write the gradients by what a layer's attention reads, section by section."""
        folded, start = _folded(block), 0
        weights: dict[tuple[Slot, ...], Tensor] = {}
        for index, (_, slots) in enumerate(self._sections(block)):
            if slots not in weights:
                weights[slots] = torch.cat([folded[slot] for slot in slots]) if len(slots) > 1 else folded[slots[0]]
            slope = self._slopes[layer][index][:, :, columns]
            part = pulled[start : start + len(slope)]
            torch.matmul(slope.flatten(1, 2), weights[slots].transpose(1, 2), out=part.flatten(1, 2))
            self._less_scale(part, layer, index, columns)
            start += len(slope)

    def _less_scale(self, pulled: Tensor, layer: int, index: int, columns: slice) -> None:
        """Take away, in place, what would move the norm's scale."""
        units = [unit[:, columns] for unit in self._units[layer]]
        along = [parts[index][:, :, columns] for parts in self._along[layer]]
        if len(units) == 1:
            pulled.addcmul_(along[0][..., None], units[0][None])
        elif units:
            # Token by token a product of [reader run] and [run d_model].
            several = torch.stack([part.flatten(1).T for part in along], dim=2)
            moved = torch.bmm(several, torch.stack([unit.flatten(0, 1) for unit in units], dim=1))
            pulled.flatten(1, 2).add_(moved.transpose(0, 1))


def _accumulate(sums: list[Tensor], parts: list[Tensor], weight: float) -> None:
    """Add parts times a weight to sums of the same number, or begin with them."""
    if not sums:
        sums += [part * weight for part in parts]
    else:
        for total, part in zip(sums, parts, strict=True):
            total.add_(part, alpha=weight)


def _constants(block: Block) -> dict[Slot, Tensor | None]:
    """What each slot of a layer reads whatever the residual stream holds: its bias, and that of the norm before it."""
    attention, norm = block.attention, block.attention_norm
    found: dict[Slot, Tensor | None] = {}
    for slot in SLOTS:
        W, bias = (getattr(attention, f"{kind}_{slot.upper()}") for kind in ("W", "b"))
        if norm is not None and norm.bias is not None:
            moved = norm.bias @ W
            bias = moved if bias is None else bias + moved
        found[slot] = bias
    return found


def _folded(block: Block) -> dict[Slot, Float[Tensor, "#reader d_model width"]]:
    """Input weights of a layer's readers by slot, with its norm's gain folded in, centred where it centres; 1 in place of
    `reader` where a norm joins heads."""
    weights, attention = dict[Slot, Tensor](), block.attention
    counts = (attention.n_heads, attention.n_key_value_heads, attention.n_key_value_heads)
    for slot, count in zip(SLOTS, counts, strict=True):
        W = behind_norm(getattr(attention, f"W_{slot.upper()}"), block.attention_norm)
        weights[slot] = W[None] if joining(attention, slot) is not None else W.unflatten(1, (count, -1)).transpose(0, 1)
    return weights
