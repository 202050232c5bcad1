"""Repeated tokens and the induction task: what they promise, on a model with a tokenizer and on one without."""

import dataclasses

import pytest
import torch

import circuits.tasks
from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks import PromptPairs, induction, metrics, repeated_tokens
from circuits.tasks.repeats import sampling_pool
from tests.models import bundled
from tests.models.native import native_bridge


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def bare(**options) -> Model:
    return Model.from_bridge(native_bridge(0, **{"d_vocab": 40, "n_ctx": 32, **options}))


def test_the_name_is_the_function():
    assert circuits.tasks.induction is induction
    assert callable(circuits.tasks.induction)


def test_segments_are_repeated_after_bos_and_hold_each_token_once(mini: Model):
    tokens, length = repeated_tokens(mini, count=4, length=25, copies=3, seed=7)
    assert tokens.ids.shape == (4, 1 + 3 * 25)
    assert (tokens.ids[:, 0] == mini.tokenizer.bos_token_id).all()
    copies = tokens.ids[:, 1:].reshape(4, 3, length)
    assert torch.equal(copies[:, 0], copies[:, 1])
    assert torch.equal(copies[:, 0], copies[:, 2])
    assert all(len(set(segment.tolist())) == length for segment in copies[:, 0])
    assert set(tokens.ids[:, 1:].flatten().tolist()) <= set(sampling_pool(mini).tolist())


def test_the_commonest_and_rarest_tokens_are_left_out(mini: Model):
    pool = sampling_pool(mini)
    assert int(pool.min()) >= mini.d_vocab // 10
    assert int(pool.max()) < mini.d_vocab - mini.d_vocab // 10
    assert not set(mini.tokenizer.all_special_ids) & set(pool.tolist())


def test_a_short_context_shortens_the_segment():
    opened = dataclasses.replace(bare(n_ctx=17), bos=0)
    for model, width in ((bare(n_ctx=17), 16), (opened, 17)):
        tokens, length = repeated_tokens(model, count=2, length=25, copies=2)
        assert (length, tokens.ids.shape[1]) == (8, width)
    assert repeated_tokens(bare(n_ctx=8), count=2, copies=2)[1] == 4
    for none in (bare(n_ctx=7), dataclasses.replace(bare(n_ctx=8), bos=0)):
        with pytest.raises(PromptError, match="no room"):
            repeated_tokens(none, count=2, copies=2)


def test_pairs_differ_in_the_one_token_that_decides(mini: Model):
    pairs = induction(mini, count=50, seed=3)
    assert isinstance(pairs, PromptPairs)
    for clean, corrupt, answer, distractor in zip(
        pairs.clean.ids.tolist(),
        pairs.corrupt.ids.tolist(),
        pairs.answers.tolist(),
        pairs.distractors.tolist(),
        strict=True,
    ):
        changed = [column for column, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b]
        assert len(changed) == 1
        first = clean.index(clean[-1])
        assert changed == [first + 1]
        assert clean[first + 1] == answer
        assert corrupt[first + 1] == distractor
        assert clean.count(answer) == 1
        assert distractor not in clean


def test_mini_answers_its_own_task(mini: Model):
    pairs = induction(mini, count=32, seed=0)
    for side, sign in ((pairs.clean, 1), (pairs.corrupt, -1)):
        with torch.no_grad():
            difference = metrics.logit_difference(metrics.answer_logits(mini.run(side), pairs), pairs)
        assert float((sign * difference > 0).float().mean()) > 0.9


def test_seeds_decide_and_no_global_generator_is_touched(mini: Model):
    state = torch.random.get_rng_state()
    once, again, other = (induction(mini, 8, seed).clean.ids for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_too_small_models_are_refused():
    with pytest.raises(PromptError, match="no room"):
        induction(bare(d_vocab=8))
    with pytest.raises(PromptError, match="no room"):
        induction(bare(n_ctx=10))
