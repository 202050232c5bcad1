"""Trained prompts: what a planted model knows is drawn out by them, and nothing of one that knows nothing."""

import math
import random

import pytest
import torch

from circuits.errors import CircuitsError, PromptError
from circuits.models import load_model
from circuits.models.planted import PlantedFact
from circuits.models.planted.recall import planted_recall
from circuits.models.random_weights import with_random_embeddings, with_random_weights
from circuits.probes import probe_prompts
from circuits.probes.prompts.results import PromptProbes
from circuits.probes.prompts.training import Asker, train_vectors
from circuits.tasks import Fact

PLANTED = planted_recall(entities=48, relations=1)


def test_trained_prompts_open_what_a_planted_model_knows() -> None:
    found = probe_prompts(PLANTED.model, PLANTED.facts, seeds=1, epochs=60, random_models=False)
    assert found.accuracy("typed")[0] == 1.0 and found.accuracy("trained")[0] >= 0.95
    assert found.accuracy("majority")[0] < 0.5 and found.accuracy("trained", "hard facts")[0] >= 0.95


def test_shares_are_of_judged_facts_and_errors_by_fact() -> None:
    right = torch.tensor([[[0, 0], [0, -1], [1, 1]], [[1, 1], [1, -1], [1, 0]], [[0, 1], [0, -1], [0, 0]]])
    right = torch.cat([right, right[2:] * 0 - (right[2:] < 0).long(), right[2:] * 0 - (right[2:] < 0).long()])
    known = {"subjects": ("a", "b", "c"), "attributes": ("x", "y", "x"), "relation_of": torch.tensor([0, 0, 1])}
    found = PromptProbes("m", "", ("r", "s"), (2, 2), 5, 40, (0, 1), right=right, left_out={}, **known)
    assert found.accuracy("trained")[0] == 0.8 and found.accuracy("typed", "s") == (1.0, 0.0)
    assert found.only_trained[0] == 0.6 and found.beyond_random[0] == 0.4
    assert found.accuracy("trained", "hard facts")[0] == 0.75
    off = [2 * (1 - 0.8), 1 - 0.8, 1 - 2 * 0.8]
    assert found.accuracy("trained")[1] == pytest.approx(sum(one * one for one in off) ** 0.5 / 5)
    assert found.to_dataframe()["answers"].tolist() == [3, 2, 5, 4] and "random weights" in found.summary


def test_a_random_model_reaches_the_majority_and_no_more() -> None:
    """Objects are skewed and tell nothing of subjects: a trained prompt can learn the most frequent one alone."""
    subjects = [(first, second) for first in range(1, 9) for second in range(9, 17)]
    objects = random.Random(0).sample([19] * 45 + [20] * 7 + [21] * 6 + [22] * 6, 64)
    facts = [PlantedFact(pair, 17, token) for pair, token in zip(subjects, objects, strict=True)]
    model = with_random_weights(PLANTED.model)
    found = probe_prompts(model, facts, vectors=2, seeds=2, epochs=12, random_models=False)
    trained, (majority, error) = found.accuracy("trained")[0], found.accuracy("majority")
    assert 0.5 < majority < 0.9 and abs(trained - majority) < 2 * error
    assert not found.with_random and math.isnan(found.beyond_random[0])


def test_what_an_asker_answers_is_the_whole_model_s_answer() -> None:
    model = load_model("mini")
    rows = [[0, 904, 777], [0, 31, 5, 88, 9]]
    asker = Asker.of(model, rows, [7, 300, 12])
    for row, found in zip(rows, asker.logits(rows), strict=True):
        whole = model.run(torch.tensor(row), keep="logits").logits[0, -1]
        assert torch.allclose(found, whole[[7, 300, 12]], atol=1e-4)
    known = model.weights.W_E[[55, 66]]
    behind = asker.logits(rows, known)
    assert torch.allclose(behind, Asker.of(model, longer := [[*row, 55, 66] for row in rows], [7, 300, 12]).logits(longer))


def test_training_reaches_the_vectors_alone_and_is_decided_by_the_seed() -> None:
    rows = [list(fact.prompt[:-1]) for fact in PLANTED.facts[:12]]
    asker, right = Asker.of(PLANTED.model, rows, [19, 20]), torch.arange(12) % 2
    before = PLANTED.model.fingerprint
    one, again = (train_vectors(asker, rows[:8], right[:8], rows[8:], right[8:], vectors=2, epochs=2) for _ in range(2))
    assert torch.equal(one, again) and one.shape == (2, PLANTED.model.d_model)
    assert PLANTED.model.weights.fingerprint() == before
    assert not any(tensor.requires_grad for _, tensor in asker.weights.tensors())
    own, embeddings = dict(PLANTED.model.weights.tensors()), with_random_embeddings(PLANTED.model)
    changed = [name for name, tensor in embeddings.weights.tensors() if not torch.equal(tensor, own[name])]
    assert changed == ["W_E"]


def test_what_cannot_be_asked_is_left_out_by_reason_or_refused() -> None:
    model = load_model("mini")
    people = ["Ada", "Ben", "Cara", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jon"]
    facts = [Fact(f"{name} plays the", name, ("guitar", "piano")[at % 2], "plays") for at, name in enumerate(people)]
    more = [Fact("Ada likes the", "Ada", "piano", "plays"), Fact("Kim plays the", "Kim", "pianola", "plays")]
    alone = [Fact(f"{name} is", name, "tall", "size") for name in people]
    found = probe_prompts(model, [*facts, *more, *alone], seeds=1, epochs=1, vectors=2, random_models=False)
    assert found.relations == ("plays",) and "another fact of the same subject" in found.left_out
    assert found.left_out["of relations of fewer than 8 facts or of one object"] == 10
    with pytest.raises(PromptError, match="no relation is left of 10 facts: 10 of relations"):
        probe_prompts(model, alone)
    with pytest.raises(PromptError, match="vectors=0"):
        probe_prompts(model, facts, vectors=0)
    with pytest.raises(CircuitsError, match="0 and 1 subjects"):
        train_vectors(Asker.of(model, [[0, 1]], [3]), [], torch.zeros(0).long(), [[0, 1]], torch.zeros(1).long())
    with pytest.raises(KeyError, match="no 'typed' of 'x'"):
        found.accuracy("typed", "x")
