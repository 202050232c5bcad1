"""Pieces of a text where a neuron is most active, and pieces at random: half of each to explain it by, half to test with."""

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from circuits.errors import PromptError
from circuits.graph import Node
from circuits.lenses.neurons.activations import neuron_layers
from circuits.lenses.neurons.highest import Highest
from circuits.lenses.neurons.triggers import counted_places, prompts_within
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent
from circuits.runs.runner import shards

LEVELS = 10
"""What the largest activation that was shown is scaled to (Bills et al. 2023)."""
FEWEST_ROWS = 4
"""A text of fewer rows has no top and random ones to show and to hold out."""


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A row of a text, without pads and the opening BOS, with a neuron's activation at each token."""

    kind: Literal["top", "random"]
    """Whether the neuron's largest activation there is among the largest of the text, or the row was drawn."""
    prompt: int
    """Which row of the text it is."""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    def levels(self, scale: float) -> list[int]:
        """The activations as whole numbers from 0 to 10: rounded down, 10 at `scale` and above, 0 at and below 0."""
        if scale <= 0:
            return [0] * len(self.activations)
        return [min(LEVELS, math.floor(LEVELS * max(value, 0.0) / scale)) for value in self.activations]


@dataclasses.dataclass(frozen=True, eq=False)
class Excerpts:
    """A neuron's excerpts: those that an explainer sees, and those that an explanation is tested on."""

    shown: tuple[Excerpt, ...]
    """Those with the largest activations by every second rank, the largest first; then drawn ones."""
    held: tuple[Excerpt, ...]
    """The other top ones and other drawn ones, by turns."""

    @property
    def scale(self) -> float:
        """The largest activation that is shown; what is 10 to explainers and simulators."""
        return max(value for one in self.shown for value in one.activations)


def distinct_rows(tokens: TokenBatch) -> TokenBatch:
    """The rows of a text, each once: what is shown must not be held out too. Rows of pads and BOS alone have gone before."""
    seen: dict[tuple[int, ...], int] = {}
    for row, (ids, mask) in enumerate(zip(tokens.ids.cpu(), tokens.mask.cpu(), strict=True)):
        seen.setdefault(tuple(ids[mask].tolist()), row)
    return tokens[sorted(seen.values())]


def top_rows(
    model: Model,
    tokens: TokenBatch,
    chosen: dict[int, list[int]],
    *,
    top: int,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> dict[Node, list[int]]:
    """For each neuron (layer → indices), the `top` rows of a text with its largest activations, the largest first; of equal
    ones the earlier. Pads and the opening BOS do not count."""
    report, kept = progress or silent, _none_yet(model, chosen, top)
    step = prompts_within(model, tokens.ids.shape[1], budget)
    report("reading the text", 0, len(tokens))

    @torch.no_grad()
    def read(part: int) -> list[tuple[Tensor, Tensor]]:
        """The largest of one part of the text, layer by layer."""
        own, start = _none_yet(model, chosen, top), part * step
        prompts = model.prepare(tokens[start : start + step])
        left_out = ~counted_places(model, prompts)
        rows = torch.arange(start, start + len(prompts), device=model.device)
        for layer, values in neuron_layers(model.weights, prompts, last=max(chosen)):
            if layer in own:
                largest = values[:, :, chosen[layer]].masked_fill(left_out[:, :, None], -torch.inf).amax(dim=1)
                own[layer].add(largest.to(own[layer].values), rows)
        return [(one.values, one.places) for one in own.values()]

    for part, found in enumerate(shards("reading the text", -(-len(tokens) // step), read), 1):
        for one, (values, places) in zip(kept.values(), found, strict=True):
            one.join(values, places)
        report("reading the text", min(part * step, len(tokens)), len(tokens))
    return {
        Node("neuron", layer, index): kept[layer].places[column].tolist()
        for layer, indices in chosen.items()
        for column, index in enumerate(indices)
    }


def _none_yet(model: Model, chosen: dict[int, list[int]], top: int) -> dict[int, Highest]:
    """The largest of each neuron, before anything was read."""
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    return {layer: Highest(len(indices), top, dtype=dtype, device=model.device) for layer, indices in chosen.items()}


def rows_to_read(model: Model, tokens: TokenBatch) -> TokenBatch:
    """The rows of a text that differ and have a token to look at. Raises PromptError where they are too few."""
    there = counted_places(model, tokens).any(dim=1).nonzero()[:, 0].cpu()
    found = distinct_rows(tokens[there]) if len(there) else tokens[:0]
    if len(found) < FEWEST_ROWS:
        raise PromptError(
            f"the text has {len(found)} different pieces: expected {FEWEST_ROWS} or more, to explain by some and test on others"
        )
    return found


def excerpts_of(model: Model, neuron: Node, best: Sequence[int], tokens: TokenBatch, *, seed: int = 0) -> Excerpts:
    """A neuron's excerpts of a text: the rows with its largest activations (`best`, by rank, of an even number), and as many of
    the others, drawn at random. The text has twice as many rows at least."""
    others = sorted(set(range(len(tokens))) - set(best))
    drawn = random.Random(f"{seed} {neuron}").sample(others, len(best))
    rows = [*best, *drawn]
    batch = model.prepare(tokens[rows])
    counted, values = counted_places(model, batch).cpu(), _activations(model, neuron, batch)
    found = [
        Excerpt(
            "top" if place < len(best) else "random",
            row,
            tuple(model.to_token_strings(batch.ids[place, counted[place].to(batch.ids.device)])),
            tuple(values[place, counted[place]].tolist()),
        )
        for place, row in enumerate(rows)
    ]
    top, random_ones = found[: len(best)], found[len(best) :]
    held = [one for pair in zip(top[1::2], random_ones[1::2], strict=True) for one in pair]
    return Excerpts((*top[::2], *random_ones[::2]), tuple(held))


def even_top(top: int, rows: int) -> int:
    """How many top rows are taken: as many as asked for, at most half of the text, an even number."""
    if top < 2:
        raise PromptError(f"top={top}: expected at least 2, one to explain the neuron by and one to test on")
    return min(top, rows // 2) // 2 * 2


def _activations(model: Model, neuron: Node, batch: TokenBatch) -> Tensor:
    """The neuron's activation everywhere, `[prompt position]`, float64."""
    layer = neuron.layer or 0
    with torch.no_grad():
        for reached, values in neuron_layers(model.weights, batch, last=layer):
            if reached == layer:
                return values[:, :, neuron.index].double().cpu()
    raise AssertionError(f"layer {layer} has no neurons")
