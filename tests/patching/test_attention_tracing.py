"""Attention tracing beside ablation: one run a token against the batch, laws, and what a user can get wrong."""

import dataclasses
import random
from pathlib import Path

import pytest
import torch

import circuits
from circuits.errors import FileFormatError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.heads.attention.tracing import TRACINGS, trace_attention
from circuits.models import Edit, Model, TokenBatch
from circuits.models.layers import embed
from circuits.patching import AttentionTrace, attention
from circuits.patching.tracing.attention import own_positions
from circuits.statistics import bootstrap, spearman
from tests.models import bundled
from tests.models.random_models import random_shape, random_weights, record_of

RIGHT = TokenBatch(
    torch.tensor([[5, 9, 3, 1, 8, 0], [7, 1, 4, 0, 0, 0], [2, 3, 4, 5, 6, 7]]),
    torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool(),
)
LEFT = TokenBatch(
    torch.tensor([[0, 5, 9, 3, 1, 8], [0, 0, 0, 7, 1, 4], [2, 3, 4, 5, 6, 7]]),
    torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool(),
)
ROWS = ([5, 9, 3, 1, 8], [7, 1, 4], [2, 3, 4, 5, 6, 7])


def random_model(rng: random.Random) -> Model:
    shape = random_shape(rng)
    return Model("random", "random", record_of(shape, random_weights(shape, rng)), None, prepend_bos=False)


def replaced(model: Model, ids: torch.Tensor, source: int, other: int | None) -> torch.Tensor:
    """Final logits with one token's embedding the vocabulary's mean, or another token's."""
    batch = TokenBatch.unpadded(ids)
    if other is not None:
        swapped = ids.clone()
        swapped[0, source] = other
        return model.run(swapped).logits[0]
    noise = torch.zeros(1, ids.shape[1], model.d_model, dtype=torch.float64)
    noise[0, source] = model.weights.W_E.mean(dim=0) - model.weights.W_E[ids[0, source]]
    return model.run(batch, edits=[Edit("input", embed(model.weights, batch, noise))]).logits[0]


def hidden(model: Model, ids: torch.Tensor, source: int) -> torch.Tensor:
    """Final logits where nobody later sees a token: each layer's pattern without that column, rows made to sum to 1."""
    width, patterns = ids.shape[1], []
    for layer in range(model.n_layers):
        zeros = [torch.zeros(1, model.n_heads, width, width, dtype=torch.float64)] * (model.n_layers - len(patterns) - 1)
        start = model.run(ids).pattern(0) if layer == 0 else None
        if start is None:  # the pattern of this layer, given those before it
            given = [*patterns, torch.zeros(1, model.n_heads, width, width, dtype=torch.float64), *zeros]
            start = dataclasses.replace(model.run(ids, patterns=given), patterns=()).pattern(layer)
        out = torch.ones(width, dtype=torch.bool)
        out[source] = False
        if model.weights.causal:
            out[:source] = False
        kept = start.clone()
        kept[:, :, out, source] = 0
        patterns.append(kept / kept.sum(dim=-1, keepdim=True))
    return model.run(ids, patterns=patterns).logits[0]


def test_the_batch_equals_one_run_a_token_with_pads_on_either_side():
    rng = random.Random(3)
    for number in range(7):
        model = random_model(rng)
        position = (-1, 1, -2)[number % 3]
        answers = torch.tensor([3, 4, 5])
        traces = [attention(model, batch, answers=answers, position=position) for batch in (RIGHT, LEFT)]
        for prompt, row in enumerate(ROWS):
            ids = torch.tensor([row])
            place = position % len(row)
            run = model.run(ids)
            whole = run.logits[0, place]
            for trace in traces:
                assert trace.positions[prompt] == place
                assert float(trace.logits[prompt]) == pytest.approx(float(whole[answers[prompt]]), abs=1e-9)
                for name, values in trace_attention(run, torch.tensor([place])).items():
                    assert trace.tracings[name][prompt, : len(row)].tolist() == pytest.approx(values[0].tolist(), abs=1e-9)
                assert all(bool((values[prompt, len(row) :] == 0).all()) for values in trace.tracings.values())
                assert all(bool((values[prompt, len(row) :] == 0).all()) for values in trace.effects.values())
            for source in range(len(row)):
                ways = {"embedding": replaced(model, ids, source, None), "knockout": hidden(model, ids, source)}
                for name, logits in ways.items():
                    lost = whole - logits[place]
                    drop = whole.log_softmax(dim=-1) - logits[place].log_softmax(dim=-1)
                    for trace in traces:
                        found = [float(trace.effects[effect][prompt, source]) for effect in (name, f"{name}_logit")]
                        expected = [float(drop[answers[prompt]]), float(lost[answers[prompt]])]
                        assert found == pytest.approx(expected, abs=1e-9), (number, prompt, source, name)


