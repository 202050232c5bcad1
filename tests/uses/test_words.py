"""Tokens and the words that they spell."""

import dataclasses

import pytest
import torch

import circuits
from circuits.errors import ModelError
from circuits.uses import Classifier
from circuits.uses.classifying.words import spelt_texts, word_sums

TEXTS = ["Unquestionably  the film\twas goodish .", "Bad .", "  \u00e9t\u00e9 \U0001f600 !"]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.on(circuits.load_model("mini"), ["a", "b"])


def test_every_token_spells_a_part_of_its_word(classifier: Classifier) -> None:
    for text, row, one in zip(TEXTS, classifier.rows(TEXTS), spelt_texts(classifier, TEXTS), strict=True):
        assert list(one.ids) == row and one.words == tuple(text.split())
        assert one.owners[0] == -1 and one.owners[1:] == tuple(sorted(one.owners[1:])) and one.owners[1] == 0
        for place, word in enumerate(one.words):
            own = [token for token, owner in zip(one.ids, one.owners, strict=True) if owner == place]
            assert classifier.model.to_string(own).strip() == word
    assert len([owner for owner in spelt_texts(classifier, TEXTS)[0].owners if owner == 0]) > 1


def test_sums_over_words_and_what_is_left_without_some(classifier: Classifier) -> None:
    spelt = spelt_texts(classifier, TEXTS)
    width = max(len(one.ids) for one in spelt)
    values = torch.randn(3, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = word_sums(values, spelt)
    assert found.shape == (3, 6)
    for row, one in enumerate(spelt):
        for word in range(6):
            slow = sum(float(values[row, at]) for at, owner in enumerate(one.owners) if owner == word)
            assert float(found[row, word]) == pytest.approx(slow)
    assert spelt[1].without(frozenset({0, 1})) == [0] and spelt[1].without(frozenset()) == list(spelt[1].ids)


def test_of_long_texts_the_last_tokens_are_read(classifier: Classifier) -> None:
    short = dataclasses.replace(classifier, longest=6)
    whole, cut = spelt_texts(classifier, TEXTS)[0], spelt_texts(short, TEXTS)[0]
    assert list(cut.ids) == short.rows(TEXTS)[0] and cut.words == whole.words
    assert cut.owners == (-1, *whole.owners[-5:])
    bare = dataclasses.replace(classifier, model=classifier.model.with_bos(False))
    assert spelt_texts(bare, TEXTS)[0].owners == whole.owners[1:]
    with pytest.raises(ModelError, match="words need a fast tokenizer"):
        spelt_texts(dataclasses.replace(classifier, model=dataclasses.replace(classifier.model, tokenizer=None)), TEXTS)
