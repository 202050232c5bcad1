"""Logical forms: the search in one product equals one formula at a time, and finds what was planted."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control

from circuits.concepts.forms import Units, compose, concept_masks
from circuits.concepts.forms.activity import active, read_activity
from circuits.concepts.forms.beam import best_forms
from circuits.concepts.forms.chance import all_moves, benjamini_hochberg
from circuits.concepts.forms.formulas import Form
from circuits.concepts.forms.masks import KINDS
from circuits.concepts.forms.use import loss_rises
from circuits.errors import PromptError
from circuits.models import Edit, Model, TokenBatch
from circuits.models.planted import planted_previous
from circuits.tasks import Word
from tests.concepts.plain_search import plain_search


def drawn(seed: int, tokens: int, concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Concepts of all sizes, some of them alike, one of no token and one of all; neurons of which some follow concepts."""
    made = np.random.default_rng(seed)
    masks = made.random((concepts, tokens)) < made.choice([0.02, 0.1, 0.4], (concepts, 1))
    masks[3], masks[4] = masks[1], masks[1] | masks[2]
    masks[5], masks[6] = False, True
    neurons = made.random((6, tokens)) < made.choice([0.02, 0.1, 0.5], (6, 1))
    neurons[1] = (masks[0] & ~masks[2]) | masks[7]
    neurons[2] = False
    neurons[3] ^= masks[8]
    return neurons, masks


@pytest.mark.parametrize("seed", range(8))
def test_all_candidates_in_one_product_are_one_formula_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    neurons, concepts = drawn(seed, tokens=40 + 30 * (seed % 3), concepts=9 + seed)
    options = {"length": 1 + seed % 5, "beam": (1, 3, 10, 40)[seed % 4], "penalty": (0.99, 1.0, 0.9)[seed % 3]}
    if seed % 2:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    found = best_forms(torch.from_numpy(neurons), torch.from_numpy(concepts), budget=(1, 2**28)[seed % 2], **options)
    for row, neuron in enumerate(neurons):
        slow, iou = plain_search(neuron, concepts, **options)
        form = Form(slow[0][1], slow[1:])
        assert found.forms[row] == form
        assert float(found.iou[row]) == iou
        holds = form.holds(torch.from_numpy(concepts))
        assert (int(found.holds[row]), int(found.active[row])) == (int(holds.sum()), int(neuron.sum()))


def test_a_and_not_b_or_c_is_found_in_20_of_20_noise_and_all() -> None:
    for seed in range(20):
        made = np.random.default_rng(seed)
        often = made.choice([0.02, 0.1, 0.3], (60, 1))
        often[[10, 20, 30], 0] = 0.2, 0.3, 0.1
        masks = made.random((60, 2000)) < often
        planted = (masks[10] & ~masks[20]) | masks[30]
        both = torch.from_numpy(np.stack([planted, planted ^ (made.random(2000) < 0.01)]))
        for form in best_forms(both, torch.from_numpy(masks)).forms:
            assert len(form) == 3 and form.holds(torch.from_numpy(masks)).equal(torch.from_numpy(planted)), seed


def with_a_planted_neuron(seed: int) -> Model:
    """m2.n0 is active at tokens of A that are none of B, and behind token 7."""
    model = planted_previous(seed=seed).model
    blocks = list(model.weights.blocks)
    mlp = blocks[2].mlp
    assert mlp is not None
    W_in, b_in = mlp.W_in.clone(), torch.zeros(mlp.W_in.shape[1], dtype=torch.float64)
    previous = model.weights.W_U.T / model.weights.W_U.norm(dim=0)[:, None]
    W_in[:, 0] = model.weights.W_E[[int(word) for word in A if word not in B]].sum(dim=0) + previous[7]
    b_in[0] = -2.0
    blocks[2] = dataclasses.replace(blocks[2], mlp=dataclasses.replace(mlp, W_in=W_in, b_in=b_in))
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=tuple(blocks)))


A, B = [str(token) for token in range(1, 9)], [str(token) for token in range(6, 12)]


