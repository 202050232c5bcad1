"""Contributions to a logit against their definition, word by word; their sums; what is refused; and the file."""

import contextlib
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError, GraphError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.lenses import DirectLogits, logits
from circuits.models import Model, TokenBatch, load_model
from circuits.tasks import induction
from tests.lenses.slow_direct import slow_rows
from tests.models import bundled, checkpoints
from tests.models.random_edits import random_batch
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights, record_of


def random_case(seed: int, dtype: torch.dtype = torch.float64):
    rng = random.Random(seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model = Model("random", "random", record_of(shape, weights, dtype), None)
    batch = random_batch(rng, D_VOCAB, LENGTH)
    answers, distractors = zip(*(rng.sample(range(D_VOCAB), 2) for _ in range(len(batch))), strict=True)
    return shape, weights, model, batch, list(answers), list(distractors)


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini(torch.float64)


@pytest.mark.parametrize("seed", range(40))
def test_every_row_and_every_source_equals_the_definition(seed: int) -> None:
    shape, weights, model, batch, answers, distractors = random_case(seed)
    against = distractors if seed % 3 else None
    whole = logits(model, batch, answers=answers, distractors=against, positions=True)
    split = logits(model, batch, answers=answers, distractors=against, neurons="all") if model.d_mlp else whole
    assert whole.capped == (shape.logit_cap is not None)
    for prompt in range(len(batch)):
        columns = batch.mask[prompt].nonzero()[:, 0].tolist()
        ids, distractor = batch.ids[prompt][columns].tolist(), distractors[prompt] if against else None
        rows, sources, total = slow_rows(shape, weights, ids, answers[prompt], distractor)
        assert float(whole.total[prompt]) == pytest.approx(total, abs=1e-9)
        for found in (whole, split):
            assert float(found.values[:, prompt].sum()) == pytest.approx(total, abs=1e-9)
            for row, value in zip(found.rows, found.values[:, prompt].tolist(), strict=True):
                assert value == pytest.approx(rows[row], abs=1e-9), row
        assert {row for row in rows if ".n" not in row} - set(whole.rows) <= {f"m{layer}.bias" for layer in range(3)}
        for head in whole.heads:
            by_source = whole.by_source(head)[prompt]
            assert by_source[columns].tolist() == pytest.approx(sources[head], abs=1e-9), head
            assert not by_source[~batch.mask[prompt]].any(), "pads are exactly 0"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt-neox", "bloom"])
def test_rows_sum_to_the_logits_of_real_families(family: str, tmp_path: Path) -> None:
    model = load_model(checkpoints.save(checkpoints.build(*checkpoints.RECIPES[family]), tmp_path), dtype=torch.float64)
    batch = TokenBatch.from_rows([[5, 9, 100, 7, 31], [8, 2, 77]])
    found = logits(model, batch, answers=[3, 4], distractors=[9, 11], neurons=2, positions=True)
    run = model.run(batch)
    ends = [run.logits[prompt, last] for prompt, last in enumerate((4, 2))]
    expected = torch.stack([ends[0][3] - ends[0][9], ends[1][4] - ends[1][11]])
    if found.capped:
        cap = model.weights.logit_soft_cap
        before = [cap * torch.atanh(end / cap) for end in ends]
        expected = torch.stack([before[0][3] - before[0][9], before[1][4] - before[1][11]])
    assert torch.allclose(found.total, expected, rtol=0, atol=1e-9 if not found.capped else 1e-6)
    assert float((found.values.sum(dim=0) - found.total).abs().max()) <= 1e-9
    heads = found.values[[found.rows.index(head) for head in found.heads]]
    assert float((found.sources.sum(dim=-1) - heads).abs().max()) <= 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_the_strongest_neurons_the_rest_and_the_bias_are_the_mlp(seed: int) -> None:
    _, _, model, batch, answers, _ = random_case(100 + seed)
    if model.d_mlp < 3:
        return
    whole, every = (logits(model, batch, answers=answers, neurons=neurons) for neurons in (None, "all"))
    some = logits(model, batch, answers=answers, neurons=2)
    for layer in range(model.n_layers):
        mlp = whole.values[whole.rows.index(f"m{layer}")]
        parts = [row for row in some.rows if row.startswith(f"m{layer}.")]
        assert [part for part in parts if ".n" in part] and (f"m{layer}.rest" in parts) == (model.d_mlp > 2)
        assert torch.allclose(sum(some.values[some.rows.index(part)] for part in parts), mlp, rtol=0, atol=1e-9)
        means = {row: abs(float(every.mean[every.rows.index(row)])) for row in every.rows if row.startswith(f"m{layer}.n")}
        assert {part for part in parts if ".n" in part} == set(sorted(means, key=lambda row: -means[row])[:2])


def test_batches_pads_and_sides_change_nothing(mini: Model) -> None:
    pairs = induction(mini, count=6, seed=0)
    whole = logits(mini, pairs, positions=True, neurons=3)
    small = logits(mini, pairs, positions=True, neurons=3, budget=3 * 2**20)
    assert whole.rows == small.rows and torch.allclose(whole.values, small.values, rtol=0, atol=1e-10)
    metric = mini.run(pairs.clean).logits[range(6), pairs.answer_columns]
    expected = (metric[range(6), pairs.answers] - metric[range(6), pairs.distractors]).double()
    assert torch.allclose(whole.total, expected, rtol=0, atol=1e-9)
    earlier = logits(mini, dataclasses.replace(pairs, answer_columns=pairs.answer_columns - 1))
    metric = mini.run(pairs.clean).logits[range(6), pairs.answer_columns - 1]
    expected = (metric[range(6), pairs.answers] - metric[range(6), pairs.distractors]).double()
    assert torch.allclose(earlier.total, expected, rtol=0, atol=1e-9), "pairs say where they are read"
    other = logits(mini, pairs, side="corrupt")
    direct = logits(mini, pairs.corrupt, answers=pairs.answers, distractors=pairs.distractors)
    assert torch.equal(other.values, direct.values) and not torch.equal(other.values, whole.values[: len(other.rows)])


def test_text_is_asked_about_the_models_own_answer(mini: Model) -> None:
    own = logits(mini, ["The capital of France is", "The capital of Japan is"])
    assert own.answers == (" Paris", " Tokyo") and own.distractors == ()
    named = logits(mini, "The capital of France is", answers=" Paris", distractors=" Rome")
    assert named.answers == (" Paris",) and named.distractors == (" Rome",)
    run = mini.run("The capital of France is").logits[0, -1]
    assert float(own.total[0]) == pytest.approx(float(run[mini.single_token(" Paris")]), abs=1e-9)
    sizes = [abs(value) for _, value in named.top(len(named.rows))]
    assert sizes == sorted(named.mean.abs().tolist(), reverse=True)
    name, value = named.top(1)[0]
    assert value == pytest.approx(float(named.mean.abs().max()) * (1 if value > 0 else -1)) and name in named.rows


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1.0)])
def test_other_formats_stay_close(dtype: torch.dtype, bound: float) -> None:
    for seed in range(12):
        _, _, exact, batch, answers, _ = random_case(seed)
        if exact.weights.final_norm is None:
            continue
        _, _, model, *_ = random_case(seed, dtype)
        slopes = exact.weights.alibi_slopes
        if slopes is not None:
            continue
        fine, coarse = (logits(one, batch, answers=answers, positions=True) for one in (exact, model))
        assert float((fine.values - coarse.values).abs().max()) <= bound * (1 + float(fine.values.abs().max()))


