"""A model of this machine that explains and simulates: what it is asked, what is read off it, and answers that are none."""

import dataclasses
import functools

import pytest
import torch

from circuits.errors import AnswerError, ModelError
from circuits.lenses.explaining import explain, explain_module
from circuits.lenses.explaining.excerpts import Excerpt
from circuits.lenses.explaining.local_model import LocalModel
from circuits.lenses.explaining.wording import simulating_examples, simulating_lines
from circuits.models import Model
from tests.lenses.lexicon import planted_lexicon, random_text
from tests.models.checkpoints import byte_tokenizer
from tests.models.native import native_bridge

TOKENS = (" sea", "\n", "7", "\t")
SHOWN = [Excerpt("top", 0, ("a", " ship", "\n"), (0.0, 2.0, 0.5))]


@functools.cache
def reader() -> Model:
    """A random model that reads bytes."""
    model = Model.from_bridge(native_bridge(5, n_ctx=2600, d_vocab=257))
    return dataclasses.replace(model, tokenizer=byte_tokenizer(), prepend_bos=True)


def saying(text: str) -> LocalModel:
    """One that goes on with this character, whatever it reads."""
    model = reader()
    b_U = torch.zeros(model.d_vocab, dtype=model.dtype)
    b_U[model.single_token(text)] = 1e3
    return LocalModel(dataclasses.replace(model, weights=dataclasses.replace(model.weights, b_U=b_U)))


def test_numbers_are_means_by_the_probabilities_of_a_whole_run() -> None:
    model = reader()
    ours = LocalModel(model)
    digits = [model.single_token(str(number)) for number in range(10)]
    for words in ("words about the sea", "numbers"):
        found = ours.simulate(words, TOKENS)
        text, asked = simulating_examples(), []
        for piece, ends in simulating_lines(words, TOKENS):
            text += piece
            asked += [len(model.to_tokens(text).ids[0]) - 1] if ends else []
        assert text.endswith("\\n\tunknown\n7\tunknown\n\\t\tunknown\n"), "a token a line"
        chances = model.run(text, keep="logits").logits[0, asked][:, digits].softmax(dim=1)
        assert found == pytest.approx((chances @ torch.arange(10.0, dtype=torch.float64)).tolist(), abs=1e-9)
        assert len(found) == len(TOKENS) and found == LocalModel(model).simulate(words, TOKENS)


def test_a_model_simulates_a_planted_neuron_token_by_token() -> None:
    found = explain(planted_lexicon(), "m0.n2", random_text(), top=4, simulator=saying("x").simulate)
    assert all(0 <= value <= 9 for one in found.simulated for value in one)
    assert [len(one) for one in found.simulated] == [len(one.tokens) for one in found.held] and not found.unanswered
    assert saying("3").simulate("ships", TOKENS) == pytest.approx([3.0] * 4)


def test_an_explanation_is_the_rest_of_a_line_without_numbers_of_excerpts() -> None:
    assert saying("x").explain(SHOWN, 2.0) == "x" * 24
    for nothing in ("\n", " ", "<|bos|>"):
        with pytest.raises(AnswerError, match="wrote no explanation: try another model"):
            saying(nothing).explain(SHOWN, 2.0)


def test_texts_that_are_not_written_are_said() -> None:
    assert saying("x").sentences("ships", 3) == (["x" * 24] * 3,) * 2
    texts = {"ngrams": 60, "top": 10, "texts": 2, "explainer": lambda shown, scale: 'the token "7" (10)'}
    with pytest.raises(AnswerError, match=r"no text was written for 'the token"):
        explain_module(planted_lexicon(), "m0.n2", random_text(), author=saying("\n").sentences, **texts)


def test_what_cannot_explain_or_simulate_is_said() -> None:
    with pytest.raises(ModelError, match="has no tokenizer"):
        LocalModel(planted_lexicon())
    model = reader()
    short = LocalModel(dataclasses.replace(model, weights=dataclasses.replace(model.weights, max_positions=350)))
    for ask in (lambda: short.simulate("ships", TOKENS), lambda: short.explain(SHOWN, 2.0), lambda: short.sentences("x", 2)):
        with pytest.raises(ModelError, match=r"takes 350 tokens, the question has \d+: take a model of longer prompts"):
            ask()
