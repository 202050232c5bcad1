"""Which variants are worth running, where each begins, and which fit into memory together."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.errors import MemoryBudgetError
from circuits.models import TokenBatch
from circuits.models.memory import beside_budget
from circuits.models.weights import Weights
from circuits.patching.engine.change import ORDER, Change, Variant

# In the last layer nothing is left that could carry a change from one token to another, but for the keys and values that these
# move: all else there matters only at the columns that are read.
_PARTS, _ENOUGH = 4, 2048
"""Passes that variants are cut into at least, where that leaves each so many tokens."""
_READ_BY_LATER_TOKENS = ("residual", "k", "v", "k_in", "v_in")


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """One variant: its changes by layer, in the order in which they act, and the first column that they touch."""

    index: int
    layers: dict[int, Variant]
    start: int

    @property
    def first_layer(self) -> int:
        """The layer where it leaves the base run."""
        return min(self.layers)


def plan(variants: Sequence[Variant], weights: Weights, tokens: TokenBatch, read: Tensor) -> list[Planned]:
    """The variants that can change what is read at the columns `read` `[prompt read]`; the others equal the base run."""
    n_layers, known = len(weights.blocks), {}
    planned = []
    for index, variant in enumerate(variants):
        layers: dict[int, list[Change]] = {}
        start = tokens.ids.shape[1]
        for change in variant:
            # A change that a thousand variants share is looked at once: each look waits for the device.
            if change not in known:
                known[change] = _first_column(change, tokens, read, n_layers)
            if known[change] is not None:
                layers.setdefault(change.layer, []).append(change)
                start = min(start, known[change])
        if layers:
            # Within a layer by the order of computation, however the caller wrote them: a later site set first would be
            # overwritten by what an earlier one leads to. The sort is stable, so of two changes of one site the later wins.
            ordered = {layer: tuple(sorted(layers[layer], key=lambda change: ORDER[change.kind])) for layer in sorted(layers)}
            # Where attention looks both ways, every column of the next layer differs.
            planned.append(Planned(index, ordered, start if weights.causal else 0))
    return planned


def _first_column(change: Change, tokens: TokenBatch, read: Tensor, n_layers: int) -> int | None:
    """The first column that a change touches; None where nothing of it can reach what is read."""
    # Pads are seen by nobody: a change there neither begins a variant earlier nor makes it worth a run.
    mask = change.mask.expand_as(tokens.mask) & tokens.mask
    at_the_end = change.layer == n_layers - 1 and change.kind not in _READ_BY_LATER_TOKENS
    if change.layer == n_layers or at_the_end:
        touched = torch.zeros_like(mask).scatter(1, read, torch.ones_like(read, dtype=torch.bool))
        if not bool((mask & touched).any()):
            return None
    columns = mask.any(dim=0).nonzero()
    return int(columns[0]) if len(columns) else None


def row_bytes(weights: Weights, width: int, start: int) -> int:
    """Bytes that one prompt of one variant takes at the widest point of a pass, from a column on."""
    attention, mlp = weights.blocks[0].attention, weights.blocks[0].mlp
    heads = attention.n_heads * attention.d_head
    neurons = 0 if mlp is None else mlp.W_in.shape[1] * (2 if mlp.W_gate is None else 4)
    token = 6 * weights.W_E.shape[1] + 6 * heads + neurons
    # Scores are counted although the fused kernel holds none of them: with a soft cap or a knockout they, or a bias of their
    # size, are there.
    scores = attention.n_heads * (width - start) * width
    return weights.W_E.element_size() * ((width - start) * token + width * 4 * heads + scores)


def passes(planned: Sequence[Planned], weights: Weights, tokens: TokenBatch, budget: int) -> list[list[Planned]]:
    """Variants that ride together, each group within the budget (bytes); those that share their beginning stay together.

    Raises MemoryBudgetError where one variant alone needs more.
    """
    prompts, width = tokens.ids.shape
    first_seen: dict[Variant, int] = {}
    for variant in planned:
        first_seen.setdefault(variant.layers[variant.first_layer], len(first_seen))
    # A pass starts at the earliest layer of its group, so late starters ride together; of these, variants that begin alike
    # stand side by side, or the budget would cut them apart and compute their beginning twice.
    ordered = sorted(planned, key=lambda v: (v.first_layer, v.start, first_seen[v.layers[v.first_layer]]))
    sizes = [prompts * row_bytes(weights, width, variant.start) for variant in ordered]
    # Several passes where each still has work enough: they can be kept, and shared by processes.
    enough = _ENOUGH * row_bytes(weights, 1, 0)
    most = min(budget, max(-(-sum(sizes) // _PARTS), enough))
    groups: list[list[Planned]] = []
    room = 0
    for variant, size in zip(ordered, sizes, strict=True):
        if size > budget:
            raise MemoryBudgetError(
                f"one patched run of {prompts} prompts of {width} tokens needs about "
                f"{beside_budget(size, budget)}: give fewer prompts at once or a larger budget"
            )
        if size > room:
            groups.append([])
            room = most
        groups[-1].append(variant)
        room -= size
    return groups
