"""The induction task: what followed this token the last time?"""

import dataclasses
from typing import Literal

import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.repeats import sampling_pool


def induction(
    model: Model, count: int = 32, seed: int = 0, *, length: int = 12, differ: Literal["answer", "prefix"] = "answer"
) -> PromptPairs:
    """Pairs of random tokens `… A B … A`, answer B, and `… A C … A` in the corrupt prompt, answer C.

    A segment of `length` different tokens is followed by one of its tokens, A, drawn from its middle. The corrupt prompt
    differs in one token, the one after A's first appearance: symmetric token replacement (Zhang & Nanda 2024), so the
    distractor C is what the corrupt prompt calls for. B and C stand nowhere else. With `differ="prefix"` A's first
    appearance is what differs, `… D B … A`: nothing is left to match, which shows what previous-token heads tell; the
    distractor is then another token of the segment. Raises PromptError where the vocabulary or the context is too small.
    """
    pool, opening = sampling_pool(model), model.opening()
    if len(pool) <= length + 1 or length < 4 or (model.max_positions or length + 2) < length + 1 + len(opening):
        raise PromptError(f"{model.name}: no room for induction prompts of {length} tokens; ask for a smaller length")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([pool[torch.randperm(len(pool), generator=generator)[: length + 1]] for _ in range(count)])
    segments, distractors = drawn[:, :length], drawn[:, length]
    place = torch.randint(1, length - 2, (count,), generator=generator)
    rows = torch.arange(count)
    parts = [torch.tensor(opening, dtype=torch.long).expand(count, -1), segments, segments[rows, place][:, None]]
    clean = torch.cat(parts, dim=1)
    corrupt = clean.clone()
    corrupt[rows, len(opening) + place + (differ == "answer")] = distractors
    if differ == "prefix":
        distractors = segments[rows, (place + 3) % length]
    pairs = PromptPairs.from_tokens(
        model,
        clean=clean.tolist(),
        corrupt=corrupt.tolist(),
        answers=segments[rows, place + 1].tolist(),
        distractors=distractors.tolist(),
    )
    first = (len(opening) + place).to(pairs.answer_columns.device)
    return dataclasses.replace(pairs, positions={"first": first, "followed": first + 1, "end": pairs.answer_columns})
