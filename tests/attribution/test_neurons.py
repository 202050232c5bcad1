"""Edges between neurons: every score against its definition, and the largest against the dense selection."""

import itertools
import random

import pytest
import torch

from circuits import metrics
from circuits.attribution import EdgeScores, attribute_edges, blocks, neurons, topk
from circuits.attribution.needs import Needs
from circuits.attribution.neurons import attribute_neuron_edges
from circuits.attribution.topk import Largest
from circuits.errors import CircuitsError, MemoryBudgetError, NonFiniteError
from circuits.graph import Graph
from circuits.models import Model
from circuits.tasks import PromptPairs
from tests.attribution.reference import slow_scores
from tests.attribution.test_edges import assert_equal
from tests.models.test_brute_force import planted
from tests.patching.test_sweeps import difference_of, random_case

ALL = 10**6


def with_neurons(first: int = 0):
    """Random cases from a seed on that have an MLP of several neurons."""
    for seed in range(first, first + 1000):
        case = random_case(seed)
        if case[3].d_mlp > 3:
            yield case


def selected(scores: EdgeScores, keep: int) -> list[tuple[int, int, float]]:
    """The largest of complete scores: by |score|, then in the order of computation."""
    rows = list(zip(scores.writers.tolist(), scores.readers.tolist(), scores.values.tolist(), strict=True))
    return sorted(sorted(rows, key=lambda row: (-abs(row[2]), row[0], row[1]))[:keep])


