"""Edge attribution against its definition, against small exact patches, and its laws."""

import pytest
import torch

from circuits import metrics
from circuits.attribution import EdgeScores, attribute_edges
from circuits.graph import Circuit, Reader
from circuits.patching import run_circuits
from circuits.patching.engine.base import Base
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sweep import Sweep
from circuits.tasks.metric import answer_logits
from tests.attribution.reference import slow_scores
from tests.patching.test_sweeps import difference_of, random_case


def assert_equal(found: EdgeScores, expected: dict[str, float], bound: float) -> None:
    got = dict(zip(map(str, found.edges()), found.values.tolist(), strict=True))
    assert got.keys() == expected.keys()
    size = max(1.0, *map(abs, expected.values()))
    worst = max(expected, key=lambda name: abs(got[name] - expected[name]))
    assert abs(got[worst] - expected[worst]) <= bound * size, (worst, got[worst], expected[worst])


@pytest.mark.parametrize("seed", range(25))
def test_eap_equals_the_gradient_by_every_reader(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed)
    metric = rng.choice([metrics.logit_difference, metrics.log_probability])
    found = attribute_edges(model, pairs, metric, method="eap", budget=rng.choice([2**28, 2**16]))
    assert_equal(found, slow_scores(model, pairs, metric), 1e-10)


@pytest.mark.parametrize("seed", range(12))
def test_integrated_gradients_average_the_points_between(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    steps = 1 + seed % 4
    found = attribute_edges(model, pairs, difference_of, method="eap-ig", steps=steps)
    shares = tuple((step + 0.5) / steps for step in range(steps))
    assert_equal(found, slow_scores(model, pairs, difference_of, shares=shares), 1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_a_metric_that_knows_every_prompt_can_be_cut_with_them(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    kl = metrics.kl_divergence(answer_logits(model.run(pairs.corrupt), pairs))
    small, circuit = 2**12, Circuit(model.graph(), ["input->logits"])
    whole, cut = (attribute_edges(model, pairs, kl, method="eap", budget=budget) for budget in (2**28, 2**16))
    torch.testing.assert_close(whole.values, cut.values, rtol=1e-9, atol=1e-12)
    ends = [run_circuits(model, pairs, kl, [circuit], budget=budget) for budget in (2**28, small)]
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_scores_are_the_slopes_of_exact_patches(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    found = attribute_edges(model, pairs, metrics.log_probability, method="eap")
    clean, corrupt = model.run(pairs.clean), model.run(pairs.corrupt)
    sweep, graph, small = Sweep(model, clean, Reading.of(metrics.log_probability, pairs)), model.graph(), 1e-4
    base, other = Base(model, clean), Base(model, corrupt)
    variants = []
    for edge in found.edges():
        delta, reader = difference(base, other, edge.writer), Reader(edge.reader, edge.slot)
        for share in (small, -small):
            variants.append((reading_change(graph, reader, share * delta, pairs.clean.mask),))
    scores = sweep.evaluate(variants).mean(dim=1)
    slopes = (scores[::2] - scores[1::2]) / (2 * small)
    assert float((slopes - found.values).abs().max()) <= 1e-6 * max(1.0, float(slopes.abs().max()))