def test_rows_that_do_not_sum_to_the_logit_stop(monkeypatch: pytest.MonkeyPatch, mini: Model) -> None:
    from circuits.lenses.direct import attribution as direct

    real = direct.layer_contributions
    monkeypatch.setattr(
        direct, "layer_contributions", lambda run, layer, *rest, **more: real(run, max(layer, 1), *rest, **more)
    )
    with pytest.raises(AssertionError, match="miss the logit by"):
        logits(mini, "The capital of France is")


def test_a_number_that_is_none_is_named(mini: Model) -> None:
    blocks = list(mini.weights.blocks)
    W_O, z = blocks[2].attention.W_O.clone(), mini.run("The capital of France is").z[2][0, -1].flatten()
    assert float(z.abs().sum()) > 2
    W_O[:, 0] = torch.finfo(W_O.dtype).max * z.sign()  # what it writes is too large a number, in whatever order it is added
    blocks[2] = dataclasses.replace(blocks[2], attention=dataclasses.replace(blocks[2].attention, W_O=W_O))
    broken = dataclasses.replace(mini, weights=dataclasses.replace(mini.weights, blocks=tuple(blocks)))
    with pytest.raises(NonFiniteError, match="the attention of layer 2 holds NaN or infinity on prompt 0"):
        logits(broken, "The capital of France is")
    W_U = mini.weights.W_U.clone()
    W_U[0, 7] = torch.inf
    broken = dataclasses.replace(mini, weights=dataclasses.replace(mini.weights, W_U=W_U))
    with pytest.raises(NonFiniteError, match="the weight W_U"):
        logits(broken, "The capital of France is", answers=7)