def kept(scores: EdgeScores) -> list[tuple[int, int, float]]:
    return list(zip(scores.writers.tolist(), scores.readers.tolist(), scores.values.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_blocks_equal_the_gradient_by_every_neuron(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, _, _, model, pairs = random_case(seed)
    monkeypatch.setattr(blocks, "TILE", rng.choice([1, 20, 2**22]))
    monkeypatch.setattr(neurons, "READ_AT_ONCE", rng.choice([1, 3, 4096]))
    metric = rng.choice([metrics.logit_difference, metrics.log_probability])
    found = attribute_neuron_edges(model, pairs, metric, method="eap", keep=ALL)
    assert found.complete and bool(found.errors.isnan().all()) and found.metadata["prompts"] == len(pairs)
    assert_equal(found, slow_scores(model, pairs, metric, neurons=True), 1e-10)


@pytest.mark.parametrize("seed", range(100, 106))
def test_integrated_gradients_average_the_points_between(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, _, _, model, pairs = random_case(seed)
    monkeypatch.setattr(blocks, "TILE", rng.choice([1, 20, 2**22]))
    steps = 1 + seed % 3
    found = attribute_edges(model, pairs, difference_of, method="eap-ig", steps=steps, neurons=True, keep=ALL)
    shares = tuple((step + 0.5) / steps for step in range(steps))
    assert_equal(found, slow_scores(model, pairs, difference_of, neurons=True, shares=shares), 1e-10)


def budgets(model: Model, pairs: PromptPairs) -> dict[int, int]:
    """By the number of groups of layers: the smallest budget that takes so many."""
    found, budget = {}, 2**24
    while True:
        try:
            found[len(Needs.of(model, pairs, 2, 5, model.dtype).bands(budget))] = budget
        except MemoryBudgetError as error:
            assert "MiB" in str(error) and "fewer" in str(error)
            return found
        budget = budget * 15 // 16


@pytest.mark.parametrize("seed", range(5))
def test_every_budget_gives_the_same_scores(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed)
    chosen = budgets(model, pairs)
    assert len(chosen) == min(model.n_layers, 3)
    seen = [attribute_neuron_edges(model, pairs, difference_of, steps=2, keep=5, budget=b) for b in (2**28, *chosen.values())]
    for other in seen:
        assert torch.equal(other.writers, seen[0].writers) and torch.equal(other.readers, seen[0].readers)
        assert float((other.values - seen[0].values).abs().max()) <= 1e-12 * max(1.0, float(seen[0].values.abs().max()))
    with pytest.raises(MemoryBudgetError, match="5 edges"):
        attribute_neuron_edges(model, pairs, difference_of, steps=2, keep=5, budget=min(chosen.values()) * 15 // 16)


def test_a_budget_is_obeyed_by_the_call_on_all_edges_or_refused_with_the_least_that_works() -> None:
    _, _, _, model, pairs = random_case(3)
    with pytest.raises(MemoryBudgetError, match="need 1 MiB, the budget is 0 MiB: give a larger budget"):
        attribute_edges(model, pairs, difference_of, neurons=True, steps=2, keep=5, budget=100)
    assert len(attribute_edges(model, pairs, difference_of, neurons=True, steps=2, keep=5, budget=2**20)) == 5


@pytest.mark.parametrize("budget", [10, 1000, 3000, 6000, 10**6])
def test_prompts_run_at_the_same_time_in_what_is_not_gathered_yet(budget: int) -> None:
    needs = Needs(said="", prompts=8, n_layers=2, always=800, layer=400, run=250)
    sizes = needs.sizes(budget, 2)
    assert sum(sizes) == 8 and sizes == sorted(sizes, reverse=True)
    for place, size in enumerate(sizes):
        done = sum(sizes[: place + 1])
        assert size == 1 or done * 200 + size * 250 <= budget
    assert sizes == {10: [1] * 8, 1000: [2, *[1] * 6], 3000: [6, 2], 6000: [8], 10**6: [8]}[budget]


@pytest.mark.parametrize("seed", range(100))
def test_the_streamed_largest_are_the_dense_selection(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    graph = Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=rng.randint(1, 20), neurons=True)
    height, width = graph.writer_count, graph.reader_count
    monkeypatch.setattr(topk, "SLACK", rng.choice([0, 10, 2**16]))
    generator = torch.Generator().manual_seed(seed)
    levels = rng.choice([1, 2, 5, 1000])  # few levels: mostly ties; one: zeros alone
    scores = torch.randint(1 - levels, levels, (height, width), generator=generator) / 8
    scores = scores.to(rng.choice([torch.float32, torch.float64]))
    keep = rng.choice([0, 1, rng.randint(1, height * width), rng.randint(1, 40), height * width + 5])
    largest = Largest(keep, graph)
    rows = sorted({0, height, *(rng.randrange(height) for _ in range(5))})
    columns = sorted({0, width, *(rng.randrange(width) for _ in range(5))})
    corners = [(slice(*row), slice(*column)) for row in itertools.pairwise(rows) for column in itertools.pairwise(columns)]
    rng.shuffle(corners)
    for row, column in corners:
        largest.add(scores[row, column], row.start, column.start)
    every = [(writer, reader, float(scores[writer, reader])) for writer in range(height) for reader in range(width)]
    dense = sorted(sorted(every, key=lambda edge: (-abs(edge[2]), edge[:2]))[:keep])
    assert list(zip(*(part.tolist() for part in largest.found()), strict=True)) == dense


@pytest.mark.parametrize("seed", range(10))
def test_models_with_twins_and_dead_neurons_keep_the_earlier_edge(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, shape, weights, _, pairs = next(with_neurons(100 * seed))
    monkeypatch.setattr(blocks, "TILE", rng.choice([20, 2**22]))
    monkeypatch.setattr(topk, "SLACK", 0)
    for name, value in weights.items():
        if ".mlp.out.weight" in name:
            value[:, 1], value[:, 2] = value[:, 0], 0
        elif ".mlp." in name and value.shape[0] > 3 and "out" not in name:
            value[1] = value[0]
    model = planted(shape, weights)
    whole = attribute_neuron_edges(model, pairs, difference_of, method="eap", keep=ALL)
    twins = [whole.of(f"m0.n{neuron}->logits") for neuron in (0, 1, 2)]
    assert twins[0] == pytest.approx(twins[1], rel=1e-12, abs=1e-13) and twins[2] == 0
    for keep in (1, 2, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        assert kept(attribute_neuron_edges(model, pairs, difference_of, method="eap", keep=keep)) == selected(whole, keep)


def test_the_same_call_gives_the_same_bytes(tmp_path) -> None:
    _, _, _, model, pairs = next(with_neurons())
    contents = []
    for name in ("a.json", "b.json"):
        found = attribute_neuron_edges(model, pairs, difference_of, keep=30)
        found.save(tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
        assert kept(EdgeScores.load(tmp_path / name)) == kept(found)
    assert contents[0] == contents[1]


def test_progress_and_an_empty_selection() -> None:
    _, _, _, model, pairs = next(with_neurons())
    seen = []
    found = attribute_neuron_edges(model, pairs, difference_of, keep=0, progress=lambda *step: seen.append(step[1:]))
    assert len(found) == 0 and found.by_label.shape == (1, 0) and found.top(3).edges == {}
    assert seen == [(step, model.n_layers + 1) for step in range(model.n_layers + 2)]


@pytest.mark.parametrize(
    "options", [{"method": "exact"}, {"method": "eap-ig-activations"}, {"steps": 0}, {"keep": -1}, {"keep": True}]
)
def test_refusals_name_what_was_given(options: dict) -> None:
    _, _, _, model, pairs = next(with_neurons())
    ((_, value),) = options.items()
    with pytest.raises(CircuitsError, match=repr(value)):
        attribute_neuron_edges(model, pairs, difference_of, **options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_refused_by_name(bad: float) -> None:
    graph = Graph(n_layers=2, n_heads=1, n_key_value_heads=1, d_mlp=3, neurons=True)
    block = torch.zeros(3, 2)
    block[1, 1] = bad
    with pytest.raises(NonFiniteError, match=r"m0\.n1->m1\.n2"):
        Largest(2, graph).add(block, graph.writer_index("m0.n0"), graph.reader_index("m1.n1"))
