"""A model that writes token by token computes what a run of the whole prompt does."""

import dataclasses
import itertools
import random

import pytest
import torch

from circuits.errors import ModelError
from circuits.models import TokenBatch
from circuits.models.forward import forward
from circuits.models.sampling import Writer, most_probable, write
from circuits.models.weights import Weights
from tests.models.random_models import random_shape, random_weights, record_of


def drawn(seed: int) -> Weights:
    rng = random.Random(seed)
    shape = dataclasses.replace(random_shape(rng), causal=True)
    return record_of(shape, random_weights(shape, rng))


@pytest.mark.parametrize("seed", range(20))
def test_logits_are_those_of_whole_runs(seed: int) -> None:
    weights = drawn(seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(weights.W_E.shape[0], (3, 6), generator=generator)
    writer = Writer(weights, 3, 6)
    found = torch.stack([writer.add(column) for column in ids.T], dim=1)
    whole = forward(weights, TokenBatch.unpadded(ids)).logits
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-10)
    writer, cuts = Writer(weights, 3, 6), sorted(random.Random(seed).sample(range(1, 6), 2))
    for start, stop in itertools.pairwise([0, *cuts, 6]):
        torch.testing.assert_close(writer.read(ids[:, start:stop]), whole[:, stop - 1], rtol=0, atol=1e-10)
    writer = Writer(weights, 3, 2)
    writer.read(ids[:, :2])
    for longer in (writer.branch(6), writer.branch(6)):
        torch.testing.assert_close(longer.read_at(ids[:, 2:], [1, 3]), whole[:, [3, 5]], rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_prompts_that_go_on_otherwise_are_those_of_whole_runs(seed: int) -> None:
    weights, writer = drawn(seed), Writer(drawn(seed), 3, 6)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(weights.W_E.shape[0], (3, 6), generator=generator)
    ends = torch.tensor([5, 2, 3])
    whole = forward(weights, TokenBatch.unpadded(ids)).logits[torch.arange(3), ends]
    torch.testing.assert_close(writer.read_ends(ids, ends), whole, rtol=0, atol=1e-10)
    rows, starts, others = [2, 0, 0, 1], [3, 0, 5, 2], [[1, 2], [3, 4, 5, 6, 7], [8], [9, 10, 11, 0, 1, 2]]
    found = writer.continued(torch.tensor(rows), torch.tensor(starts), others)
    for logits, row, start, other in zip(found, rows, starts, others, strict=True):
        one = torch.tensor([[*ids[row, :start].tolist(), *other]])
        torch.testing.assert_close(logits, forward(weights, TokenBatch.unpadded(one)).logits[0, -1], rtol=0, atol=1e-10)


def test_the_most_probable_rest_is_that_of_whole_runs() -> None:
    weights, ids = drawn(3), torch.tensor([[0, 4]])
    for _ in range(4):
        ids = torch.cat([ids, forward(weights, TokenBatch.unpadded(ids)).logits[:, -1:].argmax(dim=-1)], dim=1)
    assert most_probable(weights, ids[0, :2], 4, stop=lambda token: False) == ids[0, 2:].tolist()
    last = int(ids[0, 4])
    until = ids[0, 2:].tolist().index(last)
    assert most_probable(weights, ids[0, :2], 4, stop=lambda token: token == last) == ids[0, 2 : 2 + until].tolist()


def test_what_is_banned_is_not_written() -> None:
    weights = drawn(1)
    banned = list(range(0, weights.W_U.shape[1], 2))
    written = [
        write(weights, torch.zeros(5).long(), 6, generator=torch.Generator().manual_seed(0), banned=banned) for _ in "ab"
    ]
    assert torch.equal(*written) and bool((written[0][:, 1:] % 2 == 1).all())


def test_a_model_that_looks_ahead_cannot_write() -> None:
    with pytest.raises(ModelError, match="looks ahead"):
        Writer(dataclasses.replace(drawn(1), causal=False), 1, 2)
