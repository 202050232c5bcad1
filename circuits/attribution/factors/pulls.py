"""How readers pull on the metric, averaged over gradient runs before it meets what the writers changed.

An edge's score is the change D of what its writer wrote times the gradient by what its reader alone reads. The change is the
same at every gradient run i, so that gradients are averaged first: over positions t, with W the input weights of reader r,
norm folded in, s the mean over runs of its slope over the norm's scale, x the normed residual, and b the slope times what the
reader reads of it,

    score[w, r] = sum_t D[w, t] . (W[r] s[r, t] - sum_i b[i, r, t] x[i, t] / d_model)

whose second part is what moves the norm's scale. One product of D, whatever the number of runs, and none to find b, since what
readers read is known from the run.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.gradients import Gradients, joining, slot_slopes, slots_apart
from circuits.graph.places import reads_from
from circuits.models import Model
from circuits.models.folding import behind_norm
from circuits.models.layers import SLOTS, Slot
from circuits.models.weights import Block

AT_ONCE = 8
"""Gradient runs whose normed residuals are held at a time."""


class Pulls:
    """The mean gradient of some runs by what readers read, as factors; of readers that read a writer from place `first` on."""

    def __init__(self, model: Model, first: int = 0) -> None:
        self.model, self.first = model, first
        graph, layers = model.graph(), range(model.n_layers)
        self._start = 0 if first == 0 else (first - 1) // (graph.n_heads + graph.mlp_writers)
        """The layer of that writer: no reader of an earlier one reads it."""
        self._slopes: list[list[Tensor]] = [[] for _ in layers]
        """Of every layer, `[reader prompt position width]`: queries, keys and values together, or apart where a norm joins
        heads."""
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
            slopes, unit = slot_slopes(self.model, found, layer)
            apart = slots_apart(block.attention, slopes)
            if unit is not None:
                along = [self._brought(found, layer, slot, slope) for slot, slope in zip(SLOTS, slopes, strict=True)]
                along = along if apart else [torch.cat(along)]
                self._along[layer].append([part.mul_(-weight / self.model.d_model) for part in along])
                self._units[layer].append(unit)
            slopes = slopes if apart else [torch.cat(slopes)]
            _accumulate(self._slopes[layer], slopes, weight)
        _accumulate(self._mlps, list(found.mlp), weight)
        final = [] if self._final is None else [self._final]
        _accumulate(final, [found.final], weight)
        (self._final,) = final

    def _brought(self, found: Gradients, layer: int, slot: Slot, slope: Tensor) -> Float[Tensor, "reader prompt position"]:
        """What a slot's readers read of the normed residual, biases aside, times their slopes."""
        read, still = getattr(found.run.reads[layer], slot), self._still[layer][slot]
        read = read if still is None else read - still
        if joining(self.model.weights.blocks[layer].attention, slot) is None:
            read = read.unflatten(-1, (len(slope), -1)).permute(2, 0, 1, 3)
        return (read * slope).sum(dim=-1)

    def by_reader(self, columns: slice) -> Iterator[tuple[slice, int, Float[Tensor, "reader prompt position d_model"]]]:
        """For each group of readers their places, how many writers they read, and the mean gradient by what each of them alone
        reads, at some columns. The tensor is written over for the next group."""
        before, place = reads_from(self.model.graph()), 0
        memory = torch.empty(0, dtype=self.model.dtype, device=self.model.device)
        for layer, block in enumerate(self.model.weights.blocks):
            weights = _folded(block, apart=len(self._slopes[layer]) > 1) if before[place] > self.first else []
            place += 0 if weights else self.model.graph().head_readers
            for index, (W, slope) in enumerate(zip(weights, self._slopes[layer], strict=False)):
                slope = slope[:, :, columns]
                size = slope[..., 0].numel() * self.model.d_model
                memory = memory if memory.numel() >= size else memory.new_empty(size)
                pulled = memory[:size].view(len(slope), -1, self.model.d_model)
                torch.matmul(slope.flatten(1, 2), W.transpose(1, 2), out=pulled)
                pulled = pulled.unflatten(1, slope.shape[1:3])
                self._less_scale(pulled, layer, index, columns)
                yield slice(place, place + len(slope)), before[place], pulled
                place += len(slope)
            if block.mlp is not None:
                if before[place] > self.first:
                    yield slice(place, place + 1), before[place], self._mlps[layer][None, :, columns]
                place += 1
        assert self._final is not None
        yield slice(place, place + 1), before[place], self._final[None, :, columns]

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


def _folded(block: Block, *, apart: bool) -> list[Float[Tensor, "#reader d_model width"]]:
    """Input weights of a layer's readers with its norm's gain folded in, centred where it centres: of queries, keys and values
    in one, or apart; 1 in place of `reader` where a norm joins heads."""
    weights, attention = [], block.attention
    counts = (attention.n_heads, attention.n_key_value_heads, attention.n_key_value_heads)
    for slot, count in zip(SLOTS, counts, strict=True):
        W = behind_norm(getattr(attention, f"W_{slot.upper()}"), block.attention_norm)
        weights.append(W[None] if joining(attention, slot) is not None else W.unflatten(1, (count, -1)).transpose(0, 1))
    return weights if apart else [torch.cat(weights)]
