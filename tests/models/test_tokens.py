"""Laws of a token batch."""

import random

import pytest
import torch

from circuits.errors import PromptError
from circuits.models import TokenBatch

SEEDS = range(50)


def random_rows(seed: int) -> list[list[int]]:
    """Prompts of unequal length."""
    rng = random.Random(seed)
    return [[rng.randrange(1, 99) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 5))]


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_come_back_without_their_pads(seed: int) -> None:
    rows = random_rows(seed)
    batch = TokenBatch.from_rows(rows, pad_id=7)
    assert len(batch) == len(rows)
    assert [ids[mask].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)] == rows
    assert batch.padded == (len({len(row) for row in rows}) > 1)
    assert bool((batch.ids[~batch.mask] == 7).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_positions_count_tokens_and_last_is_the_last_token(seed: int) -> None:
    batch = TokenBatch.from_rows(random_rows(seed))
    for side in (batch, TokenBatch(batch.ids.flip(1), batch.mask.flip(1))):
        for row in range(len(side)):
            count = int(side.mask[row].sum())
            assert side.positions[row][side.mask[row]].tolist() == list(range(count))
            assert int(side.last[row]) == int(side.mask[row].nonzero().max())
        assert bool((side.positions >= 0).all()) and bool((side.positions < side.ids.shape[1]).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_positions_count_from_either_end_of_each_prompt(seed: int) -> None:
    batch = TokenBatch.from_rows(random_rows(seed))
    for side in (batch, TokenBatch(batch.ids.flip(1), batch.mask.flip(1))):
        own = [mask.nonzero()[:, 0].tolist() for mask in side.mask]
        longest = max(map(len, own))
        for position in range(-longest, longest):
            expected = [columns[position] if -len(columns) <= position < len(columns) else -1 for columns in own]
            assert side.columns_at(position).tolist() == side.required_columns(position).tolist() == expected
        assert side.columns_at(-1).tolist() == side.last.tolist()
        for position in (longest, -longest - 1):
            assert side.columns_at(position).tolist() == [-1] * len(side)
            with pytest.raises(PromptError, match=f"^here: position {position} is outside the prompts, .* {longest} tokens"):
                side.required_columns(position, what="here: ")


@pytest.mark.parametrize("seed", SEEDS)
def test_choosing_prompts_keeps_ids_and_mask_together(seed: int) -> None:
    batch = TokenBatch.from_rows(random_rows(seed))
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    for rows in (order, order.tolist(), slice(0, 1)):
        chosen = batch[rows]
        assert torch.equal(chosen.ids, batch.ids[rows]) and torch.equal(chosen.mask, batch.mask[rows])
        assert torch.equal(chosen.last, batch.last[rows])


def test_unpadded_has_no_pads() -> None:
    batch = TokenBatch.unpadded(torch.arange(6).reshape(2, 3))
    assert not batch.padded and batch.last.tolist() == [2, 2] and batch.positions.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("rows", [[], [[]], [[1], []]])
def test_empty_prompts_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(PromptError, match="no tokens"):
        TokenBatch.from_rows(rows)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises((PromptError, TypeError)):
        TokenBatch(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool))


def test_a_prompt_of_pads_only_is_refused() -> None:
    with pytest.raises(PromptError, match="no tokens"):
        TokenBatch(torch.ones(2, 2, dtype=torch.long), torch.tensor([[True, False], [False, False]]))
