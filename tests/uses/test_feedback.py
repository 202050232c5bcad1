"""Feedback reaches the texts it is about, belongs to one classifier, and changes what that one goes by."""

import dataclasses
import json
from pathlib import Path

import pytest

import circuits
from circuits.errors import FileFormatError, ModelError, PromptError
from circuits.models import Model
from circuits.uses import (
    Classifier,
    Examples,
    Feedback,
    FeedbackEffects,
    FeedbackItem,
    Recipe,
    Regularisation,
    apply_feedback,
    planted_shortcut,
    proposed,
    train_all,
)

FEW = planted_shortcut(count=32, judged=16, strength=1.0, seed=3)


@pytest.fixture(scope="module")
def small() -> Model:
    """The first layer alone."""
    mini = circuits.load_model("mini")
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)


@pytest.fixture(scope="module")
def classifier(small: Model) -> Classifier:
    return train_all(small, FEW.train, recipe=Recipe(epochs=1, batch=16))


def test_what_is_said_reaches_its_words_the_nearer_before_the_wider() -> None:
    texts = Examples(("We saw it on Friday .", "Fine Friday  , fine !", "A bad film ."), (0, 1, 0), ("a", "b"))
    items = (
        FeedbackItem("Friday", True, "Fine Friday , fine !"),
        FeedbackItem("friday", False),
        FeedbackItem("fine", True),
        FeedbackItem("bad", True, "We saw it on Friday ."),
        FeedbackItem("sunday", False),
    )
    wishes, unused = Feedback("0" * 64, items).wishes(texts)
    assert wishes == [{4: False}, {0: True, 1: True, 3: True}, {}]
    assert {item.word for item in unused} == {"bad", "sunday"}
    with pytest.raises(PromptError, match="none of 3 texts holds what the feedback is about \\('sunday'\\)"):
        Feedback("0" * 64, items[-1:]).wishes(texts)


def test_feedback_comes_back_from_its_file_for_its_classifier_alone(
    classifier: Classifier, small: Model, tmp_path: Path
) -> None:
    given = Feedback(classifier.model.fingerprint, (FeedbackItem("friday", False), FeedbackItem("fine", True, "It was fine .")))
    given.save(tmp_path / "feedback.json")
    assert Feedback.load(tmp_path / "feedback.json", classifier) == given
    with pytest.raises(ModelError, match="is feedback for another classifier"):
        Feedback.load(tmp_path / "feedback.json", Classifier.on(small, ["a", "b"]))
    plain = json.loads((tmp_path / "feedback.json").read_text())
    for items, said in (
        ([], "no feedback in it"),
        ([{"word": "a b", "matters": True}], "item 0: the word is 'a b'; expected one word"),
        ([{"word": "a"}], "item 0 is .* expected"),
        ([{"word": "a", "matters": 1}], "item 0 is .* expected"),
        ([{"word": "a", "matters": True, "when": "now"}], "item 0 is .* expected"),
        (None, "no feedback: expected"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**plain, "items": items}))
        with pytest.raises(FileFormatError, match=said):
            Feedback.load(tmp_path / "bad.json", classifier)


def test_feedback_trains_anew_and_says_what_changed(classifier: Classifier, small: Model) -> None:
    first = proposed(classifier, FEW.train, most=2, head=0.1)
    assert 1 <= len(first.items) <= 2 and not any(item.matters for item in first.items)
    marked = {
        word
        for text, spans in zip(FEW.train.texts, FEW.train.rationales, strict=True)
        for s, _ in spans or ()
        for word in [text.split()[s]]
    }
    assert not {item.word for item in first.items} & marked
    given = dataclasses.replace(
        first, items=(FeedbackItem("friday", False), FeedbackItem("monday", False), FeedbackItem("x", True))
    )
    how, recipe = Regularisation(strength=100.0), Recipe(epochs=4, batch=16, rate=1e-3)
    found, again = apply_feedback(small, classifier, FEW.train, FEW.splits, given, how=how, recipe=recipe)
    assert found.before_sha256 == classifier.model.fingerprint != found.after_sha256 == again.model.fingerprint
    assert found.unused == ("x",) and found.told == 32 and found.items == 3 and found.splits[0] == "held out"
    assert {one.word for one in found.words} == {"friday", "monday"} and all(one.texts == 8 for one in found.words)
    assert again.tuned and FeedbackEffects.from_json(found.as_json()).summary == found.summary
    before, after = classifier.predict(FEW.held_out.texts), again.predict(FEW.held_out.texts)
    assert (
        found.changed[0] == sum(a != b for a, b in zip(before, after, strict=True)) >= len(found.texts) or found.changed[0] > 8
    )
    with pytest.raises(ModelError, match="another classifier"):
        apply_feedback(small, again, FEW.train, FEW.splits, given)
