"""Pointers from pronouns: brackets of mentions, a planted antecedent, and the sentences that are made."""

import dataclasses
import random

import pytest
import torch

from circuits.errors import CircuitsError, PromptError
from circuits.probes import probe_coreference
from circuits.probes.coreference.mentions import (
    NO_ANTECEDENT,
    NO_TOKEN,
    ONE_CANDIDATE,
    Mention,
    Referring,
    head_of,
    mentions,
    passages,
    referring,
)
from circuits.probes.coreference.pointing import Choices, fit_pointer
from circuits.probes.reading import WordText
from circuits.tasks import Sentence, Word, coreference_sentences
from tests.probes.spoken import previous_model, sentence_of


def bracketed(*values: str) -> Sentence:
    """A sentence of one word a value of `Entity=`; each hangs on the word before it."""
    words, at = [], 0
    for place, value in enumerate(values):
        misc = f"SpaceAfter=No|Entity={value}" if value else "_"
        words.append(Word("ab", at, at + 2, "NOUN", place - 1 if place else None, "dep", misc=misc))
        at += 3
    return Sentence(" ".join("ab" for _ in values), tuple(words))


def test_brackets_of_mentions_as_corefud_has_them() -> None:
    sentence = bracketed("(e1-person-1-giv(e2-place)", "", "e1)(e3", "(e2-place-)", "e3)(e4[1/2]-x", "e4[1/2])e9)", "(e7-open")
    found = [("e2", 0, 0), ("e1", 0, 2), ("e2", 3, 3), ("e3", 2, 4), ("e4", 4, 5)]
    assert mentions(sentence) == [Mention(*one) for one in found]
    assert head_of(sentence, Mention("e1", 1, 2)) == 1, "the word whose head is outside"


def test_passages_keep_places_and_stay_within_documents() -> None:
    made = [dataclasses.replace(bracketed("(e1)", ""), name=name) for name in ("d-1", "d-2", "d-3", "f-1", "", "")]
    found = passages(made, 4)
    assert [len(one.words) for one in found] == [4, 2, 2, 2, 2]
    assert found[0].text == "ab ab ab ab" and [word.head for word in found[0].words] == [None, 0, None, 2]
    assert all(found[0].text[word.start : word.end] == word.form for word in found[0].words)


def echoed(count: int) -> list[Sentence]:
    """Four nouns, one of them once more as a verb, then a pronoun that means this noun: what it means is told by the word
    before it alone."""
    draw, found = random.Random(0), []
    for _ in range(count):
        nouns = draw.sample(range(1, 8), 4)
        meant = draw.randrange(4)
        plain = sentence_of([*nouns, nouns[meant], 8], ["NOUN"] * 4 + ["VERB", "PRON"])
        miscs = [f"Entity=(e{place})" for place in range(4)] + ["_", f"Entity=(e{meant})"]
        words = tuple(dataclasses.replace(word, misc=misc) for word, misc in zip(plain.words, miscs, strict=True))
        found.append(dataclasses.replace(plain, words=words))
    return found


def test_a_planted_antecedent_is_pointed_to_from_the_layer_on_that_knows_it() -> None:
    found = probe_coreference(previous_model(), echoed(120), rank=8, epochs=60, seeds=1)
    accuracy = dict(zip(found.sites, found.accuracy.tolist(), strict=True))
    assert max(accuracy["resid0"], accuracy["resid1"]) < 0.6 and accuracy["resid2"] >= 0.95
    assert found.baselines["chance"] == pytest.approx((0.25, 0.0)) and found.baselines["nearest noun"][0] < 0.6
    assert len(found.random) == 4 and found.judged == 24 and found.candidates == 4 and "nearest noun" in found.summary


def test_made_sentences_have_one_antecedent_that_agrees() -> None:
    made = coreference_sentences(60)
    assert made == coreference_sentences(60) != coreference_sentences(60, seed=1)
    for sentence in made:
        assert all(sentence.text[word.start : word.end] == word.form for word in sentence.words)
        assert sum(word.head is None for word in sentence.words) == 1
        own = mentions(sentence)
        pronoun = next(word.form for word in sentence.words if word.form in ("she", "he", "they"))
        assert len(own) == 3 and len({one.entity for one in own}) == 2
        meant = next(one for one in own if one.entity == own[2].entity)
        noun = sentence.words[head_of(sentence, meant)].form
        several = noun in ("women", "men", "children") or (noun.endswith("s") and noun.islower())
        assert several == (pronoun == "they")


def test_what_cannot_be_pointed_from_is_left_out_or_refused() -> None:
    model, plain = previous_model(), echoed(12)
    bare = [dataclasses.replace(one, words=tuple(dataclasses.replace(word, misc="_") for word in one.words)) for one in plain]
    with pytest.raises(PromptError, match="no pronoun has an antecedent among the words before it; expected Entity="):
        probe_coreference(model, bare)
    with pytest.raises(PromptError, match="4 documents have a pronoun"):
        probe_coreference(model, plain[:4])
    with pytest.raises(PromptError, match="rank=0"):
        probe_coreference(model, plain, rank=0)
    row = Referring(0, 0, 2, (0, 1), (True, False), 1)
    with pytest.raises(CircuitsError, match="epochs=0"):
        fit_pointer(torch.randn(3, 2), [row], [row], epochs=0)
    with pytest.raises(CircuitsError, match="no pronoun to point from"):
        Choices.of([])
    first = tuple(dataclasses.replace(word, tag="PRON", misc="Entity=(e1)") for word in plain[0].words[:2])
    few = Sentence(plain[0].text[:5], first)
    found, left = referring(WordText.of(model, [few]))
    assert not found and left == {NO_TOKEN: 0, NO_ANTECEDENT: 1, ONE_CANDIDATE: 1}
