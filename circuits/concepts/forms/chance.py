"""What a form would fit by chance: the neuron's mask moved along the text, so that it stays as clumped as it is."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """Forms on text that they were not chosen on: intersection over union with their neurons, the mean of it over all moves of
    the neuron's mask along that text, and the share of moves that reach it (its own place among them)."""

    iou: Float[Tensor, " neuron"]
    null: Float[Tensor, " neuron"]
    p_values: Float[Tensor, " neuron"]


def all_moves(active: Bool[Tensor, "neuron unit"], holds: Bool[Tensor, "neuron unit"]) -> Held:
    """Each neuron against one form, at every circular move of its mask; NaN for a neuron that is not active there.

    A mask that is moved keeps how its words clump, which one whose words are drawn anew does not: there, a neuron and a concept
    that both come in runs would fit better than chance by that alone.
    """
    active_counts, held_counts = active.sum(dim=1, keepdim=True), holds.sum(dim=1, keepdim=True)
    # Intersections at all moves are one circular correlation; they are whole numbers, which float64 tells apart.
    ways = torch.fft.rfft(active.double()).conj() * torch.fft.rfft(holds.double())
    both = torch.fft.irfft(ways, n=active.shape[1]).round()
    iou = both / (active_counts + held_counts - both).clamp(min=1)
    own = iou[:, 0]
    moved = (iou.sum(dim=1) - own) / max(1, active.shape[1] - 1)
    p_values = (iou >= own[:, None] - 1e-12).double().mean(dim=1)
    silent = active_counts[:, 0] == 0
    return Held(*(values.masked_fill(silent, torch.nan) for values in (own, moved, p_values)))


def drawn_moves(units: int, count: int, seed: int) -> list[int]:
    """By how many words masks are moved, the same for all neurons."""
    generator = torch.Generator().manual_seed(seed)
    return (1 + torch.randint(max(1, units - 1), (count,), generator=generator)).tolist()


def benjamini_hochberg(p_values: Float[Tensor, " test"]) -> Float[Tensor, " test"]:
    """p-values such that of those below a level, at most that share is expected to be false (Benjamini & Hochberg 1995); NaN
    counts as no test."""
    found, there = p_values.clone(), ~p_values.isnan()
    order = p_values[there].argsort()
    count = len(order)
    scaled = p_values[there][order] * count / torch.arange(1, count + 1)
    least = scaled.flip(0).cummin(dim=0).values.flip(0).clamp(max=1.0) if count else scaled
    back = torch.empty_like(least)
    back[order] = least
    found[there] = back
    return found
