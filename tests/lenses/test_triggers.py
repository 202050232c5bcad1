"""Streamed triggers against a sort of everything, ties included; pads, BOS, statistics, files, and what is refused."""

import dataclasses
import math
import random
from pathlib import Path
from typing import get_args

import pytest
import torch

from circuits.errors import FileFormatError, GraphError, MemoryBudgetError, NonFiniteError, PromptError
from circuits.lenses import Triggers, find_triggers, read_values
from circuits.lenses.neurons.activations import neuron_layers
from circuits.lenses.neurons.highest import Highest
from circuits.lenses.neurons.listing import list_neurons
from circuits.models import Model, TokenBatch
from circuits.models.planted import planted_recall
from circuits.models.weights import Activation
from tests.models.overflow import Part, with_overflow
from tests.models.random_edits import random_batch
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights, record_of


def random_model(seed: int, dtype: torch.dtype = torch.float64) -> Model:
    """A random model with MLPs."""
    rng = random.Random(seed)
    while True:
        shape = random_shape(rng)
        model = Model("random", "random", record_of(shape, random_weights(shape, rng), dtype), None, bos=0)
        if model.d_mlp:
            return model


def sorted_places(values: list[tuple[float, int, int]], top: int, *, largest: bool) -> list[tuple[float, int, int]]:
    """The slow way: everything sorted, equal ones as they stand in the text."""
    return sorted(values, key=lambda row: (-row[0] if largest else row[0], row[1], row[2]))[:top]


@pytest.mark.parametrize("seed", range(100))
def test_streamed_equals_sorted_ties_included_whatever_the_blocks(seed: int) -> None:
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    places, columns, top = rng.randint(1, 60), rng.randint(1, 6), rng.randint(1, 9)
    levels = rng.choice([1, 2, 4, 1000])
    values = torch.randint(-levels, levels + 1, (places, columns), generator=noise).double()
    kept, start = Highest(columns, top, dtype=torch.float64, device=values.device), 0
    while start < places:
        size = rng.randint(1, 12)
        kept.add(values[start : start + size], torch.arange(start, min(start + size, places)) * 3)
        start += size
    for column in range(columns):
        expected = sorted_places([(float(v), 3 * i, 0) for i, v in enumerate(values[:, column])], top, largest=True)
        assert kept.values[column, : len(expected)].tolist() == [row[0] for row in expected]
        assert kept.places[column].tolist() == [row[1] for row in expected] + [-1] * (top - len(expected))


@pytest.mark.parametrize("seed", range(30))
def test_triggers_equal_the_sorted_activations_of_a_plain_run(seed: int) -> None:
    rng, model = random.Random(seed), random_model(seed)
    batches = [random_batch(rng, D_VOCAB, LENGTH) for _ in range(rng.randint(1, 3))]
    batches[0] = TokenBatch(batches[0].ids.clone().clamp_(min=1), batches[0].mask)
    top, count_bos = rng.randint(1, 5), rng.random() < 0.5
    found = find_triggers(model, batches, top=top, lowest=True, count_bos=count_bos, batch=rng.randint(1, 3))
    dense: dict[str, list[tuple[float, int, int]]] = {}
    first = 0
    for tokens in batches:
        run = model.run(tokens)
        for prompt, position in tokens.mask.nonzero().tolist():
            opening = tokens.positions[prompt, position] == 0 and tokens.ids[prompt, position] == 0
            if opening and not count_bos:
                continue
            for layer in range(model.n_layers):
                for index in range(model.d_mlp):
                    value = float(run.neurons[layer][prompt, position, index])
                    dense.setdefault(f"m{layer}.n{index}", []).append((value, first + prompt, position))
        first += len(tokens)
    assert found.names == [f"m{layer}.n{index}" for layer in range(model.n_layers) for index in range(model.d_mlp)]
    for row, name in enumerate(found.names):
        assert found.count == len(dense[name])
        values = [value for value, _, _ in dense[name]]
        assert float(found.mean[row]) == pytest.approx(sum(values) / len(values), abs=1e-10)
        assert float(found.active[row]) == pytest.approx(sum(value > 0 for value in values) / len(values), abs=1e-12)
        assert float(found.largest[row]) == pytest.approx(max(values), abs=1e-10)
        for places, largest in ((found.highest, True), (found.lowest, False)):
            assert places is not None
            expected = sorted_places(dense[name], top, largest=largest)
            assert places.values[row].tolist() == pytest.approx([value for value, _, _ in expected], abs=1e-10)
            by_place = {(prompt, position): value for value, prompt, position in dense[name]}
            got = list(zip(places.prompts[row].tolist(), places.positions[row].tolist(), strict=True))
            assert len(set(got)) == len(got)
            assert [by_place[place] for place in got] == pytest.approx(places.values[row].tolist(), abs=1e-10)


