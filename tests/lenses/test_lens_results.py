"""The logit lens on the bundled model: a fact on its way, tables, files, several prompts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import circuits
from circuits.errors import FileFormatError, PromptError
from circuits.lenses import Lens, logit_lens
from circuits.lenses.logit_lens import _groups
from circuits.models import Model, TokenBatch
from tests.lenses.test_logit_lens import random_model
from tests.models import bundled


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def test_a_fact_appears_on_the_way(mini: Model, tmp_path: Path) -> None:
    lens = circuits.logit_lens(mini, "The capital of France is", answers=" Paris", nodes=["m3"])
    assert [name for name in lens.rows if name.startswith("mid")] == ["mid0", "mid1", "mid2", "mid3"]
    assert lens.answered and lens.word(int(lens.targets[0, -1])) == " Paris"
    ranks = dict(zip(lens.rows, lens.rank[:, 0, -1].tolist(), strict=True))
    assert ranks["resid4"] == ranks["resid2"] == 0 < ranks["resid0"]
    assert float(lens.probability[lens.row("resid4"), 0, -1]) == pytest.approx(
        float(mini.run("The capital of France is").logits[0, -1].softmax(-1)[mini.single_token(" Paris")]), abs=1e-5
    )
    table = lens.to_dataframe()
    assert len(table) == 7 * 10 and not table["entropy"].isna().any()
    last = table[(table["row"] == "resid4") & (table["position"] == 6)].iloc[0]
    assert (last["top1"], last["target"], last["depth"], last["kind"]) == (" Paris", " Paris", 2, "residual")
    assert logit_lens(mini, "The capital").to_dataframe()["cross_entropy"].isna().sum() == 9, "nothing follows the last token"
    lens.save(tmp_path / "lens.json")
    again = Lens.load(tmp_path / "lens.json")
    for field in dataclasses.fields(Lens):
        one, two = getattr(lens, field.name), getattr(again, field.name)
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two, field.name


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-10],
        lambda text: text.replace('"tuned": false', '"tuned": 0'),
        lambda text: text.replace('"residual"', '"pie"'),
        lambda text: text.replace('"rows": ["resid0", ', '"rows": ['),
        lambda text: text.replace('"depths": [[', '"depths": [[0.5, '),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"words"', '"word"'),
    ],
)
def test_a_damaged_file_is_refused(mini: Model, tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "lens.json"
    logit_lens(mini, "The capital", sites="residual").save(path)
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(FileFormatError, match=r"lens\.json"):
        Lens.load(path)


def test_several_prompts_of_text_and_progress(mini: Model) -> None:
    told: list[tuple[str, int, int]] = []
    texts = ["The capital of France is", "The cat"]
    lens = logit_lens(mini, texts, answers=[" Paris", " is"], sites="residual", progress=lambda *step: told.append(step))
    one = logit_lens(mini, texts[1], answers=" is", sites="residual")
    assert (one.divergence[:, 0] - lens.divergence[:, 1, :3]).abs().max() <= 1e-4
    assert told[0] == ("reading layers", 0, 10) and told[-1] == ("reading layers", 10, 10)
    with pytest.raises(PromptError, match=r"prompt 1 .* is 7 tokens .* expected one"):
        logit_lens(mini, texts, answers=[" Paris", " Constantinople the second"])
    with pytest.raises(circuits.CircuitsError, match="there is no prompt 2"):
        lens.columns(2)
    with pytest.raises(circuits.CircuitsError, match="'mid0' was not read"):
        lens.row("mid0")


def test_tables_and_means_are_of_each_prompts_own_tokens() -> None:
    model, batch = random_model(0)
    pads = torch.zeros(3, 2, dtype=torch.long)
    padded = TokenBatch(torch.cat([pads, batch.ids], dim=1), torch.cat([pads.bool(), batch.mask], dim=1))
    lens = logit_lens(model, padded, sites="residual")
    table = lens.to_dataframe()
    for prompt, length in enumerate((5, 3, 6)):
        here = table[(table["prompt"] == prompt) & (table["row"] == "resid0")]
        assert here["position"].tolist() == list(range(length))
    for number in ("cross_entropy", "entropy", "rank"):
        means = table.groupby("row", sort=False)[number].mean()
        assert lens.mean(number).tolist() == pytest.approx([float(means[row]) for row in lens.rows])


def test_rows_come_in_the_order_of_computation() -> None:
    model, batch = random_model(0)
    lens = logit_lens(model, batch, sites=["mid0", "resid1", "resid0"], nodes=["a0.h0", "input"])
    assert lens.rows == ("resid0", "mid0", "resid1", "a0.h0", "input")


def test_a_token_that_the_model_never_predicts_follows_nothing() -> None:
    model = next(model for model, _ in map(random_model, range(50)) if model.weights.b_U is None)
    cut = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_U=model.weights.W_U[:, :7]))
    lens = logit_lens(cut, torch.tensor([[1, 9, 2]]), sites="residual")
    assert lens.followed.tolist() == [[False, True, False]] and not bool(lens.cross_entropy[:, 0, ::2].any())
    assert lens.targets[0, 0] == lens.top_ids[-1, 0, 0, 0], "the target is the model's own next token"


def test_prompts_run_together_as_far_as_the_budget_goes() -> None:
    model, batch = random_model(0)
    each = batch.ids.shape[1] * model.d_model * 8
    for size, groups in ((1, [(0, 1), (1, 2), (2, 3)]), (2, [(0, 2), (2, 3)]), (3, [(0, 3)])):
        assert _groups(model, batch, [], size * each) == groups
