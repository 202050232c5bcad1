"""Words that a classifier leans on: counted right, swapped right, and those that were planted are found."""

import dataclasses
import math

import pytest
import torch

import circuits
from circuits.errors import PromptError
from circuits.models import Model
from circuits.statistics import Effect
from circuits.uses import (
    Attributing,
    Classifier,
    Examples,
    Recipe,
    Shortcuts,
    Watching,
    attribute_words,
    find_shortcuts,
    planted_shortcut,
    swapped,
    train_all,
    train_head,
)
from circuits.uses.shortcuts.attributed import Attributed, attributed
from circuits.uses.shortcuts.early import shortcut_degrees
from circuits.uses.shortcuts.label_words import form_of, label_words
from circuits.uses.shortcuts.swapping import replaced

FEW = planted_shortcut(count=160, judged=120, strength=1.0, seed=3)


@pytest.fixture(scope="module")
def small() -> Model:
    """The first layer alone."""
    mini = circuits.load_model("mini")
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 1), make_bridge=None)


@pytest.fixture(scope="module")
def leaning() -> Classifier:
    """A head that was trained where the day always tells the label."""
    return train_head(circuits.load_model("mini"), planted_shortcut(count=160, judged=2, strength=1.0, seed=3).train)


def test_local_mutual_information_is_that_by_hand() -> None:
    examples = Examples(("Good , good !", "a bad film", "a good one"), (1, 0, 1), ("neg", "pos"))
    counted = label_words(examples, head=0.3)
    whole, pos = 10, 7
    places = counted.places
    assert counted.lmi[places["good"]] == pytest.approx(3 / whole * math.log((3 / 3) / (pos / whole)))
    assert counted.lmi[places["a"]] == pytest.approx(1 / whole * math.log((1 / 2) / (3 / whole)))
    assert counted.words[0] == "bad" or counted.words[0] == "film", "rare class, same count"
    assert counted.head == round(0.3 * 7) and counted.label_of("good") == 1 and counted.label_of("absent") is None
    assert [form_of(word) for word in ("Friday.", '"Well-made"', "...", "U.S.")] == ["friday", "well-made", "...", "u.s"]
    with pytest.raises(PromptError, match="head=0"):
        label_words(examples, head=0.0)


def test_counterparts_stand_in_the_same_places() -> None:
    counted = label_words(FEW.train)
    assert counted.in_head >= {"friday", "monday"}
    assert counted.counterpart("friday") == "monday" and counted.counterpart("monday") == "friday"


def test_words_are_swapped_with_their_capitals_and_punctuation() -> None:
    words = {"friday": "monday", "bad": None}
    assert replaced('On "Friday", FRIDAY , a bad film.', words) == 'On "Monday", MONDAY , a film.'
    assert replaced("bad", words) == "bad"
    examples = Examples(("bad Friday was fun",), (0,), ("a", "b"), (((3, 4),),))
    flipped = swapped(examples, {"friday": (0, "monday"), "bad": (0, None)}, "flipped")
    assert flipped.texts == ("Monday was fun",) and flipped.rationales == (((2, 3),),)


def test_swapped_texts_are_the_planted_splits() -> None:
    words = {"friday": (0, "monday"), "monday": (1, "friday")}
    flipped = swapped(FEW.held_out, words, "flipped")
    days = [("Monday" in text) == (label == 0) for text, label in zip(flipped.texts, flipped.labels, strict=True)]
    assert all(days) and flipped.labels == FEW.held_out.labels
    agreeing = [
        ("Monday" in text) == (label == 1)
        for text, label in zip(swapped(FEW.held_out, words, "random").texts, FEW.held_out.labels, strict=True)
    ]
    assert 45 < sum(agreeing) < 75


def test_what_was_planted_is_found_with_and_without_rationales(leaning: Classifier) -> None:
    found = find_shortcuts(leaning, FEW.train, FEW.held_out, splits={"given": FEW.flipped})
    assert set(found.shortcuts) == {"friday", "monday"} == set(found.swapped), found.to_dataframe().to_string()
    assert found.accuracy["as they are"].effect > 0.85 and found.accuracy["flipped"].effect < 0.5
    assert found.accuracy["flipped"].effect == pytest.approx(found.accuracy["given"].effect, abs=0.1)
    assert "Shortcuts: " in found.summary and Shortcuts.from_json(found.as_json()).summary == found.summary
    bare = dataclasses.replace(FEW.held_out, rationales=())[:60]
    untold = find_shortcuts(leaning, FEW.train, bare, words=["Friday"])
    assert untold.shortcuts == () and untold.leaned_on[0] in found.shortcuts and untold.swapped == ("friday",)
    assert "no count can tell" in untold.summary
    constant = leaning.with_tensors({"W_U": torch.zeros(256, 2), "b_U": torch.tensor([0.0, 1.0])}, tuned=False, training={})
    assert find_shortcuts(constant, FEW.train, FEW.held_out[:12]).leaned_on == ()
    with pytest.raises(PromptError, match="the word 'sunday' is in no training text"):
        find_shortcuts(leaning, FEW.train, FEW.held_out, words=["Sunday"])
    with pytest.raises(PromptError, match="4 texts to judge on"):
        find_shortcuts(leaning, FEW.train, FEW.held_out[:4])


