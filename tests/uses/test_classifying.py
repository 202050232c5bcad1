"""A classifier is the model with a head in its place: what it says, how it is trained, what its files hold and refuse."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import circuits
from circuits.errors import FileFormatError, ModelError, PromptError
from circuits.models import Model
from circuits.uses import Classifier, Examples, Recipe, planted_shortcut, read_labelled, score_classifier, train_all, train_head
from circuits.uses.classifying.classifier import features
from circuits.uses.classifying.training import PENALTIES

FEW = planted_shortcut(count=24, judged=40, seed=3)


@pytest.fixture(scope="module")
def mini() -> Model:
    return circuits.load_model("mini")


@pytest.fixture(scope="module")
def small(mini: Model) -> Model:
    """The first layer alone: trained in no time."""
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)


def short(**options: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "batch": 8, "seed": 1, **options})


def right(classifier: Classifier, examples: Examples) -> float:
    said = classifier.predict(examples.texts)
    return sum(one == examples.classes[label] for one, label in zip(said, examples.labels, strict=True)) / len(said)


def test_logits_are_those_of_the_model_with_the_head_at_each_texts_own_end(mini: Model) -> None:
    classifier = train_head(mini, FEW.train)
    texts = [FEW.held_out.texts[0], "Bad .", "We saw it on Friday ."]
    alone = torch.cat([mini.run(text).residuals[-1][:, -1] for text in texts])
    norm, head = mini.weights.final_norm, classifier.model.weights
    assert norm is not None and head.b_U is not None
    slow = torch.nn.functional.layer_norm(alone, alone.shape[-1:], norm.weight, norm.bias, norm.eps) @ head.W_U + head.b_U
    torch.testing.assert_close(classifier.logits(texts), slow, atol=2e-4, rtol=1e-4)
    assert classifier.predict(texts) == tuple(classifier.classes[place] for place in slow.argmax(dim=1).tolist())
    torch.testing.assert_close(classifier.logits(texts, budget=1), slow, atol=2e-4, rtol=1e-4)


def test_a_head_is_scikit_learns_logistic_regression(mini: Model) -> None:
    classifier = train_head(mini, FEW.train, seed=5)
    x = features(mini, classifier.rows(FEW.train.texts)).double()
    scaled = ((x - x.mean(dim=0)) / x.std(dim=0, correction=0)).numpy()
    penalty = classifier.training["penalty"]
    assert penalty in PENALTIES
    # Two columns of weights share the penalty of their one difference: each counts half of it.
    theirs = LogisticRegression(C=2 / (penalty * len(x)), tol=1e-8, max_iter=5000).fit(scaled, FEW.train.labels)
    logits = classifier.logits(FEW.train.texts).double()
    gaps = torch.tensor(theirs.decision_function(scaled))
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], gaps, atol=0.03 * float(gaps.abs().mean()), rtol=0)


def test_all_weights_are_trained_and_the_base_is_left_as_it_was(small: Model) -> None:
    before = small.weights.fingerprint()
    classifier = train_all(small, FEW.train, recipe=short())
    assert small.weights.fingerprint() == before == classifier.base_sha256
    old, new = dict(small.weights.tensors()), dict(classifier.model.weights.tensors())
    computed = [name for name in new if name.endswith("inverse_frequencies")]
    same = [name for name in new if name in old and old[name].shape == new[name].shape and torch.equal(old[name], new[name])]
    assert same == computed and classifier.tuned
    head = train_all(small, FEW.train, recipe=short(), only="head")
    kept = dict(head.model.weights.tensors())
    assert all(torch.equal(kept[name], old[name]) for name in old if name not in ("W_U", "b_U")) and not head.tuned


def test_the_planted_shortcut_is_learnt(mini: Model) -> None:
    planted = planted_shortcut(count=240, judged=80, seed=1)
    classifier = train_head(mini, planted.train)
    scores = {name: right(classifier, split) for name, split in planted.splits.items()}
    assert scores["held out"] > 0.8 and scores["flipped"] < 0.6 < scores["random"] + 0.1


def test_planted_texts_are_what_they_are_said_to_be() -> None:
    planted = planted_shortcut(count=100, judged=50, strength=0.9, seed=4)
    own = [
        f"{planted.shortcut[label]} ." in text for text, label in zip(planted.train.texts, planted.train.labels, strict=True)
    ]
    assert 0.8 < sum(own) / 100 < 1
    flipped = zip(planted.flipped.texts, planted.flipped.labels, strict=True)
    assert not any(f"{planted.shortcut[label]} ." in text for text, label in flipped)
    pairs = zip(planted.held_out.texts, planted.contrast.texts, strict=True)
    changed = [sum(a != b for a, b in zip(one.split(), other.split(), strict=True)) for one, other in pairs]
    assert set(changed) == {3} and all(
        a == 1 - b for a, b in zip(planted.held_out.labels, planted.contrast.labels, strict=True)
    )
    assert planted_shortcut(count=100, seed=4).train == planted_shortcut(count=100, seed=4).train


@pytest.mark.parametrize("tuned", [False, True])
def test_a_classifier_comes_back_from_its_file_on_its_base_alone(
    small: Model, mini: Model, tuned: bool, tmp_path: Path
) -> None:
    classifier = train_all(small, FEW.train, recipe=short(), only="all" if tuned else "head")
    classifier.save(tmp_path / "classifier.safetensors")
    again = Classifier.load(tmp_path / "classifier.safetensors", small)
    texts = FEW.held_out.texts[:5]
    torch.testing.assert_close(again.logits(texts), classifier.logits(texts), atol=1e-5, rtol=0)  # laid out otherwise
    assert (again.classes, again.tuned, again.training) == (classifier.classes, tuned, classifier.training)
    with pytest.raises(ModelError, match=r"is a classifier on .* name the model that it was trained on"):
        Classifier.load(tmp_path / "classifier.safetensors", mini)
    with pytest.raises(FileFormatError, match="missing"):
        Classifier.load(tmp_path / "missing.safetensors", small)


class StoppedError(Exception):
    pass


def test_a_training_that_was_stopped_ends_where_it_would_have_ended(
    small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuits.runs.runner._SECONDS", 0.0)  # kept after every step
    monkeypatch.setattr("circuits.runs.runner._SHARE", 0)
    whole = train_all(small, FEW.train, recipe=short(epochs=2))

    def stop(step: int, _: Classifier) -> None:
        if step == 4:
            raise StoppedError

    state = tmp_path / "training.safetensors"
    with pytest.raises(StoppedError):
        train_all(small, FEW.train, recipe=short(epochs=2), path=state, seen=stop)
    with pytest.raises(FileFormatError, match="is of another run \\(epochs is 2 there"):
        train_all(small, FEW.train, recipe=short(epochs=3), path=state)
    steps: list[int] = []
    again = train_all(small, FEW.train, recipe=short(epochs=2), path=state, seen=lambda step, _: steps.append(step))
    assert steps == [4, 5, 6] and not list(tmp_path.iterdir())
    for (name, one), (_, other) in zip(whole.model.weights.tensors(), again.model.weights.tensors(), strict=True):
        assert torch.equal(one, other), name


def test_labelled_texts_are_read_from_every_layout(tmp_path: Path) -> None:
    lines = [
        {"text": "a good film", "label": "pos", "rationale": [[1, 2]]},
        {"text": "a bad  film<br />indeed", "label": "neg"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "a.json").write_text(json.dumps(lines))
    (tmp_path / "a.csv").write_text("Text,Label,rationale\na good film,pos,1-2\na bad film indeed,neg,\n")
    (tmp_path / "a.tsv").write_text("Sentiment\tText\trationale\npos\ta good film\t[[1, 2]]\nneg\ta bad film indeed\t\n")
    expected = Examples(("a good film", "a bad film indeed"), (1, 0), ("neg", "pos"), (((1, 2),), None))
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv"):
        assert read_labelled(tmp_path / name) == expected, name
    expected.save(tmp_path / "again.jsonl")
    assert read_labelled(tmp_path / "again.jsonl") == expected
    (tmp_path / "numbers.csv").write_text("label,sentence\n10,x\n9,y\n")
    assert read_labelled(tmp_path / "numbers.csv").classes == ("9", "10")
    named = read_labelled(tmp_path / "numbers.csv", rename={"9": "low", "10": "high"})
    assert named.classes == ("high", "low") and [named.classes[label] for label in named.labels] == ["high", "low"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("text,label\na,x\nb,x\n", "all 2 texts have the label"),
        ("text,other\na,x\n", "no columns of texts and labels"),
        ("text,label\na,x\n<br>,y\n", "the text is empty"),
        (
            'text,label,rationale\na b,x,1-3\nc,y,""\n',
            r"row 0 \(line 2\): the rationale \[1, 3\) lies beyond the text's 2 words",
        ),
        ("text,label,rationale\na b,x,one\nc,y,\n", "expected spans of words"),
        ("text,label\na,x\nb,\n", "expected a label"),
    ],
)
def test_bad_files_are_refused_with_the_row(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(FileFormatError, match=said):
        read_labelled(tmp_path / "bad.csv")


def test_what_cannot_be_trained_is_refused(mini: Model) -> None:
    with pytest.raises(PromptError, match="0 texts of the class positive"):
        train_head(mini, dataclasses.replace(FEW.train, labels=(0,) * 24))
    with pytest.raises(PromptError, match="epochs is 0"):
        Recipe(epochs=0)
    with pytest.raises(PromptError, match="is none of"):
        FEW.train.labelled(("cold", "warm"))
    with pytest.raises(PromptError, match="lies beyond"):
        dataclasses.replace(FEW.train, rationales=(((0, 99),),) * 24)


def test_scores_are_counted_beside_the_majority_and_words_alone(mini: Model) -> None:
    classifier = train_head(mini, FEW.train)
    one_sided = FEW.held_out[[place for place, label in enumerate(FEW.held_out.labels) if label == 1]]
    found = score_classifier(classifier, FEW.train, {"held out": FEW.held_out, "positive": one_sided})
    assert float(found.accuracy[0]) == pytest.approx(right(classifier, FEW.held_out))
    assert float(found.recalls[0].mean()) == pytest.approx(float(found.accuracy[0]), abs=1e-9), "as many of each class"
    assert float(found.recalls[0, 1]) == pytest.approx(float(found.accuracy[1])) and float(found.recalls[1, 0]) == 0
    assert found.majority.tolist() == [0.5, 0.0] and found.texts.tolist() == [40, 20]
    chances = classifier.logits(one_sided.texts).double().log_softmax(dim=1)[:, 1]
    assert float(found.loss[1]) == pytest.approx(-float(chances.mean()), abs=1e-6)
    assert bool((found.low <= found.accuracy).all()) and bool((found.accuracy <= found.high).all())
    other = dataclasses.replace(FEW.held_out, classes=("cold", "warm"))
    with pytest.raises(PromptError, match="is none of negative, positive"):
        score_classifier(classifier, FEW.train, {"other": other})
