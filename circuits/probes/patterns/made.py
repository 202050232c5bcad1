"""Attention maps that are made, each of a pattern, with noise, on the tokens of a text: what a classifier learns from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.probes.patterns.marks import CLASSES, MapMarks

LEAST = 0.5
"""The least weight of a map on the keys of its pattern, where a query has any; a map that is mixed has less on each."""


def made_maps(
    marks: MapMarks, *, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "prompt map query key"], Int[Tensor, "prompt map"]]:
    """So many maps on each prompt, with their classes, drawn as often as each other.

    Of a pattern: from half to all of each query's weight lies on its keys, evenly or mostly on the last of them; the rest, and
    all of a query without such keys, lies anywhere, with a share on the first token or the own one, where models
    rest. Mixed: anywhere, falling with distance, or parted between two patterns and the rest.
    """
    prompts = len(marks.keys)
    names = [CLASSES.index(name) for name in marks.classes]
    drawn = torch.randint(len(names), (prompts, count), generator=generator)
    classes = torch.tensor(names)[drawn]
    keys = marks.keys.float().cpu()
    rest = _anywhere(marks, (prompts, count), generator)
    first = _alike(keys, classes.clamp(max=len(CLASSES) - 2), generator)
    strength = LEAST + (1 - LEAST) * torch.rand(prompts, count, 1, 1, generator=generator)
    there = first.sum(dim=3, keepdim=True) > 0
    pure = torch.where(there, strength * first + (1 - strength) * rest, rest)
    return torch.where((classes == len(CLASSES) - 1)[:, :, None, None], _mixed(marks, keys, rest, generator), pure), classes


def _alike(keys: Tensor, classes: Tensor, generator: torch.Generator) -> Float[Tensor, "prompt map query key"]:
    """The keys of a pattern alike, or the last of them by far; 0 where a query has none."""
    prompts, count = classes.shape
    chosen = keys[torch.arange(prompts)[:, None], classes]
    width = keys.shape[3]
    late = torch.rand(prompts, count, 1, 1, generator=generator) < 0.5
    block = (classes == CLASSES.index("block"))[:, :, None, None]
    recency = torch.where(late & ~block, 2.0 * torch.arange(width).float(), 0.0)
    return chosen * recency.expand_as(chosen).masked_fill(chosen == 0, -1e9).softmax(dim=3)


def _anywhere(marks: MapMarks, shape: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "prompt map query key"]:
    """Weights drawn for each key by itself, from even to uneven, a share of them on the first token or the own one."""
    width = marks.allowed.shape[0]
    sharp = 2.5 * torch.rand(*shape, 1, 1, generator=generator)
    logits = sharp * torch.randn(*shape, width, width, generator=generator)
    spread = logits.masked_fill(~marks.allowed.cpu(), -torch.inf).softmax(dim=3)
    resting = torch.rand(*shape, 1, 1, generator=generator) * (torch.rand(*shape, 1, 1, generator=generator) < 0.5)
    first = torch.zeros(width, width)
    first[:, 0] = 1.0
    where = torch.where(torch.rand(*shape, 1, 1, generator=generator) < 0.7, first, torch.eye(width))
    return (1 - resting) * spread + resting * where


def _mixed(marks: MapMarks, keys: Tensor, rest: Tensor, generator: torch.Generator) -> Float[Tensor, "prompt map query key"]:
    """Anywhere; falling with distance; or two patterns with 0.2 to 0.4 of the weight each."""
    prompts, count, width, _ = rest.shape
    names = torch.tensor([CLASSES.index(name) for name in marks.classes[:-1]])
    pairs = torch.stack([torch.randperm(len(names), generator=generator)[:2] for _ in range(prompts * count)])
    pairs = names[pairs].reshape(prompts, count, 2)
    parts = [_alike(keys, pairs[:, :, place], generator) for place in range(2)]
    shares = 0.2 + 0.2 * torch.rand(2, prompts, count, 1, 1, generator=generator)
    left = 1 - sum(share * part.sum(dim=3, keepdim=True) for share, part in zip(shares, parts, strict=True))
    both = shares[0] * parts[0] + shares[1] * parts[1] + left * rest
    place = torch.arange(width).float()
    scale = 2.0 + 14 * torch.rand(prompts, count, 1, 1, generator=generator)
    falling = (-(place[:, None] - place).abs() / scale).masked_fill(~marks.allowed.cpu(), -torch.inf).softmax(dim=3)
    without = rest.clone()
    without[..., 0] = 0
    evenly = without / without.sum(dim=3, keepdim=True).clamp(min=1e-30)
    evenly = torch.where(without.sum(dim=3, keepdim=True) > 0, evenly, rest)
    which = torch.randint(3, (prompts, count, 1, 1), generator=generator)
    return torch.where(which == 0, both, torch.where(which == 1, falling, evenly))
