"""Random tokens said several times over: the stimulus that makes induction visible (Olsson et al. 2022)."""

import torch

from circuits.errors import PromptError
from circuits.models import Model, TokenBatch


def sampling_pool(model: Model) -> torch.Tensor:
    """Token ids to draw random tokens from, that the model predicts: without special tokens, and without the tenth of the
    vocabulary at either end, where byte-pair vocabularies keep their most common and their rarest tokens (they are listed
    by merge order).
    Vocabularies of under 200 tokens, and models without a tokenizer, lose special tokens alone."""
    special = {model.bos_id} if model.tokenizer is None else set(model.tokenizer.all_special_ids)
    size = min(model.d_vocab, model.weights.W_U.shape[1])
    size = size if model.tokenizer is None else min(size, len(model.tokenizer))
    margin = size // 10 if model.tokenizer is not None and size >= 200 else 0
    return torch.tensor([i for i in range(margin, size - margin) if i not in special])


def repeated_tokens(model: Model, *, count: int, length: int = 25, copies: int = 2, seed: int = 0) -> tuple[TokenBatch, int]:
    """`count` prompts of `length` different random tokens, said `copies` times, opened as the model's prompts are.

    Returns the prompts and the segment's length, which is shortened to what the model's context and vocabulary hold.
    Raises PromptError where fewer than four tokens a segment or two copies would be left.
    """
    pool, opening = sampling_pool(model), model.opening()
    room = length if model.max_positions is None else (model.max_positions - len(opening)) // copies
    fitting = min(length, room, len(pool))
    if count < 1:
        raise PromptError(f"{count} prompts were asked for: ask for at least one")
    if fitting < 4 or copies < 2:
        raise PromptError(
            f"{model.name} takes {model.max_positions} tokens of a vocabulary of {len(pool)}: no room for a segment of "
            f"four tokens or more, said {copies} times"
        )
    generator = torch.Generator().manual_seed(seed)
    segments = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:fitting]] for _ in range(count)])
    ids = segments.repeat(1, copies)
    ids = torch.cat([torch.tensor(opening, dtype=torch.long).expand(count, -1), ids], dim=1)
    return TokenBatch.unpadded(ids.to(model.device)), fitting