REFUSED: list[tuple[dict, str]] = [
    ({"answers": "Paris?!"}, "tokens"),
    ({"answers": "Paris"}, "did you mean ' Paris'"),
    ({"answers": [" Paris", " Rome"]}, "2 answers for 1 prompts"),
    ({"answers": 4096}, "outside the vocabulary"),
    ({"answers": -1}, "outside the vocabulary"),
    ({"answers": " Paris", "distractors": " Paris"}, "must differ"),
    ({"distractors": " Paris"}, "model's own answer"),
    ({"neurons": 0}, "expected a number from 1 on"),
    ({"side": "corrupt"}, "no corrupt side"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_is_refused(options: dict, message: str, mini: Model) -> None:
    with pytest.raises(PromptError, match=message):
        logits(mini, "The capital of France is", **options)


def test_other_refusals(mini: Model) -> None:
    pairs = induction(mini, count=2, seed=0)
    with pytest.raises(PromptError, match="answers and distractors of their own"):
        logits(mini, pairs, answers=3)
    with pytest.raises(MemoryBudgetError, match="fewer prompts"):
        logits(mini, pairs, neurons="all", budget=2**10)
    kept = 8 * len(pairs) * mini.n_layers * (mini.n_heads + 1)
    logits(mini, pairs, budget=kept)
    with pytest.raises(MemoryBudgetError, match="without positions"):
        logits(mini, pairs, positions=True, budget=kept)
    _, _, bare, batch, *_ = next(case for case in map(random_case, range(50)) if not case[2].d_mlp)
    with pytest.raises(PromptError, match="no MLPs"):
        logits(bare, batch, neurons=2)
    plain = logits(mini, "The capital of France is")
    with pytest.raises(GraphError, match="positions=True"):
        plain.by_source("a0.h0")
    with pytest.raises(GraphError, match="no head 'm1'"):
        logits(mini, "The capital of France is", positions=True).by_source("m1")
    with pytest.raises(CircuitsError, match="do not fit each other"):
        dataclasses.replace(plain, rows=plain.rows[1:])


def test_tables_say_kind_and_layer_and_the_file_round_trips(mini: Model, tmp_path: Path) -> None:
    found = logits(mini, ["The capital of France is", "Paris is"], neurons=1, positions=True)
    table = found.to_dataframe().set_index("row")
    assert table.loc["a1.h3", "kind"] == "head" and table.loc["a1.h3", "layer"] == 1
    assert table.loc["m2.rest", "kind"] == "rest" and table.loc["input", "kind"] == "input"
    assert set(table["kind"]) == {"input", "head", "bias", "neuron", "rest"}
    first = found.values[found.rows.index("a1.h3")]
    assert table.loc["a1.h3", "standard_error"] == pytest.approx(float(first.std() / 2**0.5))
    sources = found.sources_dataframe()
    heard = sources[(sources["head"] == "a1.h3") & (sources["prompt"] == 0)]
    assert heard["token"].tolist() == list(found.tokens[0])
    assert heard["contribution"].sum() == pytest.approx(float(first[0]), abs=1e-9)
    found.save(tmp_path / "found.json")
    again = DirectLogits.load(tmp_path / "found.json")
    for field in dataclasses.fields(found):
        old, new = getattr(found, field.name), getattr(again, field.name)
        assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new, field.name


def test_damaged_files_are_refused(mini: Model, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    logits(mini, "The capital of France is", positions=True).save(path)
    whole, rng = json.loads(path.read_text()), random.Random(0)
    changes: list[Callable[[dict], object]] = [
        lambda data: data.pop("rows"),
        lambda data: data["rows"].pop(),
        lambda data: data["rows"].append(data["rows"][0]),
        lambda data: data.update(values=[[1.0], [2.0, 3.0]]),
        lambda data: data.update(total="x"),
        lambda data: data.update(tokens=[]),
        lambda data: data.update(tokens=3),
        lambda data: data.update(sources=[[0.0]]),
        lambda data: data.update(answers=[1]),
        lambda data: data.update(version=2),
    ]
    for change in changes:
        data = json.loads(json.dumps(whole))
        change(data)
        path.write_text(json.dumps(data))
        with pytest.raises(FileFormatError, match=r"found\.json"):
            DirectLogits.load(path)
    text = json.dumps(whole)
    for _ in range(30):
        at = rng.randrange(len(text))
        path.write_text(text[:at] + chr(rng.randrange(32, 127)) + text[at + 1 :])
        with contextlib.suppress(FileFormatError):
            assert isinstance(DirectLogits.load(path), DirectLogits)


def test_bfloat16_models_with_a_layer_norm_are_read() -> None:
    model = bundled.mini(torch.bfloat16)
    coarse, fine = (logits(one, "The capital of France is", answers=" Paris") for one in (model, bundled.mini()))
    assert abs(float(coarse.total) - float(fine.total)) < 0.1 * abs(float(fine.total))
