"""The tuned lens: trained by the gradient that it says, better on text it has not seen, refused."""

import dataclasses
import json
import math
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits.errors import FileFormatError, GraphError, MemoryBudgetError, PromptError
from circuits.lenses import LensComparison, TunedLens, compare_lenses, logit_lens, train_tuned_lens
from circuits.lenses.training import _drawn, _gradients, _State
from circuits.lenses.tuned_lens import unembedding_sha256
from circuits.models import Model, TokenBatch
from circuits.models.layers import unembed
from circuits.tasks.sources.corpus import written_text
from tests.models import bundled
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB, random_shape, random_weights, record_of


def random_model(seed: int) -> tuple[Model, TokenBatch]:
    """A model of any kind, and prompts of unequal length."""
    rng = random.Random(seed)
    shape = random_shape(rng)
    model = Model("random", "random", record_of(shape, random_weights(shape, rng)), None)
    return model, TokenBatch.from_rows([[rng.randrange(D_VOCAB) for _ in range(length)] for length in (5, 3, 6, 4)])


def random_lens(model: Model) -> TunedLens:
    """Translators away from the identity."""
    noise, start = torch.Generator().manual_seed(0), TunedLens.identity(model)
    A, b = (0.1 * torch.randn(part.shape, generator=noise, dtype=part.dtype) for part in (start.A, start.b))
    return dataclasses.replace(start, A=A, b=b)


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


@pytest.mark.parametrize("seed", range(6))
def test_the_identity_is_the_logit_lens(seed: int) -> None:
    model, batch = random_model(seed)
    plain, tuned = logit_lens(model, batch, sites="residual"), logit_lens(model, batch, tuned=TunedLens.identity(model))
    assert plain.rows == tuned.rows and tuned.tuned and not plain.tuned
    assert (plain.divergence - tuned.divergence).abs().max() <= 1e-10
    assert torch.equal(plain.top_ids, tuned.top_ids)


@pytest.mark.parametrize("seed", range(6))
def test_it_reads_translated_streams_and_the_last_one_as_it_is(seed: int) -> None:
    model, batch = random_model(seed)
    lens, run = random_lens(model), model.run(batch)
    found = logit_lens(model, batch, tuned=lens, top=1)
    for layer in range(model.n_layers + 1):
        x = run.residuals[layer]
        x = x if layer == model.n_layers else x + x @ lens.A[layer] + lens.b[layer]
        own, last = (unembed(model.weights, stream).log_softmax(-1) for stream in (x, run.residuals[-1]))
        expected = (last.exp() * (last - own)).sum(dim=-1) * batch.mask
        assert (found.divergence[layer] - expected).abs().max() <= 1e-10


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget", [2**28, 6 * 8 * D_VOCAB * 4])
def test_the_gradient_is_that_of_one_backward_pass_over_all_layers(seed: int, budget: int) -> None:
    model, batch = random_model(seed)
    lens = random_lens(model)
    losses, gradients = _gradients(model, batch, _State(lens, {}), budget)
    A, b = lens.A.clone().requires_grad_(), lens.b.clone().requires_grad_()
    run = model.run(batch)
    last = run.logits.log_softmax(-1)
    expected = []
    for layer in range(model.n_layers):
        x = run.residuals[layer]
        own = unembed(model.weights, x + x @ A[layer] + b[layer]).log_softmax(-1)
        expected.append((last.exp() * (last - own)).sum(dim=-1)[batch.mask].mean())
    torch.stack(expected).sum().backward()
    assert (losses - torch.stack(expected)).abs().max() <= 1e-10
    assert A.grad is not None and b.grad is not None
    assert (gradients["A"] - A.grad).abs().max() <= 1e-10 and (gradients["b"] - b.grad).abs().max() <= 1e-10


def test_every_prompt_comes_once_before_any_comes_again() -> None:
    drawn = torch.cat([_drawn(7, 3, step, seed=4) for step in range(14)])
    assert all(sorted(turn.tolist()) == list(range(7)) for turn in drawn.split(7))
    assert not torch.equal(drawn[:7], drawn[7:14]) and not torch.equal(drawn[:3], _drawn(7, 3, 0, seed=5))
    assert len(_drawn(2, 3, 0, seed=0)) == 2


def test_it_is_nearer_to_the_output_at_every_layer_on_text_it_has_not_seen(mini: Model) -> None:
    train, held = written_text(mini, count=24, length=24, seed=0), written_text(mini, count=12, length=24, seed=1)
    tuned = train_tuned_lens(mini, train, steps=16, batch=4, rate=1e-3)
    found = compare_lenses(mini, held, tuned)
    assert bool((found.by_layer("tuned")[0] < found.by_layer("logit")[0]).all())
    gain, error = found.by_layer("gain")
    assert bool((gain > 2 * error).all()), "by more than chance"
    lens = logit_lens(mini, held, sites="residual")
    bits = lens.divergence.sum(dim=-1)[:-1] / 24 / torch.tensor(2.0).log().double()
    assert (found.logit - bits).abs().max() <= 1e-4


def train(model: Model, tokens: TokenBatch, **options) -> TunedLens:
    return train_tuned_lens(model, tokens, **{"steps": 7, "batch": 3, "seed": 5, **options})


