"""SASC: a planted lexicon is found and scored, and what is not there is not."""

import itertools

import pytest
import torch

from circuits.errors import CircuitsError, GraphError, PromptError
from circuits.lenses.explaining import explain_module
from circuits.lenses.explaining.authors import PLACE, WORDS, inserting
from circuits.lenses.explaining.module_values import largest_values, module_values
from circuits.lenses.explaining.ngrams import frequent_ngrams, text_words, words_in
from circuits.lenses.explaining.rules import Clause, TokenRule
from circuits.models import node_output
from tests.lenses.lexicon import LEXICON, STRENGTHS, planted_lexicon, random_text
from tests.models.bundled import mini

MODEL, TEXT = planted_lexicon(), random_text(1, rows=200, width=16)


def test_a_planted_lexicon_is_found_and_scored() -> None:
    found = explain_module(MODEL, "m0.n2", TEXT, ngrams=900, top=180)
    every = {clause for one in found.candidates for clause in TokenRule.parse(one.explanation).clauses}
    assert {(clause.kind, clause.text) for clause in every} == {("word", str(token)) for token in LEXICON}
    alone = {one.explanation: one for one in found.candidates if ";" not in one.explanation}
    for token, strength in zip(LEXICON, STRENGTHS, strict=True):
        one = alone[f'the token "{token}" (10)']
        assert one.score == pytest.approx(strength / found.sigma, rel=0.25) and one.low > 0
    assert "7" in found.ngrams[0][0].split() and found.counted == 900


def test_what_is_not_in_the_module_scores_nothing() -> None:
    said = 'the token "11" (10); the token "30" (10)'
    found = explain_module(MODEL, "m0.n2", TEXT, ngrams=900, explainer=lambda shown, scale: said, texts=60)
    assert all(one.low <= 0 <= one.high for one in found.candidates) and len(found.candidates) == 3


def test_a_direction_is_read_of_any_module() -> None:
    third, ones = torch.eye(MODEL.d_model)[3].double(), torch.ones(MODEL.d_model).double()
    for name, direction in (("resid1", third), ("m0", None), ("a0.h0", ones)):
        values, _ = module_values(MODEL, name, direction)
        run = MODEL.run(TEXT)
        vectors = run.residuals[1] if name == "resid1" else node_output(run, name)
        expected = vectors.norm(dim=-1) if direction is None else torch.einsum("b p d, d -> b p", vectors, direction)
        torch.testing.assert_close(values(TEXT), expected)
    found = explain_module(MODEL, "resid0", TEXT, direction=MODEL.weights.W_E[5], ngrams=900)
    assert found.candidates[0].explanation.startswith('the token "5"') and found.candidates[0].low > 0


def test_a_text_is_read_at_the_token_where_the_module_does_most() -> None:
    values, _ = module_values(MODEL, "m0.n2")
    largest, each = largest_values(MODEL, values, [[1, 23, 7], [4], [19, 2]])
    assert largest.tolist() == pytest.approx([1.0, 0.0, 0.8], abs=1e-9)
    assert [len(one) for one in each] == [3, 1, 2] and each[0] == pytest.approx((0.0, 0.6, 1.0), abs=1e-9)


def test_groups_of_words_are_those_of_the_text_by_frequency() -> None:
    rows = text_words(MODEL, TEXT)
    assert len(rows) == len(TEXT) and all(len(row) == 15 for row in rows)
    found = frequent_ngrams(rows, 90)
    assert [sum(len(one) == length for one in found) for length in (1, 2, 3)] == [30, 30, 30]
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    counts = [pairs.count(one) for one in found if len(one) == 2]
    assert counts == sorted(counts, reverse=True) and counts[0] == max(map(pairs.count, set(pairs)))
    ids = mini().to_tokens(" unbelievable things, yes", prepend_bos=False).ids[0].tolist()
    words = ["".join(mini().to_token_strings(list(word))) for word in words_in(mini(), ids)]
    assert words == [" unbelievable", " things", ",", " yes"]


@pytest.mark.parametrize("clause", [Clause("word", "7"), Clause("after", "9"), Clause("before", "3"), Clause("start", "1")])
def test_texts_differ_in_what_the_rule_says_alone(clause: Clause) -> None:
    having, lacking = inserting(MODEL, text_words(MODEL, TEXT))(str(TokenRule((clause,))), 12)
    for with_it, without in zip(having, lacking, strict=True):
        assert len(with_it) == len(without) == WORDS
        assert any(clause.matches(list(map(str, with_it)))[PLACE : PLACE + 2])
        assert [a == b for a, b in zip(with_it, without, strict=True)].count(False) <= 2


def test_what_cannot_be_explained_is_said() -> None:
    with pytest.raises(GraphError, match="logits is no module"):
        explain_module(MODEL, "logits", TEXT)
    with pytest.raises(GraphError, match="has no resid7"):
        explain_module(MODEL, "resid7", TEXT)
    with pytest.raises(PromptError, match="is one number by itself"):
        explain_module(MODEL, "m0.n2", TEXT, direction=MODEL.weights.W_E[1])
    with pytest.raises(PromptError, match=r"direction of shape \(3,\)"):
        explain_module(MODEL, "m0", TEXT, direction=torch.ones(3))
    with pytest.raises(CircuitsError, match="does the same on all"):
        explain_module(MODEL, "a0.h0", TEXT, ngrams=60)
    with pytest.raises(PromptError, match="ngrams=3, top=30"):
        explain_module(MODEL, "m0.n2", TEXT, ngrams=3)
    with pytest.raises(PromptError, match="no words with and without"):
        explain_module(MODEL, "m0.n2", TEXT, ngrams=900, explainer=lambda shown, scale: 'the token "sea" (10)')