def test_resampled_tokens_are_runs_of_other_prompts_and_do_not_depend_on_the_batch():
    model = random_model(random.Random(8))
    together = attention(model, RIGHT, answers=[3, 4, 5], kind="resample", draws=3, seed=7)
    apart = attention(model, RIGHT, answers=[3, 4, 5], kind="resample", draws=3, seed=7, budget=20_000)
    pool = torch.arange(model.d_vocab)
    for prompt, row in enumerate(ROWS):
        generator = torch.Generator().manual_seed(7 + prompt)
        drawn = pool[torch.randint(len(pool), (3, len(row)), generator=generator)]
        ids, answer = torch.tensor([row]), 3 + prompt
        whole = model.run(ids).logits[0, -1].log_softmax(dim=-1)[answer]
        for source in range(len(row)):
            ways = [replaced(model, ids, source, int(drawn[draw, source])) for draw in range(3)]
            mean = sum(float(whole - logits[-1].log_softmax(dim=-1)[answer]) for logits in ways) / 3
            assert float(together.effects["embedding"][prompt, source]) == pytest.approx(mean, abs=1e-9)
    for name, values in together.effects.items():
        assert float((values - apart.effects[name]).abs().max()) <= 1e-10, name


def test_laws():
    rng = random.Random(11)
    for _ in range(6):
        model = random_model(rng)
        trace = attention(model, RIGHT, position=1, patterns=True)
        tops = model.run(RIGHT).logits[torch.arange(3), 1].argmax(dim=-1)
        assert trace.answers == tuple(model.to_token_strings(tops))
        assert len(trace.patterns) == model.n_layers and trace.patterns[0].shape == (3, model.n_heads, 6, 6)
        if model.weights.causal:
            assert all(bool((values[:, 2:] == 0).all()) for values in (*trace.tracings.values(), *trace.effects.values()))
            assert all(float(trace.effects["knockout"][prompt, 1]) == 0 for prompt in range(3))
            assert trace.sources(0) == [0, 1] and trace.sources(0, effect="knockout") == [0]


def test_on_mini_ablation_finds_the_subject_and_lat_does_not():
    model = bundled.mini()
    trace = circuits.attention(model, ["The capital of Austria is", "The capital of Japan is"], answers=[" Vienna", " Tokyo"])
    assert trace.opening == (True, True) and trace.tokens[0][0] == "<|bos|>"
    subject = [row.index(name) for row, name in zip(trace.tokens, (" Austria", " Japan"), strict=True)]
    for values, place in zip(trace.effects["knockout"], subject, strict=True):
        assert float(values[place]) > 1 and place in values.topk(2).indices
    assert trace.tracings["lat"].argmax(dim=1).tolist() == [0, 0], "it rests on BOS"
    rows = {(row.tracing, row.effect): row for row in trace.disagreement()}
    assert set(rows) == {(name, effect) for name in ("lat", "rollout", "flow", "norm") for effect in ("embedding", "knockout")}
    assert rows["lat", "embedding"].spearman.effect < 0 < rows["norm", "knockout"].spearman.effect
    assert rows["lat", "knockout"].top.effect == 0 and rows["lat", "knockout"].prompts == 2
    assert "Attention is a hint, not a cause" in trace.summary
    assert 0 not in trace.sources(0, opening=False) and len(trace.to_dataframe()) == sum(map(len, trace.tokens))


