"""Texts that differ from others are read from there on: the same numbers as when each is read whole."""

import dataclasses

import pytest
import torch

import circuits
from circuits.models import Model
from circuits.uses.classifying.changed import read_changed
from circuits.uses.classifying.classifier import read_ends

ROWS = [[0, 5, 9, 33, 7, 8], [0, 70, 8], [0, 900, 31, 12, 6]]
CHANGED = [(0, [0, 5, 9, 34, 7, 8]), (0, [0, 5, 9, 8]), (0, ROWS[0]), (2, [4, 4]), (2, [0, 900, 31, 12, 6, 1]), (1, [0])]


@pytest.fixture(scope="module")
def model() -> Model:
    mini = circuits.load_model("mini", dtype=torch.float64)
    return dataclasses.replace(mini, weights=mini.weights.of_layers(0, 2), make_bridge=None)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("budget", [2**28, 1])
def test_what_is_read_from_the_first_other_token_on_is_what_is_read_whole(model: Model, causal: bool, budget: int) -> None:
    own = dataclasses.replace(model, weights=dataclasses.replace(model.weights, causal=causal))
    whole = read_ends(own, [*ROWS, *(ids for _, ids in CHANGED)], what="")
    found, changed = read_changed(own, ROWS, CHANGED, what="", budget=budget)
    torch.testing.assert_close(torch.cat([found, changed]), whole, atol=1e-11, rtol=1e-11)


def test_only_other_tokens_are_read_and_equal_texts_once(model: Model) -> None:
    heard: list[tuple[int, int]] = []
    twice = [*CHANGED, *CHANGED]
    _, changed = read_changed(model, ROWS, twice, what="", progress=lambda what, done, total: heard.append((done, total)))
    assert heard[-1] == (sum(map(len, ROWS)) + 3 + 1 + 1 + 2 + 1 + 1,) * 2
    assert torch.equal(changed[: len(CHANGED)], changed[len(CHANGED) :])
    assert read_changed(model, ROWS, [], what="")[1].shape == (0, model.weights.W_U.shape[1])