def test_of_equal_activations_the_earlier_places_are_kept_whatever_the_batch() -> None:
    model = random_model(3)
    constant = [
        dataclasses.replace(
            block,
            mlp=dataclasses.replace(  # ReLU: other activations may differ by a rounding from place to place of a vector
                block.mlp, W_in=0 * block.mlp.W_in, b_in=block.mlp.W_in[0], W_gate=None, activation="relu"
            ),
        )
        for block in model.weights.blocks
        if block.mlp is not None
    ]
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=tuple(constant)))
    ids = torch.randint(1, D_VOCAB, (7, 3), generator=torch.Generator().manual_seed(0))
    for batch in (1, 2, 7):
        found = find_triggers(model, TokenBatch.unpadded(ids), top=4, batch=batch)
        assert (found.highest.prompts == torch.tensor([0, 0, 0, 1])).all()
        assert (found.highest.positions == torch.tensor([0, 1, 2, 0])).all()


@pytest.mark.parametrize("seed", range(12))
def test_the_light_forward_computes_the_neurons_of_the_model(seed: int) -> None:
    model = random_model(seed)
    tokens = random_batch(random.Random(seed), D_VOCAB, LENGTH)
    run = model.run(tokens)
    for last in range(model.n_layers):
        seen = dict(neuron_layers(model.weights, tokens, last=last))
        assert list(seen) == list(range(last + 1))
        for layer, values in seen.items():
            assert torch.allclose(values, run.neurons[layer], atol=1e-12)


def test_half_precision_is_counted_and_averaged_in_full() -> None:
    model = random_model(1, torch.bfloat16)
    tokens = TokenBatch.unpadded(torch.randint(1, D_VOCAB, (99, 9), generator=torch.Generator().manual_seed(0)))
    found = find_triggers(model, tokens, count_bos=True)
    layers = [values.double().flatten(0, 1) for _, values in neuron_layers(model.weights, tokens)]
    values = torch.cat(layers, dim=1)
    assert torch.equal((found.active * found.count).round(), (values > 0).double().sum(dim=0))
    assert torch.allclose(found.mean, values.mean(dim=0), rtol=0, atol=1e-6)


def test_pads_never_trigger_and_change_nothing() -> None:
    model = random_model(5)
    ids = torch.randint(1, D_VOCAB, (3, 5), generator=torch.Generator().manual_seed(1))
    plain = find_triggers(model, TokenBatch.unpadded(ids), top=20)
    pads = torch.full((3, 3), 7)
    mask = torch.tensor([[False] * 3 + [True] * 5 + [False] * 3]).repeat(3, 1)
    padded = find_triggers(model, TokenBatch(torch.cat([pads, ids, pads], dim=1), mask), top=20)
    assert padded.count == plain.count == 15 and padded.highest.values.shape[1] == 15, "no more places than the text has"
    assert torch.allclose(padded.highest.values, plain.highest.values, atol=1e-10)
    assert padded.highest.positions.min() >= 3 and padded.highest.positions.max() < 8


def test_some_neurons_alone_equal_these_rows_of_all() -> None:
    model = random_model(8)
    tokens = TokenBatch.unpadded(torch.randint(1, D_VOCAB, (4, 6), generator=torch.Generator().manual_seed(2)))
    whole, last = find_triggers(model, tokens, top=3), model.n_layers - 1
    names = [f"m{last}.n2", "m0"]
    some = find_triggers(model, tokens, neurons=names, top=3)
    assert some.names == [f"m0.n{index}" for index in range(model.d_mlp)] + [f"m{last}.n2"] * (last > 0)
    for name in some.names:
        assert torch.allclose(some.highest.values[some.row(name)], whole.highest.values[whole.row(name)], atol=1e-12)
        assert torch.equal(some.highest.prompts[some.row(name)], whole.highest.prompts[whole.row(name)])
    with pytest.raises(GraphError, match="not among the"):
        some.row(f"m{last}.n1" if last else "m7.n0")


@pytest.mark.parametrize("seed", range(5))
def test_an_entity_neuron_of_the_planted_model_is_triggered_by_its_entity_and_by_nothing_else(seed: int) -> None:
    planted = planted_recall(seed=seed)
    relations = sorted({fact.relation for fact in planted.facts})
    pairs = [(first, second) for first in range(1, 9) for second in range(9, 17)]
    ids = torch.tensor([[0, *pair, relation] for pair in pairs for relation in relations])
    found = find_triggers(planted.model, TokenBatch.unpadded(ids), top=len(relations) + 1, batch=50)
    entities = set()
    neurons = [str(node) for node, role in planted.circuit.roles.items() if role == "entity neuron"]
    for name in neurons:
        row = found.row(name)
        values, prompts = found.highest.values[row], found.highest.prompts[row]
        assert (values[:-1] > 1).all() and values[-1] <= 0, "one place a relation, and no other"
        assert found.highest.positions[row][:-1].tolist() == [2] * len(relations), "at the second token of its name"
        subjects = {tuple(ids[prompt, 1:3].tolist()) for prompt in prompts[:-1].tolist()}
        assert len(subjects) == 1
        assert float(found.active[row]) == pytest.approx(len(relations) / found.count)
        entities |= subjects
    assert entities == {fact.subject for fact in planted.facts} and len(neurons) == len(entities)


