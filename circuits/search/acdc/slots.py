"""Queries, keys and values of many readers at once, each of which reads a residual stream of its own."""

import dataclasses
import functools
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.models.geometry import Geometry, Rotation
from circuits.models.layers import SLOTS, Slot, attend, headed, normalise, placed, projected
from circuits.models.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Slots:
    """Attention readers of a model on some prompts, by layer and index (queries, then keys, then values). Streams are read
    from the column `start` on, or `thin`: at one column a prompt, `columns` `[prompt 1]`."""

    weights: Weights
    geometry: Geometry
    columns: Int[Tensor, "prompt 1"]
    start: int
    _biases: dict[tuple[int | None, bool], Tensor | None] = dataclasses.field(default_factory=dict, repr=False)

    @functools.cached_property
    def _matrices(self) -> list[tuple[Tensor, Tensor]]:
        """For every layer the weights `[reader d_model d_head]` and biases `[reader 1 d_head]` of its readers."""
        found = []
        for block in self.weights.blocks:
            attention, matrices, biases = block.attention, [], []
            for slot, count in zip(SLOTS, self.counts, strict=True):
                W, b = getattr(attention, f"W_{slot.upper()}"), getattr(attention, f"b_{slot.upper()}")
                matrices.append(W.unflatten(1, (count, -1)).movedim(1, 0))
                biases.append((W.new_zeros(W.shape[1]) if b is None else b).unflatten(0, (count, 1, -1)))
            found.append((torch.cat(matrices), torch.cat(biases)))
        return found

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many readers of queries, keys and values a layer has."""
        attention = self.weights.blocks[0].attention
        return attention.n_heads, attention.n_key_value_heads, attention.n_key_value_heads

    @functools.cached_property
    def rows(self) -> Int[Tensor, "prompt 1"]:
        """Every prompt's number, to index with beside `columns`."""
        return torch.arange(len(self.columns), device=self.columns.device)[:, None]

    def pick(self, x: Float[Tensor, "... prompt position width"]) -> Float[Tensor, "... prompt 1 width"]:
        """What stands at `columns`, of a tensor whose positions begin at `start`."""
        return x[..., self.rows, self.columns - self.start, :]

    def split(self, indices: Int[Tensor, " reader"]) -> Iterator[tuple[Slot, slice, Tensor]]:
        """For each slot that some of a layer's readers (in order) are of: their rows, and their indices within the slot."""
        first, row = 0, 0
        for slot, count in zip(SLOTS, self.counts, strict=True):
            inside = indices[(indices >= first) & (indices < first + count)] - first
            if len(inside):
                yield slot, slice(row, row + len(inside)), inside
            first, row = first + count, row + len(inside)

    def project(
        self, layer: int, indices: Tensor, reads: Float[Tensor, "reader variant prompt position d_model"], *, thin: bool
    ) -> dict[Slot, tuple[Tensor, Tensor]]:
        """Queries, keys and values with norms and positions applied, `[reader variant prompt position d_head]`, beside their
        indices within the slot."""
        block = self.weights.blocks[layer]
        normed = normalise(reads, block.attention_norm)
        W, b = self._matrices[layer]
        whole = len(indices) == len(W)
        W, b = (W, b) if whole else (W[indices], b[indices])
        values = torch.baddbmm(b, normed.flatten(1, 3), W).unflatten(1, reads.shape[1:4])
        found: dict[Slot, tuple[Tensor, Tensor]] = {}
        for slot, rows, inside in self.split(indices):
            value = self._normed(layer, slot, inside, normed[rows], values[rows])
            found[slot] = (inside, placed(value, slot, self._rotation(layer, thin)))
        return found

    def _normed(self, layer: int, slot: Slot, inside: Tensor, normed: Tensor, value: Tensor) -> Tensor:
        attention = self.weights.blocks[layer].attention
        norm = {"q": attention.q_norm, "k": attention.k_norm, "v": None}[slot]
        if norm is None or not attention.norm_over_heads:
            return normalise(value, norm)
        each = zip(normed, inside.tolist(), strict=True)
        return torch.stack([headed(projected(x, attention, slot), attention, slot)[..., head, :] for x, head in each])

    def _rotation(self, layer: int, thin: bool) -> Rotation | None:
        rotation = self.geometry.rotation(layer)
        if rotation is None:
            return None
        rotation = rotation.picked(lambda part: part[:, self.start :, 0])
        return rotation.picked(lambda part: self.pick(part.expand(len(self.columns), -1, -1))) if thin else rotation

    def attend(
        self,
        layer: int,
        heads: Int[Tensor, " head"],
        q: Float[Tensor, "head variant prompt query d_head"],
        k: Float[Tensor, "head variant prompt position d_head"],
        v: Float[Tensor, "head variant prompt position d_head"],
        *,
        thin: bool,
    ) -> Float[Tensor, "head variant prompt query d_head"]:
        """Mixed values of some heads, each with keys and values of its own."""
        attention = dataclasses.replace(self.weights.blocks[layer].attention, n_heads=1, n_key_value_heads=1)
        bias, variants = self._bias(attention.window, thin), q.shape[1]
        if bias is not None:
            bias = bias if bias.shape[0] == 1 else bias[heads]
            bias = bias if bias.shape[1] == 1 else bias.repeat(1, variants, 1, 1)
        q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
        return attend(q, k, v, attention, bias).transpose(1, 2).unflatten(1, (variants, -1))

    def _bias(self, window: int | None, thin: bool) -> Float[Tensor, "head prompt query key"] | None:
        """What is added to the scores; None: causal masking of equally many queries and keys."""
        if (window, thin) not in self._biases:
            width, device = self.geometry.tokens.ids.shape[1], self.columns.device
            if thin or self.start:
                columns = self.columns if thin else torch.arange(self.start, width, device=device)[None]
                bias = self.geometry.bias_at(window, columns)
            else:
                bias = self.geometry.bias(window)
            self._biases[window, thin] = None if bias is None else bias.transpose(0, 1)
        return self._biases[window, thin]
