"""A neuron held at a value is the edit that it says."""

import dataclasses
import math

import pytest
import torch

from circuits.errors import GraphError, NonFiniteError, PromptError
from circuits.lenses import clamp
from circuits.models import Edit
from tests.lenses.test_memories import without_mlps
from tests.lenses.test_triggers import random_model
from tests.models.random_models import D_VOCAB


@pytest.mark.parametrize("seed", range(10))
def test_clamping_is_the_edit_it_says(seed: int) -> None:
    model = random_model(seed)
    ids = torch.randint(1, D_VOCAB, (4,), generator=torch.Generator().manual_seed(seed))
    name = f"m{seed % model.n_layers}.n1"
    positions = [None, [-1], [0, -1]][seed % 3]
    found = clamp(model, ids, {name: 4.0}, positions=positions, top=D_VOCAB, continuation=3)
    before = model.run(ids).logits[0, -1].log_softmax(dim=-1)
    after = model.run(ids, edits=[Edit(name, 4.0, positions)]).logits[0, -1].log_softmax(dim=-1)
    assert found.kl == pytest.approx(float((after.exp() * (after - before)).sum()), abs=1e-10)
    assert len(found.rising) + len(found.falling) == D_VOCAB
    for one in (*found.rising, *found.falling):
        assert one.before == pytest.approx(float(before[int(one.token)].exp()), abs=1e-12)
        assert one.after == pytest.approx(float(after[int(one.token)].exp()), abs=1e-12)
    assert [one.change for one in found.rising] == sorted((one.change for one in found.rising), reverse=True)
    assert int(found.before[0].token) == int(before.argmax()) and int(found.after[0].token) == int(after.argmax())
    assert found.continuation[0].split()[0] == found.before[0].token
    assert found.continuation[1].split()[0] == found.after[0].token and len(found.continuation[1].split()) == 3
    own = model.run(ids).neurons[seed % model.n_layers][0, -1, 1]
    assert found.natural == {name: pytest.approx(float(own))}
    same = clamp(model, ids, {name: float(own)}, positions=[-1], continuation=0)
    assert same.kl == pytest.approx(0, abs=1e-10) and same.continuation == ("", "")


def test_what_cannot_be_clamped_is_refused() -> None:
    model, ids = random_model(0), torch.ones(3, dtype=torch.long)
    with pytest.raises(NonFiniteError, match=r"m0\.n1 is to be held at nan"):
        clamp(model, ids, {"m0.n1": math.nan})
    with pytest.raises(PromptError, match="no neuron is named"):
        clamp(model, ids, {})
    with pytest.raises(GraphError, match="m0 is no neuron"):
        clamp(model, ids, {"m0": 1.0})
    with pytest.raises(PromptError, match="position 7"):
        clamp(model, ids, {"m0.n0": 1.0}, positions=[7])
    with pytest.raises(PromptError, match="attention alone"):
        clamp(without_mlps(model), ids, {"m0.n0": 1.0})


@pytest.mark.parametrize("positions", [None, [-1], [0, -2]])
def test_what_is_written_next_is_written_with_the_neurons_held(positions: list[int] | None) -> None:
    model, ids = random_model(21), torch.tensor([3, 1, 4, 1])
    found = clamp(model, ids, {"m0.n1": 40.0}, positions=positions, continuation=3)
    columns = None if positions is None else [position % 4 for position in positions]
    written = ids
    for _ in range(3):  # columns are those of the prompt, however long the text has grown
        logits = model.run(written, edits=[Edit("m0.n1", 40.0, columns)]).logits
        written = torch.cat([written, logits[0, -1:].argmax(dim=-1)])
    assert found.continuation[1].split() == [str(token) for token in written[4:].tolist()] != found.continuation[0].split()


def test_nothing_is_written_past_the_end_of_the_context() -> None:
    model, ids = random_model(0), torch.ones(4, dtype=torch.long)
    short = dataclasses.replace(model, weights=dataclasses.replace(model.weights, max_positions=6))
    found = clamp(short, ids, {"m0.n1": 4.0}, continuation=5)
    assert [len(text.split()) for text in found.continuation] == [2, 2]