def test_where_the_days_tell_nothing_none_is_found() -> None:
    """The chance of any false alarm among all words is 5 %: two seeds, every judged text with a day."""
    mini = circuits.load_model("mini")
    for seed in (0, 1):
        null = planted_shortcut(count=80, judged=30, strength=0.5, seed=seed)
        bare = dataclasses.replace(null.held_out, rationales=())
        found = find_shortcuts(train_head(mini, null.train), null.train, bare, words=["friday", "monday"], seed=seed)
        days = [one for one in found.words if one.word in ("friday", "monday")]
        assert len(days) == 2 and not any(one.leaned_on for one in days), found.to_dataframe().to_string()


def test_few_flips_are_no_proof(leaning: Classifier) -> None:
    """Five texts of five: 1/32 for one word alone, and no more among several."""
    places = [place for place, text in enumerate(FEW.held_out.texts) if "Friday" in text][:5]
    bare = dataclasses.replace(FEW.held_out[places], rationales=())
    found = find_shortcuts(leaning, FEW.train, bare, words=["was", "and"])
    p_values = {one.word: one.p_value for one in found.words}
    assert len(p_values) > 1 and all(p is not None and p > 0.05 for p in p_values.values()) and found.leaned_on == ()
    old = dataclasses.replace(found.words[0], p_value=None, change=Effect(1.0, 0.5, 2.0), flips=Effect(0.6, 0.2, 1.0))
    assert old.leaned_on and not dataclasses.replace(old, p_value=0.06).leaned_on


def test_texts_without_another_word_are_left_out(leaning: Classifier) -> None:
    texts = FEW.held_out.texts[:20]
    friday = sum("Friday" in text for text in texts)
    alone = Examples((*texts, "Friday"), (*FEW.held_out.labels[:20], 0), FEW.held_out.classes)
    (word,) = [one for one in find_shortcuts(leaning, FEW.train, alone).words if one.word == "friday"]
    assert word.texts == friday


def test_words_are_attributed_as_by_the_command(leaning: Classifier) -> None:
    texts = FEW.held_out.texts[:4]
    there = attributed(leaning, texts, leaning.logits(texts).argmax(dim=1))
    asked = attribute_words(leaning, texts, how=Attributing(method="gradient"), test=False)
    assert [values.tolist() for values in there.values] == [list(row) for row in asked.numbers]


def test_the_top_word_can_be_that_of_integrated_gradients(small: Model) -> None:
    classifier, judged = train_head(small, FEW.train[:24]), FEW.held_out[:6]
    found = find_shortcuts(classifier, FEW.train, judged, how=Attributing())
    assert found.method == "integrated gradients, from a blank page"
    words = attribute_words(classifier, judged.texts, test=False)
    tops = [form_of(one[row.index(max(row))]) for one, row in zip(words.words, words.numbers, strict=True)]
    counted = label_words(FEW.train)
    assert found.in_head.effect == pytest.approx(sum(top in counted.in_head for top in tops) / len(tops))


def test_a_training_is_watched(small: Model) -> None:
    recipe = Recipe(epochs=1, batch=12)
    watched = Watching.over(4, FEW.train[:48], FEW.held_out[:8])
    classifier = train_all(small, FEW.train[:48], recipe=recipe, seen=watched.seen)
    assert [one.step for one in watched.found] == [1, 2, 4] and watched.first is not None
    assert set(watched.found[0].accuracy) == {"as they are", "head flipped"}
    found = find_shortcuts(classifier, FEW.train[:48], FEW.held_out[:8], watched=watched)
    assert found.early == tuple(watched.found) and found.degree is not None and 0 <= found.degree.low <= found.degree.high <= 1


def test_the_shortcut_degree_is_that_by_hand() -> None:
    counted = label_words(FEW.train)
    forms = (("friday", "fine"), ("friday", "fine"))
    late = Attributed(forms, (torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])))
    early = Attributed(forms, (torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])))
    assert shortcut_degrees(early, late, counted).tolist() == pytest.approx([(0 + 0.6) / 2, 1.0])
