"""Head scores against loops that say the definitions word by word, and on patterns whose score is known."""

import dataclasses

import pytest
import torch

from circuits.errors import NonFiniteError, PromptError
from circuits.heads import HeadScores, score_heads
from circuits.heads.scores import SCORES
from circuits.models import Model, TokenBatch
from circuits.tasks import repeated_tokens
from tests.models.native import native_bridge


def random_model(seed: int = 0, **options) -> Model:
    return Model.from_bridge(native_bridge(seed, **{"d_vocab": 40, "n_ctx": 64, "n_heads": 4, **options}))


@pytest.mark.parametrize("groups", [None, 2, 1])
def test_attention_scores_equal_loops(groups: int | None):
    model = random_model(n_key_value_heads=groups)
    scores = score_heads(model, sequences=3, length=6, copies=3, seed=4)
    tokens, length = repeated_tokens(model, count=3, length=6, copies=3, seed=4)
    run = model.run(tokens)
    width = tokens.ids.shape[1]
    for layer in range(model.n_layers):
        pattern = run.pattern(layer)
        for head in range(model.n_heads):
            expected = {name: [] for name in SCORES if name != "copying"}
            for prompt in range(3):
                ids = tokens.ids[prompt].tolist()
                for query in range(1, width):
                    row = pattern[prompt, head, query]
                    earlier = [key for key in range(query) if ids[key] == ids[query]]
                    if query >= width - 2 * length:
                        expected["prefix_matching"].append(sum(float(row[key + 1]) for key in earlier))
                        expected["duplicate_token"].append(sum(float(row[key]) for key in earlier))
                    expected["previous_token"].append(float(row[query - 1]))
                    expected["first_token"].append(float(row[0]))
            for name, values in expected.items():
                assert float(scores.scores[name][layer, head]) == pytest.approx(sum(values) / len(values), abs=1e-9), name


def test_text_serves_the_scores_that_need_no_repeats():
    model = random_model()
    text = TokenBatch.from_rows([[0, 5, 9, 3], [0, 7, 1]])
    scores = score_heads(model, sequences=2, length=5, copies=2, text=text)
    first = model.run(torch.tensor([[0, 5, 9, 3]])).pattern(1)[0, 2]
    second = model.run(torch.tensor([[0, 7, 1]])).pattern(1)[0, 2]
    before = ((first[1, 0] + first[2, 1] + first[3, 2]) / 3 + (second[1, 0] + second[2, 1]) / 2) / 2
    assert float(scores.scores["previous_token"][1, 2]) == pytest.approx(float(before), abs=1e-9)


def test_prompts_a_few_at_a_time_give_the_same_scores(monkeypatch: pytest.MonkeyPatch):
    model = random_model()
    whole = score_heads(model, sequences=3, length=6).scores
    monkeypatch.setattr("circuits.heads.scores.prompts_at_once", lambda weights, width: 2)
    cut = score_heads(model, sequences=3, length=6).scores
    assert all(torch.allclose(whole[name], cut[name], rtol=0, atol=1e-12) for name in SCORES)


def test_standard_errors_are_those_of_means_over_sequences():
    model = random_model()
    text = TokenBatch.unpadded(torch.randint(40, (3, 9), generator=torch.Generator().manual_seed(0)))
    found = score_heads(model, sequences=2, length=6, text=text).standard_errors["previous_token"]
    run = model.run(text)
    each = torch.stack([run.pattern(layer).diagonal(-1, 2, 3).mean(dim=-1) for layer in range(model.n_layers)], dim=1)
    assert torch.allclose(found, each.std(dim=0) / 3**0.5, rtol=0, atol=1e-12)
    alone = score_heads(model, sequences=2, length=6, text=text[:1])
    assert torch.allclose(alone.scores["previous_token"], each[0], rtol=0, atol=1e-12)
    assert alone.standard_errors["previous_token"].isnan().all()


