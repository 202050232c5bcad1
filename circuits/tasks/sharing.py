"""Pairs that share prompts, and so tell the same thing more than once."""

import random

from jaxtyping import Int
from torch import Tensor, tensor

from circuits.errors import PromptError
from circuits.models import TokenBatch
from circuits.tasks.prompts import PromptPairs


def groups_of(pairs: PromptPairs, *, corrupt: bool = True) -> Int[Tensor, " prompt"]:
    """The number of each pair's group, from 0 on in the order of the pairs. Two pairs that share a prompt are of one group,
    also by way of others: a pair and its mirror image, a pair that is there twice, and all whose corrupt prompt is the same.

    `corrupt=False` looks at clean prompts alone.
    """
    above: dict[tuple[int, ...], tuple[int, ...]] = {}

    def top(prompt: tuple[int, ...]) -> tuple[int, ...]:
        """The prompt that stands for all that hang together with this one."""
        while above.setdefault(prompt, prompt) != prompt:
            prompt = above[prompt]
        return prompt

    clean, other = _rows(pairs.clean), _rows(pairs.corrupt)
    for one, partner in zip(clean, other, strict=True):
        first = top(one)
        if corrupt:
            above[top(partner)] = first
    numbers: dict[tuple[int, ...], int] = {}
    return tensor([numbers.setdefault(top(one), len(numbers)) for one in clean])


def halves(pairs: PromptPairs, seed: int = 0) -> tuple[list[int], list[int]]:
    """The rows of two halves of the pairs, drawn at random, each with at least one: pairs that share a prompt stay together.
    Where all hang together, those with the same clean prompt do. Raises PromptError where all have one clean prompt."""
    groups = _members(groups_of(pairs))
    if len(groups) < 2:
        groups = _members(groups_of(pairs, corrupt=False))
    if len(groups) < 2:
        raise PromptError("one pair cannot be split: give at least two clean prompts, or held-out pairs of your own")
    random.Random(seed).shuffle(groups)
    half, first = (len(pairs) + 1) // 2, list[int]()
    for group in groups:
        first += group if len(first) + len(group) <= half else []
    chosen = set(first)
    return sorted(first), [row for row in range(len(pairs)) if row not in chosen]


def _members(groups: Int[Tensor, " prompt"]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(int(groups.max()) + 1)]
    for row, group in enumerate(groups.tolist()):
        found[group].append(row)
    return found


def _rows(batch: TokenBatch) -> list[tuple[int, ...]]:
    return [tuple(ids[mask].tolist()) for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)]