def test_its_steps_are_those_of_adam_with_a_rate_that_falls_to_nothing() -> None:
    model, batch = random_model(5)
    found = train(model, batch, rate=0.02)
    start = TunedLens.identity(model)
    parts = {"A": start.A.clone().requires_grad_(), "b": start.b.clone().requires_grad_()}
    adam = torch.optim.Adam(parts.values(), lr=0.02)
    slower = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / 7)
    for step in range(7):
        lens = dataclasses.replace(start, **{name: part.detach() for name, part in parts.items()})
        _, gradients = _gradients(model, batch[_drawn(4, 3, step, seed=5)], _State(lens, {}), 2**28)
        for name, part in parts.items():
            part.grad = gradients[name]
        adam.step()
        slower.step()
    assert (found.A - parts["A"]).abs().max() <= 1e-10 and (found.b - parts["b"]).abs().max() <= 1e-10


def test_the_hash_does_not_depend_on_a_longer_number_format() -> None:
    weights = Model.from_bridge(native_bridge(0, dtype=torch.float32)).weights
    longer = dataclasses.replace(weights, W_U=weights.W_U.double())
    models = [Model("m", "m", one, None) for one in (weights, longer)]
    assert unembedding_sha256(models[0]) == unembedding_sha256(models[1])
    norm = weights.final_norm
    assert norm is not None
    changes: list[dict] = [{"W_U": -weights.W_U}, {"b_U": weights.W_U[0]}, {"logit_soft_cap": 30.0}]
    changes += [{"final_norm": None}, {"final_norm": dataclasses.replace(norm, eps=0.5)}]
    for change in changes:
        changed = dataclasses.replace(weights, **change)
        assert unembedding_sha256(models[0]) != unembedding_sha256(Model("m", "m", changed, None)), change


def test_files_give_back_what_was_saved_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    model, batch = random_model(2)
    path, bad = tmp_path / "tuned.safetensors", tmp_path / "bad.safetensors"
    lens = train(model, batch)
    lens.save(path)
    again = TunedLens.load(path, model)
    for name in ("A", "b", "losses"):
        assert torch.equal(getattr(again, name), getattr(lens, name))
    assert dict(again.training) == dict(lens.training)
    content = path.read_bytes()
    for cut in range(0, len(content), 37):
        bad.write_bytes(content[:cut])
        with pytest.raises(FileFormatError, match=r"bad\.safetensors"):
            TunedLens.load(bad)
    tensors = load_file(path)
    about = {"version": 1, "model": "m", "sha256": "0", "training": {}}
    wrong = [
        ({**tensors, "A": tensors["A"][:, :2].contiguous()}, about),
        ({**tensors, "b": tensors["b"] * torch.nan}, about),
        ({**tensors, "b": tensors["b"].long()}, about),
        ({"A": tensors["A"], "b": tensors["b"]}, about),
        (tensors, {**about, "version": 2}),
        (tensors, {**about, "model": 3}),
        (tensors, [1]),
        (tensors, None),
    ]
    for parts, metadata in wrong:
        save_file(parts, bad, metadata=None if metadata is None else {TunedLens.FORMAT: json.dumps(metadata)})
        with pytest.raises(FileFormatError, match=r"bad\.safetensors"):
            TunedLens.load(bad)
    with pytest.raises(FileFormatError, match="No such file"):
        TunedLens.load(tmp_path / "nowhere.safetensors")
    bad.write_bytes(content[:50])
    with pytest.raises(FileFormatError, match=r"bad\.safetensors"):
        train(model, batch, path=bad)
    assert bad.read_bytes() == content[:50], "what is not a training is not overwritten"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"steps": 0}, PromptError, "steps is 0"),
        ({"batch": 0}, PromptError, "batch is 0"),
        ({"rate": float("nan")}, PromptError, "rate is nan"),
        ({"budget": 100}, MemoryBudgetError, "budget is 100"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict, error: type[Exception], words: str) -> None:
    model, batch = random_model(2)
    with pytest.raises(error, match=words):
        train(model, batch, **options)


def test_a_tuned_lens_has_no_rows_between_sublayers() -> None:
    model, batch = random_model(2)
    with pytest.raises(GraphError, match="leave out the mid rows"):
        logit_lens(model, batch, sites="middle", tuned=TunedLens.identity(model))


def test_a_comparison_is_kept_and_says_how_sure_it_is(tmp_path: Path) -> None:
    model, batch = random_model(1)
    found = compare_lenses(model, batch, train(model, batch, steps=40, rate=0.03))
    assert found.tokens == int(batch.mask.sum()) and found.logit.shape == (model.n_layers, 4)
    table = found.to_dataframe()
    assert table["gain_bits"].tolist() == pytest.approx((table["logit_bits"] - table["tuned_bits"]).tolist())
    assert table["logit_error"].iloc[0] == pytest.approx(float(found.logit[0].std()) / 2)
    found.save(tmp_path / "comparison.json")
    again = LensComparison.load(tmp_path / "comparison.json")
    assert torch.equal(again.tuned, found.tuned) and again.tokens == found.tokens
    (tmp_path / "comparison.json").write_text('{"format": "circuits-lens-comparison", "version": 1, "model": "m"}')
    with pytest.raises(FileFormatError, match=r"comparison\.json"):
        LensComparison.load(tmp_path / "comparison.json")
    with pytest.raises(PromptError, match="two or more"):
        compare_lenses(model, batch[[0]], TunedLens.identity(model))


@pytest.mark.parametrize("seed", range(4))
def test_a_comparison_is_in_bits_and_over_each_prompts_own_tokens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = random_model(seed)
    lens = random_lens(model)
    monkeypatch.setattr("circuits.lenses.comparison._TOKENS", 12)  # two prompts at a time
    found = compare_lenses(model, batch, lens)
    for values, tuned in ((found.logit, None), (found.tuned, lens)):
        read = logit_lens(model, batch, sites="residual", tuned=tuned).divergence[:-1]
        assert (values - read.sum(dim=-1) / batch.mask.sum(dim=-1) / math.log(2)).abs().max() <= 1e-10
