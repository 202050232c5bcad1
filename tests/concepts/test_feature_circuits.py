"""Circuits of features: all nodes are the model, none is the other run, and what is between is what a slow run gives."""

import dataclasses
import random
from typing import Any

import pytest
import torch

from circuits.concepts import Dictionary, FeatureCircuit, find_feature_circuit
from circuits.concepts.feature_nodes.exact import measure_nodes
from circuits.concepts.feature_nodes.judging import FeatureJudge, random_nodes
from circuits.concepts.feature_nodes.running import FeatureOutside, FeatureRuns, FeatureSet
from circuits.concepts.feature_nodes.taps import taps_of
from circuits.concepts.feature_nodes.targets import FeatureTarget
from circuits.errors import CircuitsError, PromptError
from circuits.models import Model
from circuits.tasks import PromptPairs, metrics
from tests.concepts.test_feature_nodes import FEATURES, random_dictionary, random_model

TWO = (("m0", "", "resid2", ""), ("a1", "", "m1", "in1"), ("m0", "mid0", "attn2", ""), ("resid1", "", "resid3", ""))


def runs_of(seed: int, outside: FeatureOutside = "corrupt") -> FeatureRuns:
    model, pairs = random_model(seed, causal=True)
    first, read, second, reads = TWO[seed % len(TWO)]
    own = [random_dictionary(model, first, seed, read, skip=bool(read)), random_dictionary(model, second, seed + 1, reads)]
    return FeatureRuns.on(model, taps_of(model, own), pairs, metrics.logit_difference, outside, 2**20)


def every(runs: FeatureRuns) -> list[tuple[int, int | str]]:
    """All nodes."""
    return [(row, one) for row, tap in enumerate(runs.taps) for one in (*range(FEATURES), *tap.rests)]


@pytest.mark.parametrize("outside", ["corrupt", "mean"])
@pytest.mark.parametrize("seed", range(4))
def test_all_nodes_are_the_model_and_what_is_taken_out_is_what_is_not_kept(seed: int, outside: FeatureOutside) -> None:
    runs = runs_of(seed, outside)
    nodes = every(runs)
    close: dict[str, Any] = {"atol": 1e-10, "rtol": 1e-8}
    torch.testing.assert_close(runs.only(FeatureSet.of(runs.taps, nodes)), runs.clean(), **close)
    torch.testing.assert_close(runs.without(FeatureSet.of(runs.taps, [])), runs.clean(), **close)
    torch.testing.assert_close(runs.without(FeatureSet.of(runs.taps, nodes)), runs.only(FeatureSet.of(runs.taps, [])), **close)
    for cut in (3, 9, 14):
        kept, taken = (FeatureSet.of(runs.taps, some) for some in (nodes[:cut], nodes[cut:]))
        torch.testing.assert_close(runs.only(kept), runs.without(taken), **close)
    assert not torch.allclose(runs.only(FeatureSet.of(runs.taps, [])), runs.clean())


