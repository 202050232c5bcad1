"""ACDC against one run an edge, on random models, a toy and planted circuits."""

import dataclasses

import pytest
import torch

from circuits import metrics
from circuits.errors import CircuitsError, GraphError, NonFiniteError
from circuits.graph import Circuit
from circuits.search.acdc.descent import acdc, acdc_thresholds
from circuits.tasks.library.planted import carrying, planted_task
from experiments.benchmarks.acdc import toy, toy_pairs
from tests.patching.test_sweeps import random_case
from tests.search.slow_acdc import slow_acdc

SEEDS = sorted({*range(48)} - {9, 11, 40, 44})
"""Without models so large that a run an edge takes seconds."""
METRICS = (None, metrics.logit_difference, metrics.log_probability)


def assert_same(found: Circuit, slow: dict[str, float]) -> None:
    fast = {str(edge): score for edge, score in found.edges.items() if score is not None}
    assert fast.keys() == slow.keys()
    assert all(abs(fast[edge] - cost) <= 1e-9 * max(1.0, abs(cost)) for edge, cost in slow.items())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_circuit_of_one_run_an_edge(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    metric, threshold = rng.choice(METRICS), rng.choice([1e-3, 1e-2, 0.05, 0.2])
    outside, budget = rng.choice(["corrupt", "corrupt", "mean", "zero"]), rng.choice([2**28, 2**13])
    found = acdc(model, pairs, metric, threshold=threshold, outside=outside, connected=False, budget=budget)
    assert_same(found, slow_acdc(model, pairs, metric, threshold, outside=outside))


@pytest.mark.parametrize("seed", [12, 16, 17, 23, 25])
def test_norms_after_attention_share_their_scale_with_heads_that_nothing_reads(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    blocks = model.weights.blocks
    blocks = tuple(dataclasses.replace(block, attention=dataclasses.replace(block.attention, b_O=None)) for block in blocks)
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks))
    for threshold in (0.01, 0.3):
        found = acdc(model, pairs, threshold=threshold, connected=False)
        assert_same(found, slow_acdc(model, pairs, None, threshold))


def test_the_toy_of_257_edges() -> None:
    model, pairs = toy(200, d_model=32, dtype=torch.float64), toy_pairs(200, tokens=8)
    found = acdc(model, pairs, threshold=1e-3, connected=False)
    assert found.graph.edge_count == 257
    assert 20 < len(found) < 200
    assert_same(found, slow_acdc(model, pairs, None, 1e-3))


@pytest.mark.parametrize("seed", range(6))
def test_thresholds_share_a_descent_and_change_nothing(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    metric, thresholds = rng.choice(METRICS), [0.2, 1e-3, 0.01, 0.05, 0.01]
    together = acdc_thresholds(model, pairs, thresholds, metric, budget=rng.choice([2**28, 2**13]))
    for threshold, circuit in zip(thresholds, together, strict=True):
        alone = acdc(model, pairs, metric, threshold=threshold)
        assert circuit.metadata["threshold"] == threshold
        assert_same(circuit, {str(edge): float(score or 0.0) for edge, score in alone.edges.items()})


@pytest.mark.parametrize("name", ["induction", "gate", "chain", "recall"])
def test_planted_circuits_are_found(name: str) -> None:
    planted, pairs = planted_task(name, 0)
    wanted = set(carrying(planted, pairs).edges)
    for circuit in acdc_thresholds(planted.model, pairs, [1e-3, 1e-2, 0.1]):
        assert set(circuit.edges) == wanted
        run = circuit.metadata["evaluations"]
        assert isinstance(run, int)
        assert run < circuit.graph.edge_count / 2, "nodes that nothing reads are not visited"
    found = acdc(planted.model, pairs, metrics.logit_difference, threshold=0.1)
    assert wanted <= set(found.edges)


def test_a_planted_circuit_edge_by_edge() -> None:
    planted, pairs = planted_task("gate", 1, count=12)
    assert_same(acdc(planted.model, pairs, connected=False), slow_acdc(planted.model, pairs, None, 0.01))


def test_a_metric_that_is_lower_where_the_model_does_better() -> None:
    _, _, _, model, pairs = random_case(3, plain=True)
    divergence = metrics.kl_divergence(metrics.answer_logits(model.run(pairs.clean), pairs))
    given, own = (acdc(model, pairs, metric, threshold=0.02) for metric in (divergence, None))
    assert list(given.edges) == list(own.edges)


def test_what_a_circuit_says_of_itself() -> None:
    _, _, _, model, pairs = random_case(5, plain=True)
    seen: list[tuple[int, int]] = []
    found = acdc(model, pairs, threshold=0.05, progress=lambda what, done, total: seen.append((done, total)))
    said, whole = found.metadata, acdc(model, pairs, threshold=0.05, connected=False)
    assert (said["method"], said["threshold"], said["metric"]) == ("acdc", 0.05, "kl_divergence")
    assert said["kept"] == len(whole) >= len(found)
    assert said["total"] == model.graph().edge_count
    assert said["weights_sha256"] == model.fingerprint
    assert found.edges == whole.connected().edges
    assert all(score is not None and score >= 0.05 for score in found.edges.values())
    assert seen == sorted(seen)
    assert seen[-1] == (model.graph().edge_count,) * 2


def test_what_is_refused() -> None:
    _, _, _, model, pairs = random_case(5, plain=True)
    for threshold in (float("nan"), float("inf")):
        with pytest.raises(CircuitsError, match="finite number"):
            acdc(model, pairs, threshold=threshold)
    with pytest.raises(CircuitsError, match="needs a threshold"):
        acdc_thresholds(model, pairs, [])
    with pytest.raises(GraphError, match="attribute_edges"):
        acdc(model, pairs, neurons=True)

    def broken(logits: torch.Tensor, pairs) -> torch.Tensor:
        return logits[:, 0] * float("nan")

    with pytest.raises(NonFiniteError, match="broken of the clean prompts is nan"):
        acdc(model, pairs, broken)
    own = metrics.log_probability(metrics.answer_logits(model.run(pairs.clean), pairs), pairs)

    def steep(logits: torch.Tensor, pairs) -> torch.Tensor:
        moved = (metrics.log_probability(logits, pairs) - own).abs()
        return torch.where(moved > 1e-9, torch.nan, moved)

    with pytest.raises(NonFiniteError, match=r"the steep is nan when \S+->logits is cut"):
        acdc(model, pairs, steep)
