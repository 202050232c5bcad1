"""Texts that are examples of a concept, and random ones beside them."""

from pathlib import Path
from typing import Literal

import torch

from circuits.errors import FileFormatError, PromptError, shown
from circuits.models import Model, TokenBatch
from circuits.progress import Progress
from circuits.tasks.library.wording import word_list
from circuits.tasks.sources.corpus import read_text, written_text

FEWEST = 5
"""Examples of a concept, at least."""
LONGEST = 64
"""Tokens of an example: its last ones, of a longer text."""


def read_examples(path: Path, *, least: int = FEWEST) -> tuple[str, ...]:
    """The texts of a file, one a line; empty lines are passed over. Raises FileFormatError for fewer than `least` of them and
    for one that stands there twice, and what `read_text` raises."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    first: dict[str, int] = {}
    for number, line in lines:
        if line in first:
            raise FileFormatError(f"{path}: line {number} is line {first[line]} again: an example that is given twice is one")
        first[line] = number
    if len(first) < least:
        raise FileFormatError(f"{path}: {len(first)} texts: expected {least} or more, one a line")
    return tuple(first)


def friends(kind: Literal["women", "men"]) -> tuple[str, ...]:
    """Texts that end with the name of a woman, or of a man."""
    return tuple(f"My friend {name}" for name in word_list(kind))


def as_examples(model: Model, texts: tuple[str, ...]) -> TokenBatch:
    """Texts as prompts, which are read at their last tokens. Raises PromptError where two of them are the same, and for texts
    without tokens."""
    twice = next((text for number, text in enumerate(texts) if text in texts[:number]), None)
    if twice is not None:
        raise PromptError(f"{shown(twice)} stands twice among the texts: an example that is given twice is one")
    opening = model.opening()
    rows = []
    for row in [model.to_tokens(text).ids[0].tolist() for text in texts]:
        rows.append(row if len(row) <= LONGEST else [*opening, *row[len(row) - LONGEST + len(opening) :]])
    return TokenBatch.from_rows(rows).to(model.device)


def random_examples(
    model: Model, like: TokenBatch, *, count: int, seed: int = 0, progress: Progress | None = None
) -> TokenBatch:
    """Beginnings of what the model writes itself, as long as examples are."""
    lengths, generator = like.mask.sum(dim=1).cpu(), torch.Generator().manual_seed(seed)
    rows = written_text(model, count=count, length=int(lengths.max()), seed=seed, progress=progress).ids
    drawn = lengths[torch.randint(len(lengths), (count,), generator=generator)].clamp(max=rows.shape[1])
    return TokenBatch(rows, (torch.arange(rows.shape[1]) < drawn[:, None]).to(rows.device)).to(model.device)