def read(model: Model, seed: int) -> Units:
    tokens = torch.randint(1, 25, (40, 25), generator=torch.Generator().manual_seed(seed))
    return Units.of_rows(
        model, TokenBatch.unpadded(torch.cat([torch.zeros(40, 1, dtype=torch.long), tokens], dim=1)), words=False
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_neuron_of_known_weights_is_what_its_weights_say(seed: int) -> None:
    model = with_a_planted_neuron(seed)
    units = read(model, seed)
    options: dict[str, Any] = {"lexicon": {"A": A, "B": B}, "kinds": ("after", "class"), "above": 0.0, "moves": 3, "use": 6}
    found = compose(model, units, [f"m2.n{index}" for index in range(9)], **options)
    own = found.neurons[0]
    assert own.neuron == "m2.n0" and own.form in ("(A AND NOT B) OR after=7", "after=7 OR (A AND NOT B)")
    assert (own.iou, own.held_iou, own.sure) == (1, 1, True) and own.half_form == own.form
    assert (own.null_high or 1) < 0.6 and (own.held_null or 1) < (own.null or 0) and own.p_value == 1 / 4
    assert own.neuron_alone == own.form_alone == () and {word for word, _ in own.words} >= set(A) - set(B)
    assert found.unit == "tokens" and found.agreement is not None
    assert all(one.half_iou < 1 for one in found.neurons[1:])


def test_moves_leave_what_a_neuron_is_by_chance_alone() -> None:
    """p-values of forms for neurons that have nothing to do with the concepts are even, for clumped masks too."""
    made = np.random.default_rng(0)

    def clumped(rows: int) -> torch.Tensor:
        return torch.from_numpy(np.repeat(made.random((rows, 100)) < 0.1, 20, axis=1))

    neurons, concepts = clumped(150), clumped(8)
    half = torch.arange(2000) < 1000
    chosen = best_forms(neurons[:, half], concepts[:, half], length=2)
    held = all_moves(neurons[:, ~half], torch.stack([form.holds(concepts[:, ~half]) for form in chosen.forms]))
    p_values = held.p_values[held.p_values.isfinite()]
    assert abs(float((p_values <= 0.1).double().mean()) - 0.1) < 0.07, "0.1 is the share to expect"
    assert float(p_values.min()) >= 1 / 1000
    slow = [(neurons[3, ~half].roll(move), chosen.forms[3].holds(concepts[:, ~half])) for move in range(1000)]
    ious = torch.tensor([float((a & b).sum()) / float((a | b).sum()) for a, b in slow])
    assert float(held.iou[3]) == pytest.approx(float(ious[0])) and float(held.null[3]) == pytest.approx(float(ious[1:].mean()))
    assert float(held.p_values[3]) == pytest.approx(float((ious >= ious[0] - 1e-9).double().mean()))


def test_p_values_of_many_neurons_are_those_of_benjamini_and_hochberg() -> None:
    given = torch.tensor([0.01, 0.04, torch.nan, 0.03, 0.5], dtype=torch.float64)
    slow = false_discovery_control(given[given.isfinite()].numpy(), method="bh")
    assert torch.allclose(benjamini_hochberg(given)[[0, 1, 3, 4]], torch.from_numpy(slow)) and bool(
        benjamini_hochberg(given)[2].isnan()
    )


def test_a_neuron_is_active_above_what_many_words_share() -> None:
    values = torch.tensor([[0.0, 5.0], [0.0, 4.0], [3.0, 4.0], [0.0, 4.0], [0.0, 1.0]])
    assert active(values, share=0.4, above=None).tolist() == [[False, False, True, False, False], [True] + 4 * [False]]
    assert active(values, share=0.4, above=3.5).sum(dim=1).tolist() == [0, 4]


@pytest.mark.parametrize("budget", [2**10, 2**18, 2**24])
def test_the_loss_without_a_neuron_is_that_of_a_whole_run_with_an_edit(budget: int) -> None:
    model = with_a_planted_neuron(0)
    units = read(model, 0)
    activity = read_activity(model, units, {1: [3, 4, 5], 2: [0]}, above=0.0)
    assert len(activity.neurons) == 4
    found = loss_rises(model, units, activity, [3, 0, 2, 1], tokens=100, budget=budget)
    rows = [list(row) for row in units.rows]
    generator = torch.Generator().manual_seed(0)
    drawn = [rows[row] for row in torch.randperm(40, generator=generator).tolist()[:4]]
    losses = []
    for edits in ([], *([Edit(activity.neurons[at], float(activity.mean[at]))] for at in (3, 0, 2, 1))):
        run = model.run(TokenBatch.from_rows(drawn), edits=edits)
        scores = run.logits[:, :-1].log_softmax(dim=-1)
        losses.append(-scores.gather(2, torch.tensor(drawn)[:, 1:, None]).mean())
    assert found.whole == pytest.approx(float(losses[0])) and found.tokens == 100
    assert found.rise.tolist() == pytest.approx([float(loss - losses[0]) for loss in losses[1:]], abs=1e-9)


def test_concepts_are_those_of_the_columns_and_of_how_words_are_written() -> None:
    words = [
        Word("Two", 0, 3, "NUM", 1, "nummod", "two", feats="NumType=Card"),
        Word("cats", 4, 8, "NOUN", None, "root", "cat"),
    ]
    forms = tuple(word.form for word in words * 3)
    row = torch.arange(3).repeat_interleave(2)
    units = Units(((0, 1),) * 3, row, torch.tensor([0, 1] * 3), forms, row, tuple(words * 3))
    found = concept_masks(units, kinds=KINDS, lexicon={"two cats": ["two cats"], "dog": ["dog"]}, least=3)
    assert found.names == ("two cats", "upos=NUM")
    assert found.masks.tolist() == [[False, True] * 3, [True, False] * 3]
    assert found.left_out == {"the same words as another": 23}
    with pytest.raises(PromptError, match="none of 1 concepts holds at 4 words"):
        concept_masks(units, kinds=("first",), least=4)
    with pytest.raises(PromptError, match="only one of 1 concepts"):
        concept_masks(units, kinds=("first",), least=2)
