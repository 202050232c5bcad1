"""How readers pull on the metric, averaged over gradient runs before it meets what the writers changed.

An edge's score is the change D of what its writer wrote times the gradient by what its reader alone reads. The change is the
same at every gradient run i, so that gradients are averaged first: over positions t, with W the input weights of reader r,
norm folded in, s the mean over runs of its slope over the norm's scale, x the normed residual, and b the slope times what the
reader reads of it,

    score[w, r] = sum_t D[w, t] . (W[r] s[r, t] - sum_i b[i, r, t] x[i, t] / d_model)

whose second part is what moves the norm's scale. One product of D, whatever the number of runs, and none to find b, since what
readers read is known from the run.
"""

import dataclasses
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
        """Of every layer, part by part (`_parts`), `[reader prompt position width]`."""
        self._along: list[list[list[Tensor]]] = [[] for _ in layers]
        """b of every run, part by part, `[reader prompt position]`."""
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
            if unit is not None and not found.held_norms:
                brought = dict[Slot, Tensor]()
                for slot, slope in by_slot.items():
                    brought[slot] = self._brought(found, layer, slot, slope)
                self._along[layer].append([rows.mul_(-weight / self.model.d_model) for rows in self._parts(block, brought)])
                self._units[layer].append(self._sorted(unit, 1))
            _accumulate(self._slopes[layer], self._parts(block, by_slot), weight)
        _accumulate(self._mlps, [self._sorted(slope, 1) for slope in found.mlp], weight)
        final = [] if self._final is None else [self._final]
        _accumulate(final, [self._sorted(found.final, 1)], weight)
        (self._final,) = final

    def _sorted(self, x: Tensor, dim: int) -> Tensor:
        return x if self.order is None else self.order.sort(x, dim)

    def _by_slot(self, found: Gradients, layer: int, scale: Tensor) -> dict[Slot, Tensor]:
        """Slopes by slot `[reader prompt position width]`; with roles those of keys and values for each role of queries."""
        if self.order is None:
            plain: dict[Slot, Tensor] = {}
            for slot in SLOTS:
                plain[slot] = slot_slope(self.model, found, layer, slot, getattr(found, slot)[layer], scale)
            return plain
        slopes: dict[Slot, Tensor] = {"q": slot_slope(self.model, found, layer, "q", found.q[layer], scale)}
        for slot, given in by_queries(self.model, found, layer, self.order).items():
            if slot == "k" and self.model.weights.blocks[layer].attention.k_norm is not None:
                parts = [slot_slope(self.model, found, layer, slot, one, scale) for one in given]
                slopes[slot] = torch.cat(parts)
            else:  # nothing joins heads: those of all roles side by side are as heads of one layer
                slope = given.permute(1, 2, 0, 3, 4).flatten(2, 3)
                slopes[slot] = slot_slope(self.model, found, layer, slot, slope, scale)
        return slopes

    def _parts(self, block: Block, by_slot: dict[Slot, Tensor]) -> list[Tensor]:
        """What stands by slot, in the order of readers, in parts that one matrix reads each (`_slots`). With roles keys and
        values of the last role of queries come first, so that those that look at a role are at the front; each role's end
        with the last place that it looks at."""
        apart = slots_apart(block.attention)
        if self.order is None:
            each = [by_slot[slot] for slot in SLOTS]
            return each if apart else [torch.cat(each)]
        q, k, v = (self.order.sort(by_slot[slot], 2) for slot in SLOTS)
        found, shape = [q], (len(self.order.stops), -1)
        for keys, values, stop in zip(k.unflatten(0, shape), v.unflatten(0, shape), self.order.stops, strict=True):
            both = [keys[:, :, :stop], values[:, :, :stop]]
            found += both if apart else [torch.cat(both)]
        return found

    def _slots(self, block: Block) -> list[tuple[Slot, ...]]:
        """The slots of each part."""
        apart = slots_apart(block.attention)
        if self.order is None:
            return [("q",), ("k",), ("v",)] if apart else [SLOTS]
        both: list[tuple[Slot, ...]] = [("k",), ("v",)] if apart else [("k", "v")]
        return [("q",), *both * len(self.order.stops)]

    def _brought(self, found: Gradients, layer: int, slot: Slot, slope: Tensor) -> Float[Tensor, "reader prompt position"]:
        """What a slot's readers read of the normed residual, biases aside, times their slopes."""
        attention = self.model.weights.blocks[layer].attention
        count = attention.n_heads if slot == "q" else attention.n_key_value_heads
        read, still = getattr(found.run.reads[layer], slot), self._still[layer][slot]
        read = read if still is None else read - still
        if joining(attention, slot) is None:
            read = read.unflatten(-1, (count, -1)).permute(2, 0, 1, 3)
        return (slope.unflatten(0, (-1, count)) * read).sum(dim=-1).flatten(0, 1)

    def by_layer(self, columns: slice, most: int) -> Iterator["Pulled"]:
        """For each layer's attention, and for the logits, the mean gradient by what each of their readers alone reads, at some
        columns; of attention the first `most` readers. The MLP of the layer before stands with them, as what they read is but
        little more than what it reads. The tensor is written over for the next of them."""
        graph = self.model.graph()
        before, inputs, own = reads_from(graph), graph.head_readers + graph.mlp_writers, graph.mlp_writers
        assert self._final is not None
        prompts, width = self._final[:, columns].shape[:2]
        memory = self._final.new_empty(0)
        for layer in range(graph.n_layers + 1):
            reads, mlp = before[layer * inputs], own if layer else 0
            if reads <= self.first:
                continue
            attention = layer < graph.n_layers
            count = min(most, sum(map(len, self._slopes[layer]))) if attention else 1
            shape = (mlp + count, prompts, width, self.model.d_model)
            memory = memory if memory.numel() >= math.prod(shape) else memory.new_empty(math.prod(shape))
            pulled = memory[: math.prod(shape)].view(shape)
            if mlp:
                pulled[0] = self._mlps[layer - 1][:, columns]
            if attention:
                self._pull(pulled[mlp:], layer, columns)
            else:
                pulled[mlp] = self._final[:, columns]
            yield Pulled(layer, reads, before[(layer - 1) * inputs + graph.head_readers] if mlp else None, pulled)

    def _pull(self, pulled: Tensor, layer: int, columns: slice) -> None:
        """Write the gradients by what a layer's attention reads at some columns, part by part, each as far as it goes."""
        block, start = self.model.weights.blocks[layer], 0
        folded, weights = _folded(block), dict[tuple[Slot, ...], Tensor]()
        units = [unit[:, columns] for unit in self._units[layer]]
        for place, slots in enumerate(self._slots(block)):
            slope = self._slopes[layer][place][:, :, columns]
            if start >= len(pulled):
                return
            if slots not in weights:
                weights[slots] = torch.cat([folded[slot] for slot in slots]).transpose(1, 2)
            part = pulled[start : start + len(slope), :, : slope.shape[2]]
            # Where a part has all columns its place is one piece of memory, into which the product goes at once.
            whole = slope.shape[2] == pulled.shape[2]
            found = torch.matmul(slope.flatten(1, 2), weights[slots], out=part.flatten(1, 2) if whole else None).view(
                part.shape
            )
            along = [rows[place][:, :, columns] for rows in self._along[layer]]
            _less_scale(found, along, [unit[:, : slope.shape[2]] for unit in units], part)
            start += len(slope)


@dataclasses.dataclass(frozen=True, eq=False)
class Pulled:
    """What pulls on the metric in a layer's attention (or, in the layer after the last, the logits), and before it the MLP of
    the layer before."""

    layer: int
    reads: int
    """How many writers the attention reads."""
    mlp: int | None
    """How many the MLP reads; None where there is none."""
    by_reader: Float[Tensor, "reader prompt position d_model"]


def _less_scale(found: Tensor, along: list[Tensor], units: list[Tensor], into: Tensor) -> None:
    """Write gradients without what would move the norm's scale; they may stand where they are to be written."""
    if len(units) == 1:
        torch.addcmul(found, along[0][..., None], units[0][None], out=into)
    elif units:
        # Token by token a product of [reader run] and [run d_model].
        several = torch.stack([part.flatten(1).T for part in along], dim=2)
        moved = torch.bmm(several, torch.stack([unit.flatten(0, 1) for unit in units], dim=1))
        torch.add(found, moved.transpose(0, 1).unflatten(1, found.shape[1:3]), out=into)
    elif found.data_ptr() != into.data_ptr():
        into.copy_(found)


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
