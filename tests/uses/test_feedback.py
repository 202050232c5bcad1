"""Feedback reaches the texts it is about, belongs to one classifier, and changes what that one goes by."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

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
    train_head,
    wishes_of,
)
from circuits.uses.feedback.again import Again, control_of
from circuits.uses.shortcuts.early import accuracy_of, hits

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
    assert plain.pop("version") == 1
    (tmp_path / "old.json").write_text(json.dumps(plain))
    assert Feedback.load(tmp_path / "old.json", classifier) == given
    (tmp_path / "new.json").write_text(json.dumps({**plain, "version": 2}))
    with pytest.raises(FileFormatError, match="feedback of version 2; expected 1"):
        Feedback.load(tmp_path / "new.json", classifier)
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
    how, recipe = Regularisation(rationale="gradient", strength=100.0), Recipe(epochs=6, batch=16, rate=1e-3)
    found, again = apply_feedback(small, classifier, FEW.train, FEW.splits, given, how=how, recipe=recipe)
    assert found.before_sha256 == classifier.model.fingerprint != found.after_sha256 == again.model.fingerprint
    assert found.unused == ("x",) and found.told == 32 and found.items == 3 and found.splits[0] == "held out"
    assert {one.word for one in found.words} == {"friday", "monday"} and all(one.texts == 8 for one in found.words)
    assert again.tuned and FeedbackEffects.from_json(found.as_json()).summary == found.summary
    before, after = classifier.predict(FEW.held_out.texts), again.predict(FEW.held_out.texts)
    assert found.changed[0] == sum(a != b for a, b in zip(before, after, strict=True))
    assert len(found.texts) == min(8, found.changed[0]) == len(found.predictions)
    # The recipe is not the classifier's own: what it changes by itself is the control's.
    free = train_all(small, FEW.train, recipe=recipe)
    gaps = torch.tensor([hits(again, FEW.flipped).tolist(), hits(free, FEW.flipped).tolist()]).double()
    assert found.control[2].effect == accuracy_of(free, FEW.flipped).effect
    assert found.over_control[2].effect == pytest.approx(float((gaps[0] - gaps[1]).mean()))
    with pytest.raises(ModelError, match="another classifier"):
        apply_feedback(small, again, FEW.train, FEW.splits, given)
    with pytest.raises(PromptError, match="was trained on other texts than these 31"):
        apply_feedback(small, classifier, FEW.train[:31], FEW.splits, given)


def test_feedback_takes_a_word_out_of_what_a_fitted_head_goes_by() -> None:
    mini, planted = circuits.load_model("mini"), planted_shortcut(count=60, judged=12, strength=1.0, seed=3)
    head = train_head(mini, planted.train, seed=5)
    given = Feedback(head.model.fingerprint, (FeedbackItem("friday", False), FeedbackItem("monday", False)))
    found, again = apply_feedback(mini, head, planted.train, planted.splits, given)
    assert found.trained.startswith("a head, fitted as it was (seed 5)") and not again.tuned
    assert min(one.change.high for one in found.words) < 0, found.words
    flipped = found.splits.index("flipped")
    assert found.over_control[flipped] == found.gains[flipped], "the control is that head"
    for options in ({"recipe": Recipe()}, {"how": Regularisation(rationale="attention")}):
        with pytest.raises(PromptError, match="is a head that was fitted"):
            apply_feedback(mini, head, planted.train, planted.splits, given, **options)


def test_a_classifier_is_trained_again_by_its_own_recipe(classifier: Classifier, small: Model) -> None:
    own = Again.of(classifier)
    assert own.recipe == Recipe(epochs=1, batch=16) and own.tuned and own.summary.startswith("all weights, 1 epochs")
    free = dataclasses.replace(own, how=Regularisation(strength=0.0)).train(small, FEW.train, wishes_of(FEW.train))
    assert free.model.fingerprint == classifier.model.fingerprint
    assert control_of(classifier, own, small, FEW.train, []) is classifier
    head = train_all(small, FEW.train, recipe=Recipe(epochs=1, rate=0.5), only="head")
    assert Again.of(head).recipe == Recipe(epochs=1, rate=0.5) and not Again.of(head).tuned