def test_what_does_not_fit_is_refused_by_name() -> None:
    model = random_model(1)
    tokens = TokenBatch.unpadded(torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(GraphError, match=r"a0\.h0 is no neuron"):
        find_triggers(model, tokens, neurons=["a0.h0"])
    with pytest.raises(GraphError, match="no node m9"):
        find_triggers(model, tokens, neurons="m9")
    with pytest.raises(GraphError, match="no neurons are named"):
        find_triggers(model, tokens, neurons=[])
    with pytest.raises(PromptError, match="top=0"):
        find_triggers(model, tokens, top=0)
    with pytest.raises(PromptError, match="more than BOS"):
        find_triggers(model, TokenBatch.unpadded(torch.zeros(2, 1, dtype=torch.long)))
    with pytest.raises(PromptError, match="more than BOS"):
        find_triggers(model, [])
    with pytest.raises(MemoryBudgetError, match=r"one prompt of 4 tokens takes [\d,]+ bytes of 100"):
        find_triggers(model, tokens, budget=100)
    without = [dataclasses.replace(block, mlp=None, mlp_norm=None) for block in model.weights.blocks]
    bare = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=tuple(without)))
    with pytest.raises(PromptError, match="attention alone"):
        find_triggers(bare, tokens)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("part", get_args(Part))
@pytest.mark.parametrize("activation", get_args(Activation))
def test_an_activation_that_overflows_is_refused_by_name(activation: Activation, part: Part, sign: int) -> None:
    model = random_model(1)
    last = model.n_layers - 1
    broken = with_overflow(model, last, 1, part=part, activation=activation, sign=sign)
    everywhere = activation == "solu" and sign > 0 and part != "gated W_in"  # softmax over neurons, one of them infinite
    index = r"\d+" if everywhere else "1"
    with pytest.raises(NonFiniteError, match=rf"m{last}\.n{index} is -?(inf|nan) at position 0 of prompt 0"):
        find_triggers(broken, TokenBatch.unpadded(torch.ones(2, 4, dtype=torch.long)))


def test_files_and_tables_hold_everything(tmp_path: Path) -> None:
    model = random_model(4)
    tokens = TokenBatch.unpadded(torch.randint(1, D_VOCAB, (4, 6), generator=torch.Generator().manual_seed(2)))
    for lowest in (False, True):
        found = find_triggers(model, tokens, top=3, lowest=lowest)
        found.save(tmp_path / "triggers.safetensors")
        again = Triggers.load(tmp_path / "triggers.safetensors")
        pd_equal = found.to_dataframe().equals(again.to_dataframe())
        assert pd_equal and (again.model, again.weights_sha256, again.count) == (found.model, model.fingerprint, found.count)
        assert (again.lowest is None) == (not lowest)
        table = found.to_dataframe()
        ranks = [sign * rank for sign in (1, -1)[: 1 + lowest] for _ in found.names for rank in (1, 2, 3)]
        assert table["rank"].tolist() == ranks
    content = (tmp_path / "triggers.safetensors").read_bytes()
    for damaged in (b"", content[:-5], content[:40], b"{}", content.replace(b"circuits-triggers", b"circuits-squirrel")):
        (tmp_path / "bad.safetensors").write_bytes(damaged)
        with pytest.raises(FileFormatError, match=r"bad\.safetensors"):
            Triggers.load(tmp_path / "bad.safetensors")
    wrong = dataclasses.replace(found, mean=found.mean * torch.nan)
    wrong.save(tmp_path / "bad.safetensors")
    with pytest.raises(FileFormatError, match="mean holds wrong values"):
        Triggers.load(tmp_path / "bad.safetensors")


def test_the_list_has_every_neuron_once_and_the_most_telling_first() -> None:
    model = random_model(6)
    tokens = TokenBatch.unpadded(torch.randint(1, D_VOCAB, (6, 7), generator=torch.Generator().manual_seed(3)))
    found = find_triggers(model, tokens, top=4)
    values = read_values(model, k=3)
    table = list_neurons(model, found, values, tokens)
    assert sorted(table["neuron"]) == sorted(found.names) and table["surprise"].is_monotonic_decreasing
    later = tokens.ids[:, 1:].flatten().tolist()
    for row in table.to_dict("records"):
        at = found.row(row["neuron"])
        said = []
        for prompt, position in zip(found.highest.prompts[at].tolist(), found.highest.positions[at].tolist(), strict=True):
            if position < 6:
                said.append(int(tokens.ids[prompt, position + 1]) in values.raised[at].tolist())
        positive = found.highest.values[at] > 0
        if bool(positive.all()):
            agreed, raised = sum(said) / max(len(said), 1), values.raised[at].tolist()
            chance = sum(later.count(token) + 1 / D_VOCAB for token in raised) / (len(later) + 1)
            assert (row["agreement"], row["chance"]) == pytest.approx((agreed, chance))
            yes, no = sum(said), len(said) - sum(said)
            own = (yes * math.log(agreed) if yes else 0) + (no * math.log(1 - agreed) if no else 0)
            assert row["surprise"] == pytest.approx(
                own - yes * math.log(chance) - no * math.log(1 - chance) if agreed > chance else 0
            )