@pytest.mark.parametrize("seed", range(4))
def test_one_node_taken_out_is_that_node_patched(seed: int) -> None:
    runs = runs_of(seed)
    row = len(runs.taps) - 1
    own = tuple(tap.apart(runs.own) for tap in runs.taps)
    nodes: list[tuple[int, int | str]] = [(row, one) for one in (*range(FEATURES), "error", "all")]
    goal = FeatureTarget(runs.pairs, runs.metric)
    patched = measure_nodes(runs.model, runs.taps, own, runs.others, nodes, runs.pairs, goal, 2**28)
    for node, scores in zip(nodes, patched, strict=True):
        some = [node] if node[1] != "all" else [one for one in every(runs) if one[0] == row]
        torch.testing.assert_close(runs.without(FeatureSet.of(runs.taps, some)), scores, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_errors_in_and_out_are_the_runs_that_they_say(seed: int) -> None:
    """By the runs themselves, over sets of which some hold errors."""
    runs = runs_of(seed)
    judge, nodes = FeatureJudge(runs), every(runs)
    rests = [node for node in nodes if node[1] == "error"]
    features = [node for node in nodes if node[0] == 1 and not isinstance(node[1], str)][:5]
    some = [*features, rests[1]]
    verdict = judge.verdict(some, nodes, 3, 0)

    def share(chosen: list[tuple[int, int | str]]) -> float:
        return float((runs.only(FeatureSet.of(runs.taps, chosen)) - runs.only(FeatureSet.of(runs.taps, []))).sum()) / gap

    gap = float((runs.clean() - runs.only(FeatureSet.of(runs.taps, []))).sum())
    assert verdict.faithfulness.effect == pytest.approx(share(some))
    assert verdict.errors_out.effect == pytest.approx(share(features))
    assert verdict.errors_in.effect == pytest.approx(share([*features, *rests]))
    assert verdict.errors_alone.effect == pytest.approx(share(rests)) and len(rests) == 2
    assert verdict.null != verdict.null_out, "random features beside the same error, and beside none"
    plain = judge.verdict(features, nodes, 3, 0)
    assert plain.errors_out == plain.faithfulness and plain.null == plain.null_out


def test_random_sets_have_as_many_features_of_each_dictionary_and_the_same_errors() -> None:
    nodes: list[tuple[int, int | str]] = [(row, one) for row in (0, 1) for one in (*range(9), "error", "skip")]
    some: list[tuple[int, int | str]] = [(0, 1), (0, 2), (1, 5), (1, "error")]
    drawn = [random_nodes(some, nodes, random.Random(seed)) for seed in range(40)]
    for one in drawn:
        assert sorted((row, isinstance(node, str)) for row, node in one) == [(0, False), (0, False), (1, False), (1, True)]
        assert (1, "error") in one and len(set(one)) == len(one)
    assert {node for one in drawn for node in one} == {node for node in nodes if node[1] not in ("error", "skip")} | {
        (1, "error")
    }


def plain_end(seed: int = 3) -> tuple[Model, PromptPairs, Dictionary]:
    """A model whose logits are linear in its last stream, and a dictionary of both signs of its dimensions, without error."""
    model, pairs = random_model(seed, causal=True, logit_cap=None)
    weights = dataclasses.replace(model.weights, final_norm=None)
    both = torch.cat([torch.eye(model.d_model), -torch.eye(model.d_model)]).double()
    zeros = torch.zeros(len(both), dtype=torch.float64)
    own = Dictionary("signs", "resid3", "relu", 0, both, zeros, both, zeros[: model.d_model], zeros)
    return dataclasses.replace(model, weights=weights), pairs, own


def test_where_all_is_linear_faithfulness_is_the_sum_of_scores() -> None:
    model, pairs, own = plain_end()
    found = find_feature_circuit(model, own, pairs, metrics.logit_difference, held_out=pairs, size=10**6, random_sets=19)
    assert found.faithfulness.effect == pytest.approx(1.0) and found.without.effect == pytest.approx(0.0, abs=1e-9)
    gap = sum(found.scores)
    for size, one, left in zip(found.sizes, found.curve, found.curve_without, strict=True):
        share = sum(found.scores[:size]) / gap
        assert one.effect == pytest.approx(share) and left.effect == pytest.approx(1 - share)
    assert found.metadata["pool"] == len(found.features) and 0 < (found.p_value or 0) <= 1


def test_the_circuit_is_as_small_as_keeps_what_is_asked_for() -> None:
    model, pairs, own = plain_end()
    about: dict[str, Any] = {"held_out": pairs, "random_sets": 19, "faithfulness": 0.5}
    found = find_feature_circuit(model, own, pairs, metrics.logit_difference, **about)
    gap = sum(find_feature_circuit(model, own, pairs, metrics.logit_difference, size=10**6, **about).scores)
    assert sum(found.scores) / gap >= 0.5 and sum(found.scores[:-1]) / gap < 0.5
    assert len(found) in found.sizes and found.faithfulness.effect == pytest.approx(sum(found.scores) / gap)
    assert isinstance(found, FeatureCircuit) and "keep" in found.summary
    assert found.to_dataframe()["nodes"].tolist() == list(found.sizes)


def test_what_cannot_be_asked_is_refused() -> None:
    model, pairs, own = plain_end()
    wrong: tuple[tuple[dict[str, Any], str], ...] = (({"size": 0}, "size=0"), ({"outside": "zero"}, "outside='zero'"))
    for more, words in (*wrong, ({"faithfulness": 2.0}, "faithfulness=2.0")):
        with pytest.raises(CircuitsError, match=words):
            find_feature_circuit(model, own, pairs, metrics.logit_difference, held_out=pairs, **more)
    same = dataclasses.replace(pairs, corrupt=pairs.clean)
    with pytest.raises(PromptError, match="nothing to attribute"):
        find_feature_circuit(model, own, same, metrics.logit_difference, held_out=pairs)