def test_agreement_is_over_prompts_with_three_sources_or_more():
    noise, places = torch.Generator().manual_seed(0), (1, 2, *(3, 4) * 6)
    names = ("embedding", "embedding_logit", "knockout", "knockout_logit")
    tables = {name: torch.rand(14, 5, generator=noise, dtype=torch.float64) for name in (*TRACINGS, *names)}
    trace = AttentionTrace(
        model="made",
        weights_sha256="0",
        tokens=tuple(tuple("abcde"[: place + 1]) for place in places),
        opening=(True,) * 14,
        causal=True,
        positions=places,
        answers=("x",) * 14,
        log_probabilities=torch.zeros(14).double(),
        logits=torch.zeros(14).double(),
        tracings={name: tables[name] for name in TRACINGS},
        effects={name: tables[name] for name in names},
        kind="mean",
        seed=0,
    )
    for opening in (False, True):
        for row in trace.disagreement(opening=opening, seed=3):
            ranks, tops = [], []
            for prompt, place in enumerate(places):
                sources = list(range(int(not opening), place + int(row.effect == "embedding")))
                one, other = tables[row.tracing][prompt, sources], tables[row.effect][prompt, sources]
                if len(sources) > 2:
                    ranks.append(spearman(one, other))
                    tops.append(float(one.argmax() == other.argmax()))
            assert (row.spearman, row.top) == tuple(bootstrap(torch.tensor(values), seed=3) for values in (ranks, tops))
            assert row.prompts == len(ranks) < 14


def test_only_the_first_token_opens_a_prompt():
    mini = bundled.mini()
    bos = mini.tokenizer.bos_token_id
    assert attention(mini, torch.tensor([[bos, 50, 60], [50, bos, 60]])).opening == (True, False)


def test_what_a_user_can_get_wrong():
    model = random_model(random.Random(1))
    for options, error, words in (
        ({"position": 4}, PromptError, "prompt 1 has 3 tokens and no position 4"),
        ({"position": -4}, PromptError, "prompt 1 has 3 tokens and no position -4"),
        ({"answers": [1, 2]}, PromptError, "2 answers for 3 prompts"),
        ({"answers": [1, 2, 99]}, PromptError, "prompt 2: the answer 99 is outside the vocabulary of 13"),
        ({"draws": 0}, PromptError, "draws is 0"),
        ({"budget": 100}, MemoryBudgetError, "taking single tokens out of a prompt of 6"),
    ):
        with pytest.raises(error, match=words):
            attention(model, RIGHT, **options)
    weights = dataclasses.replace(model.weights, W_E=model.weights.W_E.clone())
    weights.W_E[9, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="the weight W_E of"):
        attention(dataclasses.replace(model, weights=weights), RIGHT)
    with pytest.raises(PromptError, match=r"is 4 tokens .* expected one"):
        attention(bundled.mini(), "The capital of France is", answers=" nothing of the kind")


def test_a_saved_trace_comes_back_and_damage_is_refused(tmp_path: Path):
    model = random_model(random.Random(5))
    trace, path = attention(model, RIGHT), tmp_path / "attention.json"
    trace.save(path)
    back = AttentionTrace.load(path)
    assert back.as_json() == trace.as_json() and back.to_dataframe().equals(trace.to_dataframe())
    assert back.summary == trace.summary
    text, rng, refused = path.read_text(), random.Random(0), 0
    for _ in range(100):
        at = rng.randrange(len(text))
        path.write_text(text[:at] + rng.choice(["", "7", '"', "]", "null", "-"]) + text[at + rng.randint(0, 40) :])
        try:
            assert AttentionTrace.load(path).summary
        except FileFormatError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 50


def test_own_positions_leave_pads_out():
    values = torch.arange(18.0).reshape(3, 6)
    assert own_positions(values, LEFT).tolist() == [[1, 2, 3, 4, 5, 0], [9, 10, 11, 0, 0, 0], [12, 13, 14, 15, 16, 17]]
