"""Word attributions: sums that are kept, captum's numbers, and what taking words out does."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients

import circuits
from circuits.errors import PromptError
from circuits.models import Edit, Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.layers import embed
from circuits.uses import (
    Attributing,
    Classifier,
    Recipe,
    WordAttributions,
    attribute_words,
    planted_shortcut,
    train_all,
    train_head,
)
from circuits.uses.attributing.attended import attention_weights, direct_split
from circuits.uses.attributing.faithful import faithfulness
from circuits.uses.attributing.gradients import margins, margins_of
from circuits.uses.attributing.paths import COMPLETE, _Way, integrated_gradients
from circuits.uses.classifying.words import spelt_texts

FEW = planted_shortcut(count=40, judged=20, seed=3)
TEXTS = list(FEW.held_out.texts[:3])
SHORT = ["Bad .", "A film of some worth .", "The end"]
LABELS = torch.tensor([0, 2, 1])


@pytest.fixture(scope="module")
def whole() -> Model:
    return circuits.load_model("mini")


@pytest.fixture(scope="module")
def base() -> Model:
    mini = circuits.load_model("mini", dtype=torch.float64)
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 2), make_bridge=None)


@pytest.fixture(scope="module")
def classifier(base: Model) -> Classifier:
    """With a drawn head of three classes."""
    generator = torch.Generator().manual_seed(0)
    head = {"W_U": torch.randn(256, 3, generator=generator).double(), "b_U": torch.randn(3, generator=generator).double()}
    return Classifier.on(base, ["a", "b", "c"]).with_tensors(head, tuned=False, training={})


@pytest.fixture(scope="module")
def trained(base: Model) -> Classifier:
    return train_head(base, FEW.train)


@pytest.mark.parametrize("rule, theirs", [("gauss-legendre", "gausslegendre"), ("middle", "riemann_middle")])
def test_integrated_gradients_are_captums(classifier: Classifier, rule: Any, theirs: str) -> None:
    spelt = spelt_texts(classifier, TEXTS)
    found = integrated_gradients(classifier, spelt, LABELS, rule=rule, steps=6, pieces=1, most=6)
    weights, tokenizer = classifier.model.weights, classifier.model.tokenizer
    (line_break,) = tokenizer("\n").input_ids[-1:]
    for row, one in enumerate(spelt):
        tokens = TokenBatch.from_rows([list(one.ids)])
        text = embed(weights, tokens)
        none = embed(weights, TokenBatch.from_rows([[tokenizer.bos_token_id, *[line_break] * (len(one.ids) - 1)]]))

        def margin(x: torch.Tensor, tokens: TokenBatch = tokens, row: int = row) -> torch.Tensor:
            many = TokenBatch(tokens.ids.expand(len(x), -1), tokens.mask.expand(len(x), -1))
            return margins(weights, many, LABELS[row : row + 1].expand(len(x)), x)

        slow = IntegratedGradients(margin).attribute(text, baselines=none, n_steps=6, method=theirs).sum(dim=-1)[0]
        torch.testing.assert_close(found.numbers[row, : len(one.ids)], slow, atol=1e-5, rtol=1e-5)  # its weights are float32


@pytest.mark.parametrize("baseline", ["blank", "mean", "pad"])
def test_they_sum_to_what_the_text_adds(classifier: Classifier, baseline: Any) -> None:
    spelt = spelt_texts(classifier, SHORT)
    found = integrated_gradients(classifier, spelt, LABELS, baseline=baseline, steps=8, most=128)
    assert float(found.errors.max()) < COMPLETE
    gaps = found.ends - found.starts
    assert float((found.numbers.sum(dim=1) - gaps).abs().max()) < 0.02 * float(gaps.abs().max())
    torch.testing.assert_close(found.ends, margins_of(classifier.logits(SHORT), LABELS))
    assert bool(((found.numbers.sum(dim=1) - gaps).abs() <= found.errors * gaps.abs().clamp(min=0.1) + 1e-9).all())
    rough = integrated_gradients(classifier, spelt, LABELS, baseline=baseline, steps=1, most=1)
    assert float(rough.errors.max()) > float(found.errors.max()), "more steps are nearer"


@pytest.mark.parametrize("kind, same", [("pad", True), ("blank", False)])
def test_a_blank_page_opens_where_the_text_does_not(classifier: Classifier, kind: Any, same: bool) -> None:
    """One and the same token everywhere is at every position what it is at the first: a blank page is not."""
    bare = dataclasses.replace(classifier, model=classifier.model.with_bos(False))
    spelt, weights = spelt_texts(bare, SHORT), bare.model.weights
    width = max(len(one.ids) for one in spelt)
    way = _Way(bare.model, bare.tokens(SHORT), LABELS, torch.ones(3, width, dtype=torch.bool), kind, 2**28)
    streams, whole, tokens = way.streams([(row, 0.0) for row in range(3)], width)
    torch.testing.assert_close(streams + whole, embed(weights, tokens))
    last = forward(weights, tokens, edits={("input", 0): [(None, Edit("input", streams))]}).residuals[-1]
    assert torch.allclose(last[tokens.mask], last[0, 0].expand_as(last[tokens.mask]), atol=1e-9) == same
    assert not spelt[0].owners.count(-1), "no token stays"


def test_no_budget_changes_them(classifier: Classifier) -> None:
    spelt = spelt_texts(classifier, SHORT)
    found, small = (
        integrated_gradients(
            classifier, spelt, LABELS, baseline="zero", steps=2, pieces=2, most=6, complete=1e-9, budget=budget
        )
        for budget in (2**28, 1)
    )
    torch.testing.assert_close(small.numbers, found.numbers, atol=1e-9, rtol=1e-9)
    assert small.steps == found.steps == (6, 6, 6) and small.runs == found.runs == 18


def test_ten_times_as_many_texts_take_ten_times_as_many_runs(classifier: Classifier) -> None:
    spelt = spelt_texts(classifier, TEXTS[:1])
    one = integrated_gradients(classifier, spelt, LABELS[:1], steps=2, most=6, complete=1e-9)
    ten = integrated_gradients(classifier, spelt * 10, LABELS[:1].expand(10), steps=2, most=6, complete=1e-9)
    assert ten.runs == 10 * one.runs and ten.steps == one.steps * 10


def test_gradients_go_where_the_margin_bends(classifier: Classifier) -> None:
    spelt = spelt_texts(classifier, SHORT)
    options = {"baseline": "zero", "complete": 0.02}
    halved = integrated_gradients(classifier, spelt, LABELS, steps=8, pieces=2, most=160, **options)
    even = integrated_gradients(classifier, spelt, LABELS, steps=max(halved.steps), pieces=1, most=max(halved.steps), **options)
    assert float(halved.errors.max()) <= 0.02 < float(even.errors.max())


def test_a_linear_model_is_attributed_exactly_in_one_step(classifier: Classifier) -> None:
    weights = classifier.model.weights
    nothing = {
        name: torch.zeros_like(tensor) for name, tensor in weights.tensors() if name.rpartition(".")[2] in ("W_O", "W_out")
    }
    linear = dataclasses.replace(weights.with_tensors(nothing), final_norm=None)
    own = dataclasses.replace(classifier, model=dataclasses.replace(classifier.model, weights=linear))
    spelt = spelt_texts(own, TEXTS)
    found = integrated_gradients(own, spelt, LABELS, baseline="mean", steps=1)
    parts = torch.full((3, 3), -0.5).double().fill_diagonal_(1.0)
    for row, one in enumerate(spelt):
        moved = linear.W_E[one.ids[-1]] - linear.W_E.mean(dim=0)
        exact = float(moved @ linear.W_U @ parts[LABELS[row]])
        assert float(found.numbers[row, len(one.ids) - 1]) == pytest.approx(exact, rel=1e-9)
        assert float(found.numbers[row].abs().sum()) == pytest.approx(abs(exact), rel=1e-9)
    assert set(found.steps) == {1}


def test_the_direct_split_is_exact_and_that_of_logits(classifier: Classifier, trained: Classifier) -> None:
    tokens = classifier.tokens(TEXTS)
    split = direct_split(classifier.model, tokens, LABELS)
    torch.testing.assert_close(split.margins, margins_of(classifier.logits(TEXTS), LABELS))
    torch.testing.assert_close(split.numbers.sum(dim=1) + split.rest, split.margins)
    labels = torch.tensor([0, 1, 0])
    two = direct_split(trained.model, tokens, labels)
    known = circuits.logits(trained.model, tokens, answers=labels, distractors=1 - labels, positions=True)
    assert known.sources is not None
    slow = known.sources.sum(dim=0)
    slow[torch.arange(3), tokens.last] += known.values[known.rows.index("input")]
    torch.testing.assert_close(two.numbers.masked_fill(~tokens.mask, 0.0), slow.masked_fill(~tokens.mask, 0.0))


def test_attention_is_followed_down_to_the_embeddings(classifier: Classifier) -> None:
    tokens = classifier.tokens(TEXTS)
    patterns = [layer.mean(dim=1) for layer in classifier.model.run(tokens, keep="patterns").patterns]
    eye, rows = torch.eye(tokens.ids.shape[1]).double(), torch.arange(3)
    slow = (0.5 * patterns[1] + 0.5 * eye) @ (0.5 * patterns[0] + 0.5 * eye)
    torch.testing.assert_close(attention_weights(classifier.model, tokens, rollout=True), slow[rows, tokens.last])
    mean = ((patterns[0] + patterns[1]) / 2)[rows, tokens.last]
    torch.testing.assert_close(attention_weights(classifier.model, tokens, rollout=False), mean)


def test_words_are_taken_out_and_left_alone(trained: Classifier) -> None:
    texts = ["Bad .", "Good", "A film of no worth at all ."]
    spelt, labels = spelt_texts(trained, texts), torch.tensor([0, 1, 0])
    numbers = [[2.0, 1.0], [1.0], [0.0, 5.0, 0.0, 9.0, 4.0, 0.0, 1.0, -9.0]]
    found = faithfulness(trained, spelt, numbers, labels, shares=(0.25, 0.5), draws=2, seed=1)

    def chance(text: str, label: int) -> float:
        return float(trained.logits([text]).softmax(dim=1)[0, label])

    assert float(found.whole[2]) == pytest.approx(chance(texts[2], 0))
    left = [token for token, owner in zip(spelt[2].ids, spelt[2].owners, strict=True) if owner not in (1, 3)]
    slow = trained.model.run(TokenBatch.from_rows([left])).logits[0, -1].softmax(dim=0)[0]
    assert float(found.without[0, 2]) == pytest.approx(float(slow))
    alone = [token for token, owner in zip(spelt[2].ids, spelt[2].owners, strict=True) if owner in (-1, 1, 3)]
    slow = trained.model.run(TokenBatch.from_rows([alone])).logits[0, -1].softmax(dim=0)[0]
    assert float(found.alone[0, 2]) == pytest.approx(float(slow))
    assert bool(found.without[:, 1].isnan().all()) and bool(found.without[:, 0].isfinite().all())
    falls, more = found.comprehensiveness(0)
    assert falls.effect == pytest.approx(float((found.whole - found.without[0])[[0, 2]].mean()))
    assert more.effect == pytest.approx(float((found.without_random[0] - found.without[0])[[0, 2]].mean()))
    _, less = found.sufficiency(1)
    assert less.effect == pytest.approx(float((found.alone[1] - found.alone_random[1])[[0, 2]].mean()))


@pytest.mark.parametrize("method", ["integrated", "gradient", "direct", "attention", "rollout"])
def test_every_method_gives_each_word_a_number(trained: Classifier, method: str, tmp_path: Path) -> None:
    how = Attributing(method=method, steps=8, most=64)
    found = attribute_words(trained, TEXTS, labels=FEW.held_out.labels[:3], how=how, explain="label", draws=1, shares=(0.2,))
    assert found.words == tuple(tuple(text.split()) for text in TEXTS) and found.explained == FEW.held_out.labels[:3]
    if found.worst is not None:
        sums = torch.tensor([sum(row) for row in found.numbers]).double() + found.rest
        torch.testing.assert_close(sums, found.totals, atol=0.02 * float(found.totals.abs().max()), rtol=0.01)
    assert (found.worst is None) == (method in ("gradient", "attention", "rollout")) and found.summary.endswith("words.")
    found.save(tmp_path / "words.json")
    assert WordAttributions.load(tmp_path / "words.json").numbers == found.numbers
    assert len(found.to_dataframe()) == sum(map(len, found.words))


def test_words_are_counted_without_their_punctuation(trained: Classifier) -> None:
    found = attribute_words(trained, ["Good film.", "A good, (film)"], how=Attributing(method="direct"), test=False)
    found = dataclasses.replace(found, explained=(0, 0), numbers=((1.0, 2.0), (0.0, 3.0, 6.0)))
    table = found.top_words()
    assert dict(zip(table["word"], table["mean"], strict=True)) == {"film": 4.0, "good": 2.0}


def test_words_that_count_most_decide(whole: Model) -> None:
    found = attribute_words(train_head(whole, FEW.train), FEW.held_out.texts, how=Attributing(method="direct"), draws=1)
    assert found.faithfulness is not None
    _, more = found.faithfulness.comprehensiveness(0)
    assert more.low > 0, "without these words the class is lost, not without random ones"


@pytest.mark.slow
def test_the_planted_shortcut_counts_most(whole: Model) -> None:
    planted = planted_shortcut(count=240, judged=30, seed=1)
    classifier = train_all(whole, planted.train, recipe=Recipe(epochs=2, rate=3e-4))
    for method, share in (("integrated", 0.4), ("direct", 0.8)):
        how = Attributing(method=method, most=24)
        found = attribute_words(classifier, planted.held_out.texts, how=how, test=False)
        pairs = zip(found.words, found.numbers, strict=True)
        tops = [words[max(range(len(words)), key=numbers.__getitem__)] for words, numbers in pairs]
        assert sum(word in planted.shortcut for word in tops) >= share * len(tops), method


def test_what_cannot_be_attributed_is_refused(trained: Classifier) -> None:
    for options, said in (
        ({"method": "lime"}, "method 'lime': expected one of integrated"),
        ({"baseline": "noise"}, "baseline 'noise'"),
        ({"method": "gradient", "baseline": "pad"}, "baseline 'pad'"),
        ({"steps": 0}, "0 steps"),
    ):
        with pytest.raises(PromptError, match=said):
            Attributing(**options)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="0 texts"):
        attribute_words(trained, [])
    with pytest.raises(PromptError, match="label for texts with labels"):
        attribute_words(trained, TEXTS, explain="label")