def test_heads_that_share_keys_and_values_score_as_if_each_had_its_own():
    model = random_model(n_key_value_heads=2)
    blocks = []
    for block in model.weights.blocks:
        attention, own = block.attention, {}
        for name in ("W_K", "W_V", "b_K", "b_V"):
            part = getattr(attention, name)
            own[name] = None if part is None else part.unflatten(-1, (2, -1)).repeat_interleave(2, dim=-2).flatten(-2)
        attention = dataclasses.replace(attention, **own, n_key_value_heads=4)
        blocks.append(dataclasses.replace(block, attention=attention))
    other = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=tuple(blocks)))
    one, two = (score_heads(each, sequences=2, length=6).scores for each in (model, other))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-10) for name in SCORES)


def test_copying_is_one_for_a_head_that_copies_and_minus_one_for_a_head_that_suppresses():
    model = random_model(n_layers=1, attn_only=True, d_model=48, d_head=48, n_heads=2, normalization_type=None)
    weights, identity = model.weights, torch.eye(48, dtype=torch.float64)
    block = weights.blocks[0]
    attention = dataclasses.replace(
        block.attention,
        W_V=torch.cat([identity, -identity], dim=1),
        W_O=torch.cat([identity, identity], dim=0),
        b_V=None,
    )
    embedding = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    weights = dataclasses.replace(
        weights,
        W_E=embedding[:40],
        W_U=embedding[:40].T,
        b_U=None,
        W_pos=torch.zeros_like(weights.W_pos),
        blocks=(dataclasses.replace(block, attention=attention),),
    )
    scores = score_heads(dataclasses.replace(model, weights=weights), sequences=2, length=8)
    assert scores.scores["copying"][0].tolist() == pytest.approx([1.0, -1.0], abs=1e-6)


def test_top_orders_and_the_table_has_a_row_a_head():
    values = torch.tensor([[0.1, 0.9], [0.9, 0.2]])
    scores = HeadScores("m", {"previous_token": values}, {"previous_token": values * 0}, 1, 0)
    assert [str(node) for node, _ in scores.top("previous_token", 3)] == ["a0.h1", "a1.h0", "a1.h1"]
    table = scores.to_dataframe()
    assert table["name"].tolist() == ["a0.h0", "a0.h1", "a1.h0", "a1.h1"]
    assert table["previous_token"].tolist() == pytest.approx([0.1, 0.9, 0.9, 0.2])


def test_no_room_is_refused_by_name():
    with pytest.raises(PromptError, match="no room"):
        score_heads(random_model(n_ctx=6))
    with pytest.raises(PromptError, match="no room"):
        score_heads(random_model(d_vocab=3))
    tight = dataclasses.replace(random_model(n_ctx=24), bos=0)  # BOS and four copies of six do not fit
    four, three = (score_heads(tight, sequences=2, length=6, copies=copies).scores for copies in (4, 3))
    assert all(torch.equal(four[name], three[name]) for name in SCORES)


def test_a_model_that_predicts_some_of_its_tokens_is_scored_on_these():
    scores = score_heads(random_model(d_vocab_out=30), sequences=2, length=6)
    assert all(bool(values.isfinite().all()) for values in scores.scores.values())


def test_the_same_seed_gives_the_same_scores_and_leaves_the_global_generator_alone():
    model = random_model()
    state = torch.random.get_rng_state()
    once, again, other = (score_heads(model, sequences=2, length=6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(once.scores[name], again.scores[name]) for name in SCORES)
    assert not torch.equal(once.scores["prefix_matching"], other.scores["prefix_matching"])


def test_scores_that_are_no_numbers_are_refused_by_name():
    model = random_model(n_layers=1)
    model.weights.blocks[0].attention.W_Q.mul_(1e200)
    model.weights.blocks[0].attention.W_K.mul_(1e200)
    with pytest.raises(NonFiniteError, match=r"the score prefix_matching of a0\.h0 in \w+ is no finite number"):
        score_heads(model, sequences=2, length=6)
    model = random_model(n_layers=1)
    model.weights.W_U[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="the weight W_U of"):
        score_heads(model, sequences=2, length=6)
