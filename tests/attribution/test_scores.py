"""What attributions add up to, and scores as a table, a circuit and a file."""

import contextlib
import json
import random

import pytest
import torch

from circuits import metrics
from circuits.attribution import EdgeScores, attribute_edges
from circuits.attribution.factors.pulls import AT_ONCE
from circuits.errors import CircuitsError, FileFormatError, GraphError, MemoryBudgetError
from circuits.patching import patch_edges, patch_nodes
from circuits.tasks import PromptPairs, fact_pairs, induction, mini_facts
from tests.attribution.reference import slow_scores
from tests.models import bundled
from tests.patching.test_sweeps import difference_of, random_case


@pytest.fixture(scope="module")
def mini():
    return bundled.mini()


@pytest.fixture(scope="module")
def scores(mini) -> EdgeScores:
    return attribute_edges(mini, induction(mini, 8), difference_of, method="eap-ig", steps=3)


def gap_of(model, pairs: PromptPairs) -> float:
    clean, corrupt = (
        difference_of(metrics.answer_logits(model.run(side), pairs), pairs) for side in (pairs.clean, pairs.corrupt)
    )
    return float((corrupt - clean).mean())


def test_integrated_gradients_are_complete(mini) -> None:
    """Edges out of the input carry all that differs, so at many steps their scores add up to the whole gap."""
    wide = bundled.mini(torch.float64)
    for pairs in (induction(wide, 4), fact_pairs(wide, mini_facts(relation="country_capital"), count=4)):
        found = attribute_edges(wide, pairs, difference_of, method="eap-ig", steps=32)
        total = float(found.values[found.writers == 0].sum())
        ends = [
            metrics.logit_difference(metrics.answer_logits(wide.run(side), pairs), pairs)
            for side in (pairs.clean, pairs.corrupt)
        ]
        gap = float((ends[1] - ends[0]).mean())
        assert abs(total - gap) <= 1e-3 * abs(gap)


