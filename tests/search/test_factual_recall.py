"""The recall search: exact on models whose facts were planted, honest elsewhere."""

import itertools
import math
from typing import Any

import pytest

from circuits.errors import CircuitsError, PromptError
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.planted import planted_recall
from circuits.search import find_factual_recall_circuit
from circuits.search.mechanisms.recall import sites_of
from circuits.search.mechanisms.recall_search import Effort
from circuits.tasks import fact_pairs, induction, mini_facts, planted_pairs
from tests.models import bundled
from tests.models.native import native_bridge


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_planted_heads_neurons_and_edges_are_found_exactly(seed: int) -> None:
    entities = 16 if seed == 0 else 10  # times four relations: 64 facts, or 40
    planted = planted_recall(seed=seed, entities=entities, relations=4)
    pairs = planted_pairs(planted)
    assert len(pairs) == 4 * entities
    parts: list[Any] = []
    found = find_factual_recall_circuit(planted.model, pairs, control_sets=20, seed=seed, found=parts.append)
    restored, *growing, unjudged, judged = parts
    assert growing, "what was found is handed over before the search ends"
    for before, after in itertools.pairwise([*growing, unjudged]):
        assert set(before.edges) <= set(after.edges) and before.metadata["verdict"] == "searching"
        assert all(score == found.edges[edge] for edge, score in before.edges.items())
    assert judged is found and unjudged.metadata["verdict"] == "unjudged" and "not ablated" in unjudged.metadata["summary"]
    assert dict(unjudged.edges) == dict(found.edges) and unjudged.evidence == found.evidence
    assert sites_of(restored) == thaw(found.metadata["sites"])
    assert sorted(map(str, found.edges)) == sorted(map(str, planted.circuit.edges))
    assert found.roles == planted.circuit.roles
    assert found.metadata["verdict"] == "found"


@pytest.mark.slow
def test_counting_forwards_finds_the_planted_circuit_too_and_says_what_it_left_out() -> None:
    planted = planted_recall(seed=1, entities=18, relations=2)  # more edges into a key than are tested at once
    pairs = planted_pairs(planted)
    free, cut = (find_factual_recall_circuit(planted.model, pairs, most_forwards=forwards) for forwards in (1e6, 40.0))
    assert sorted(map(str, free.edges)) == sorted(map(str, planted.circuit.edges)) and free.roles == planted.circuit.roles
    every, some = thaw(free.metadata), thaw(cut.metadata)
    assert every["followed_all"] and every["left_out"] == 0 and every["tested"][0] < every["tested"][1]
    assert "more edges" not in every["summary"] and "16 of 16 heads" in every["summary"]
    assert set(cut.edges) < set(free.edges) and all(cut.edges[edge] == free.edges[edge] for edge in cut.edges)
    assert not some["followed_all"] and some["forwards"] <= 40 < every["forwards"] and some["left_out"] > 0
    assert f"({some['left_out']} more edges may cost enough)" in some["summary"]


@pytest.mark.parametrize("forwards", [math.inf, 100.0])
def test_heads_that_share_keys_are_searched_though_few_were_patched(forwards: float) -> None:
    planted = planted_recall(seed=0, entities=6, relations=2)
    model = Model.from_bridge(native_bridge(1, n_layers=2, n_heads=4, n_key_value_heads=2, d_vocab=60, n_ctx=8))
    options: dict[str, Any] = {"most_heads": 3, "most_neurons": 5, "control_sets": 2, "min_effect": 0.01}
    found = find_factual_recall_circuit(model, planted_pairs(planted)[:6], most_forwards=forwards, **options)
    assert thaw(found.metadata["patched"]) == {"heads": [3, 8], "neurons": [5, 12]}
    assert sum(str(name).startswith("a") for name in found.roles) <= 3


def test_how_much_is_searched_depends_on_size_unless_said() -> None:
    model = bundled.mini()
    assert Effort.of(model, None, None, None) == Effort(32, 512, math.inf)
    assert Effort.of(model, None, 7, 20.0) == Effort(18, 7, 20.0) and Effort.of(model, 5, None, 1e9) == Effort(5, 512, 1e9)
    with pytest.raises(CircuitsError, match=r"most_forwards is -1.0; expected a number of at least 0"):
        Effort.of(model, None, None, -1.0)


@pytest.fixture(scope="module")
def found() -> Circuit:
    model = bundled.mini()
    return find_factual_recall_circuit(model, fact_pairs(model, mini_facts(), count=8), min_effect=0.05, most_neurons=32)


@pytest.mark.slow
def test_every_claim_carries_its_effect_and_interval(found: Circuit) -> None:
    assert len(found) > 0
    for edge in found.edges:
        for claim in found.evidence[edge].values():
            assert claim["low"] > 0 and claim["effect"] >= 0.05 and claim["prompts"] > 0
    assert set(found.metadata["sites"]) == {"subject_first", "subject_last", "last"}
    assert found.metadata["sites"]["last"][-1]["effect"] == pytest.approx(1.0, abs=1e-4)
    assert "nodes (" in found.metadata["summary"] and found.metadata["control"]["sets"] == 20


@pytest.mark.slow
def test_it_survives_a_file(found: Circuit, tmp_path) -> None:
    found.save(tmp_path / "recall.json")
    again = Circuit.load(tmp_path / "recall.json")
    assert again.roles == found.roles and dict(again.edges) == dict(found.edges)


def test_pairs_without_a_subject_are_refused_and_nothing_is_found_in_noise() -> None:
    planted = planted_recall(seed=0, entities=6, relations=2)
    with pytest.raises(PromptError, match="name no position subject_first"):
        find_factual_recall_circuit(planted.model, induction(planted.model, 4))
    model = Model.from_bridge(native_bridge(0, n_layers=2, d_vocab=60, n_ctx=8))
    nothing = find_factual_recall_circuit(model, planted_pairs(planted)[:6], min_effect=5.0)
    assert not nothing and nothing.metadata["verdict"] == "none" and "No recall circuit" in str(nothing.metadata["summary"])
