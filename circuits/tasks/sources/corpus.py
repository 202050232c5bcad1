"""Running text as prompts: a file cut into rows of tokens, or text that the model writes by itself."""

from pathlib import Path

import torch

from circuits.errors import PromptError
from circuits.files import reading
from circuits.models import Model, TokenBatch
from circuits.models.sampling import write
from circuits.progress import Progress

WIDTH = 128
"""Tokens of a row, BOS included, where nothing else is asked for and the model takes as many."""
_PIECE = 2**16
"""Characters that are tokenized at a time."""


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file. Raises FileFormatError, with the file's name, where it is none or there is no such file."""
    return reading.read_text(Path(path))


def text_rows(model: Model, text: str, *, width: int | None = None, limit: int | None = None) -> TokenBatch:
    """A text cut into prompts of equal length (`width` tokens, with what opens the model's prompts), in order.

    A last row that would not be full is left out, unless it is the only one. `limit` keeps so many tokens of the text.
    On the CPU: move batches to the model as they are run. Raises PromptError for a text of fewer than two tokens,
    ModelError for a model without a tokenizer.
    """
    ids = text_tokens(model, text, limit=limit)
    if len(ids) < 2:
        raise PromptError(f"a text of {len(ids)} tokens is too short: give a longer one")
    opening = model.opening()
    asked = WIDTH if width is None else width
    fitting = min(asked, model.max_positions or asked) - len(opening)
    if fitting < 1:
        raise PromptError(f"rows of {asked} tokens leave no room for text")
    fitting = min(fitting, len(ids))
    body = torch.tensor(ids[: len(ids) // fitting * fitting], dtype=torch.long).reshape(-1, fitting)
    return TokenBatch.unpadded(torch.cat([body.new_tensor(opening).expand(len(body), -1), body], dim=1))


def text_tokens(model: Model, text: str, *, limit: int | None = None) -> list[int]:
    """Token ids of a text of any length, without BOS; `limit` stops after so many. Long texts are tokenized piece by piece,
    cut where a line or a word begins."""
    ids: list[int] = []
    start = 0
    while start < len(text) and (limit is None or len(ids) < limit):
        stop = _cut(text, start)
        ids += model.to_tokens(text[start:stop], prepend_bos=False).ids[0].tolist()
        start = stop
    return ids if limit is None else ids[:limit]


def _cut(text: str, start: int) -> int:
    """Where the piece from `start` on ends: before a space or a line break, so that no token spans two pieces."""
    stop = start + _PIECE
    if stop >= len(text):
        return len(text)
    found = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
    while found > start + 1 and text[found - 1].isspace():
        found -= 1
    return found if found > start else stop


def written_text(
    model: Model, *, count: int = 64, length: int = 64, seed: int = 0, progress: Progress | None = None
) -> TokenBatch:
    """Prompts that the model writes by itself, `count` of `length` tokens: what it samples after its BOS (or after a random
    token where it has none), opened as its prompts are. A corpus for where no text is at hand. Special tokens are not written.
    `progress` hears how far it is.
    """
    opening = model.opening()
    before = opening or ([] if model.bos_id is None else [model.bos_id])
    unseen = len(before) - len(opening)  # a BOS that the text is written after and prompts do without
    length = min(length, (model.max_positions or length + unseen) - unseen)
    if length < 1 or count < 1:
        raise PromptError(f"count={count}, length={length}: expected numbers of at least 1")
    generator = torch.Generator().manual_seed(seed)
    special = [] if model.tokenizer is None else list(model.tokenizer.all_special_ids)
    banned = [token for token in special if token < model.weights.W_U.shape[1]]
    last = torch.full((count,), before[-1]) if before else torch.randint(model.d_vocab, (count,), generator=generator)
    size = length + unseen - max(len(before) - 1, 0)
    written = write(model.weights, last.to(model.device), size, generator=generator, banned=banned, progress=progress)
    fixed = written.new_tensor(before[:-1]).expand(count, -1)
    return TokenBatch.unpadded(torch.cat([fixed, written], dim=1)[:, unseen:])