@pytest.mark.parametrize("seed", range(12))
def test_integrated_gradients_are_complete_on_random_models(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    found = attribute_edges(model, pairs, difference_of, method="eap-ig", steps=64)
    ends = [
        metrics.logit_difference(metrics.answer_logits(model.run(side), pairs), pairs) for side in (pairs.clean, pairs.corrupt)
    ]
    gap = float((ends[1] - ends[0]).mean())
    smooth = all(block.mlp is None or block.mlp.activation != "relu" for block in model.weights.blocks)
    total = float(found.values[found.writers == 0].sum())
    size = max(1.0, float(found.values.abs().sum()))
    assert abs(total - gap) <= (1e-3 if smooth else 1e-2) * size


@pytest.mark.slow
@pytest.mark.parametrize("task", ["induction", "facts"])
def test_attribution_ranks_as_exact_patching_does(mini, task: str) -> None:
    capitals = mini_facts(relation="country_capital")
    pairs = induction(mini, 4) if task == "induction" else fact_pairs(mini, capitals, count=4)
    found = attribute_edges(mini, pairs, difference_of, method="eap-ig", steps=5)
    rows, every = found.order()[:100], found.edges()
    edges = [every[int(row)] for row in rows]
    effects = patch_edges(mini, pairs, difference_of, edges, direction="noising")
    exact = (effects.scores - effects.clean).mean(dim=1)
    estimate = found.values[rows]
    assert float((exact.sign() == estimate.sign()).double().mean()) >= 0.9
    ranks = torch.stack([exact.argsort().argsort(), estimate.argsort().argsort()]).double()
    assert float(torch.corrcoef(ranks)[0, 1]) >= 0.9


@pytest.mark.parametrize("seed", (8, 12))
def test_interpolated_activations_give_what_each_layer_brings(seed: int) -> None:
    """The edges out of a layer's heads add up to what patching its attention brings; those out of an MLP likewise."""
    _, _, _, model, pairs = random_case(seed, plain=True)
    graph, found = model.graph(), attribute_edges(model, pairs, difference_of, method="eap-ig-activations", steps=40)
    sums = torch.zeros(graph.writer_count, dtype=torch.float64).index_add_(0, found.writers, found.values)
    sites = ["input", *(f"{kind}{layer}" for layer in range(model.n_layers) for kind in ("attn", "m"))]
    sites = [site for site in sites if model.d_mlp or not site.startswith("m")]
    effects = patch_nodes(model, pairs, difference_of, sites, direction="noising")
    brought = (effects.scores - effects.clean).mean(dim=1)
    layers = sums[1:].split(graph.n_heads + graph.mlp_writers)
    ends = (graph.n_heads, graph.n_heads + graph.mlp_writers)[: 2 if model.d_mlp else 1]
    parts = [layer[first:last] for layer in layers for first, last in zip((0, *ends), ends, strict=False)]
    totals = torch.stack([part.sum() for part in (sums[:1], *parts)])
    assert torch.allclose(totals, brought, atol=2e-3 * max(1.0, float(brought.abs().max())))


@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_scores_say_how_far_they_are_from_adding_up(mini, method: str) -> None:
    pairs = induction(mini, 4)
    found = attribute_edges(mini, pairs, difference_of, method=method, steps=2)
    told, total = found.metadata["completeness"], float(found.values[found.writers == 0].sum())
    gap = gap_of(mini, pairs)
    assert told["input_edges"] == pytest.approx(total) and told["gap"] == pytest.approx(gap, rel=1e-5)
    assert told["error"] == pytest.approx(abs(total - gap) / abs(gap), rel=1e-4)
    assert f"completeness error {told['error']:.0%}" in found.summary
    each = attribute_edges(mini, pairs, difference_of, method=method, steps=2, positions="each")
    assert each.metadata["completeness"]["input_edges"] == pytest.approx(total, rel=1e-4)
    assert "completeness" not in attribute_edges(mini, pairs, difference_of, method="eap", positions=[-1]).metadata


def test_many_steps_are_the_mean_of_few() -> None:
    """More gradient runs than are held at a time give what they give one by one."""
    _, _, _, model, pairs = random_case(5)
    steps = 2 * AT_ONCE + 1
    found = attribute_edges(model, pairs, difference_of, method="eap-ig", steps=steps)
    slow = slow_scores(model, pairs, difference_of, shares=tuple((step + 0.5) / steps for step in range(steps)))
    expected = torch.tensor([slow[str(edge)] for edge in found.edges()], dtype=torch.float64)
    assert float((found.values - expected).abs().max()) <= 1e-10 * max(1.0, float(expected.abs().max()))


def test_exact_scores_are_patches(mini) -> None:
    _, _, _, model, pairs = random_case(3)
    found = attribute_edges(model, pairs, difference_of, method="exact")
    effects = patch_edges(model, pairs, difference_of, direction="noising")
    for name, change in zip(effects.names, (effects.scores - effects.clean).mean(dim=1).tolist(), strict=True):
        assert found.of(name) == pytest.approx(change, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_positions_add_up(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    whole = attribute_edges(model, pairs, difference_of, method="eap")
    each = attribute_edges(model, pairs, difference_of, method="eap", positions="each")
    assert each.by_label.shape[0] == pairs.clean.ids.shape[1]
    assert float((each.values - whole.values).abs().max()) <= 1e-10 * max(1.0, float(whole.values.abs().max()))
    pads = ~pairs.clean.mask.any(dim=0)
    assert float(each.by_label[pads].abs().sum()) == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_budgets_batches_and_pads_change_nothing(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    whole = attribute_edges(model, pairs, difference_of, method="eap-ig", steps=2)
    small = attribute_edges(model, pairs, difference_of, method="eap-ig", steps=2, budget=2**14)
    assert float((whole.values - small.values).abs().max()) <= 1e-10 * max(1.0, float(whole.values.abs().max()))
    parts = [attribute_edges(model, pairs[[row]], difference_of, method="eap-ig", steps=2).values for row in range(len(pairs))]
    alone = torch.stack(parts)
    assert float((alone.mean(dim=0) - whole.values).abs().max()) <= 1e-10 * max(1.0, float(whole.values.abs().max()))
    errors = alone.std(dim=0) / len(pairs) ** 0.5
    assert torch.allclose(whole.errors[0], errors, atol=1e-7)


def test_top_edges_are_the_largest(scores: EdgeScores) -> None:
    order = sorted(range(len(scores)), key=lambda row: (-abs(float(scores.values[row])), row))
    names = [str(edge) for edge in scores.edges()]
    assert {str(edge) for edge in scores.top(50).edges} == {names[row] for row in order[:50]}
    assert {str(edge) for edge in scores.top(7, by="support").edges} == {
        names[row] for row in sorted(range(len(scores)), key=lambda row: (float(scores.values[row]), row))[:7]
    }
    connected = scores.top(40, connected=True)
    assert 0 < len(connected) <= 40 and len(connected.connected()) == len(connected)
    assert len(scores.top(0)) == 0 and len(scores.top(10**6)) == len(scores)
    assert scores.to_dataframe().iloc[0]["edge"] == names[order[0]]
    assert scores.nodes()


def test_scores_survive_a_file_and_refuse_mutations(scores: EdgeScores, tmp_path) -> None:
    path = tmp_path / "scores.json"
    scores.save(path)
    again = EdgeScores.load(path)
    assert torch.equal(again.by_label, scores.by_label) and again.graph == scores.graph and again.labels == scores.labels
    data, draw = json.loads(path.read_text()), random.Random(0)
    for _ in range(60):
        broken = dict(data)
        key = draw.choice(["writers", "readers", "scores", "errors", "labels", "graph", "metadata", "version"])
        broken[key] = draw.choice([None, "x", [], [1], {}, -1, [[1.0]], [10**9] * len(scores)])
        path.write_text(json.dumps(broken))
        with contextlib.suppress(FileFormatError):
            EdgeScores.load(path)


def test_refusals(mini, scores: EdgeScores) -> None:
    pairs = induction(mini, 2)
    for options in ({"steps": 0}, {"neurons": True, "positions": "each"}):
        with pytest.raises(CircuitsError):
            attribute_edges(mini, pairs, difference_of, **options)
    with pytest.raises(MemoryBudgetError, match="MiB"):
        attribute_edges(mini, pairs, difference_of, method="eap", budget=1000)
    with pytest.raises(GraphError):
        scores.top(-1)
    with pytest.raises(GraphError):
        scores.of("a9.h9->logits")


def test_non_finite_is_never_ranked(mini) -> None:
    pairs: PromptPairs = induction(mini, 2)
    with pytest.raises(CircuitsError):
        attribute_edges(mini, pairs, lambda logits, pairs: logits[:, 0] * float("nan"), method="eap")
