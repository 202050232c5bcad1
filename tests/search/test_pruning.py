"""Edge pruning: the gated run against circuits, its gradient against differences, and planted circuits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import metrics
from circuits.errors import CircuitsError, NonFiniteError
from circuits.graph import Circuit
from circuits.models.layers import unembed
from circuits.patching import run_circuits
from circuits.search.methods.gate_table import final_stream
from circuits.search.methods.gated_run import GatedRun
from circuits.search.methods.gates import open_probability, sampled
from circuits.search.methods.pruning import prune_edges
from circuits.tasks.library.planted import carrying, planted_task
from tests.patching.test_sweeps import random_case


def auroc(values: torch.Tensor, truth: torch.Tensor) -> float:
    """How often a true edge scores above one that is not, ties counted half."""
    ahead, level = (compare(values[truth][:, None], values[~truth][None]) for compare in (torch.gt, torch.eq))
    return float((ahead.double() + level.double() / 2).mean())


def score(run: GatedRun, pairs, values: torch.Tensor) -> torch.Tensor:
    return metrics.log_probability(unembed(run.model.weights, final_stream(run, run.gates(values)))[:, 0], pairs)


@pytest.mark.parametrize("seed", range(30))
def test_gates_of_0_and_1_are_circuits(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    outside = rng.choice(["corrupt", "mean", "zero"])
    run, graph = GatedRun.of(model, pairs, outside), model.graph()
    edges = prune_order(model)
    open_edges = [set(rng.sample(range(len(edges)), rng.randint(0, len(edges) - 1))) for _ in range(len(pairs))]
    values = torch.tensor([[float(row in chosen) for row in range(len(edges))] for chosen in open_edges]).double()
    found = score(run, pairs, values)  # every prompt has a circuit of its own
    circuits = [Circuit(graph, [edges[row] for row in chosen]) for chosen in open_edges]
    expected = run_circuits(model, pairs, metrics.log_probability, circuits, outside=outside).diagonal()
    assert float((found - expected).abs().max()) <= 1e-10 * max(1.0, float(expected.abs().max()))


def prune_order(model) -> list:
    """The edges in the order of the gates."""
    from circuits.attribution.scores import EdgeScores

    graph = model.graph()
    empty = torch.zeros(1, graph.writer_count, graph.reader_count)
    return EdgeScores.dense(graph, empty, empty).edges()


@pytest.mark.parametrize("seed", range(8))
def test_gradients_are_differences(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed, plain=True)
    run, generator = GatedRun.of(model, pairs, "corrupt"), torch.Generator().manual_seed(seed)
    values = torch.rand(len(pairs), model.graph().edge_count, generator=generator, dtype=torch.float64).requires_grad_()
    score(run, pairs, values).sum().backward()
    way = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (score(run, pairs, values + step * way).sum() for step in (1e-6, -1e-6))
    assert values.grad is not None
    slope = float((values.grad * way).sum())
    assert abs(float(ahead - behind) / 2e-6 - slope) <= 1e-5 * max(1.0, abs(slope))


@pytest.mark.parametrize("seed", range(8))
def test_gates_that_all_prompts_share_are_the_same_gates_for_each(seed: int) -> None:
    _, _, _, model, pairs = random_case(seed, plain=seed % 2 == 0)
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(1, model.graph().edge_count, generator=generator, dtype=torch.float64)
    values = values.masked_fill(torch.rand(values.shape, generator=generator) < 0.7, 0.0)  # most nodes are at rest
    values = values.to(model.dtype).requires_grad_()
    for outside in ("corrupt", "zero"):
        run = GatedRun.of(model, pairs, outside)
        shared, each = (score(run, pairs, one) for one in (values, values.expand(len(pairs), -1)))
        ways = [torch.autograd.grad(found.sum(), values)[0] for found in (shared, each)]
        torch.testing.assert_close(shared, each, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(*ways, rtol=1e-8, atol=1e-8)


def test_a_closed_gate_into_a_node_that_is_read_has_its_gradient() -> None:
    _, _, _, model, pairs = random_case(5, plain=True)
    run, edges = GatedRun.of(model, pairs, "corrupt"), prune_order(model)
    head = next(edge.writer for edge in edges if edge.writer.kind == "head" and edge.reader.kind == "logits")
    values = torch.zeros(1, len(edges), dtype=model.dtype)
    values[0, [str(edge) for edge in edges].index(f"{head}->logits")] = 1.0
    into = next(row for row, edge in enumerate(edges) if str(edge) == f"input->{head}<v>")
    slope = torch.autograd.grad(score(run, pairs, values.requires_grad_()).sum(), values)[0][0, into]
    with torch.no_grad():
        ahead, behind = values.clone(), values.clone()
        ahead[0, into], behind[0, into] = 1e-6, -1e-6
        difference = (score(run, pairs, ahead) - score(run, pairs, behind)).sum() / 2e-6
    assert abs(float(slope)) > 1e-9 and float(slope) == pytest.approx(float(difference), rel=1e-5)


def test_autograd_keeps_nothing_of_the_layers_for_a_gradient_by_gates() -> None:
    _, _, _, model, pairs = random_case(5, plain=True)
    run = GatedRun.of(model, pairs, "corrupt")
    values = torch.full((1, model.graph().edge_count), 0.5, dtype=model.dtype, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        final_stream(run, run.gates(values))
    assert sum(x.numel() for x in kept) <= 2 * values.numel() + model.graph().writer_count * model.graph().reader_count


def test_gates_are_open_as_often_as_they_say() -> None:
    log_alpha = torch.tensor([-4.0, -1.0, 0.0, 2.0]).double()
    drawn = sampled(log_alpha, 20_000, torch.Generator().manual_seed(0))
    assert float(drawn.min()) == 0.0
    assert float(drawn.max()) == 1.0
    assert float(((drawn > 0).double().mean(dim=0) - open_probability(log_alpha)).abs().max()) < 0.015


@pytest.mark.parametrize(("name", "seed"), [("gate", 0), ("chain", 0)])
def test_planted_circuits_are_found(name: str, seed: int) -> None:
    planted, pairs = planted_task(name, seed, count=18)
    wanted = carrying(planted, pairs)
    scores = prune_edges(planted.model, pairs, edges=len(wanted), steps=80, seed=seed)
    truth = torch.tensor([edge in wanted.edges for edge in scores.edges()])
    assert auroc(scores.values, truth) > 0.999
    assert set(scores.top(len(wanted)).edges) == set(wanted.edges)


def test_the_planted_induction_circuit_is_found() -> None:
    planted, pairs = planted_task("induction", 0, count=9)
    wanted = carrying(planted, pairs)
    scores = prune_edges(planted.model, pairs, edges=len(wanted), steps=100)
    assert auroc(scores.values, torch.tensor([edge in wanted.edges for edge in scores.edges()])) > 0.99


def test_scores_and_what_they_say_of_themselves() -> None:
    _, _, _, model, pairs = random_case(5, plain=True)
    metric = metrics.logit_difference
    first, again, other = (prune_edges(model, pairs, metric, share=0.2, steps=20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)
    assert first.complete
    assert 0 <= float(first.values.min()) <= float(first.values.max()) <= 1
    said = first.metadata
    assert (said["method"], said["steps"], said["seed"], said["metric"]) == ("edge-pruning", 20, 3, "logit_difference")
    assert said["target"] == round(0.2 * model.graph().edge_count)
    assert said["expected_edges"] == pytest.approx(float(first.values.sum()))


def test_what_is_refused() -> None:
    _, _, _, model, pairs = random_case(5, plain=True)
    options: dict[str, Any]
    for options in ({}, {"edges": 3, "share": 0.1}):
        with pytest.raises(CircuitsError, match="either how many edges or which share"):
            prune_edges(model, pairs, **options)
    for options in ({"edges": 0}, {"edges": 10**6}, {"share": 0.0}, {"share": 1.5}, {"edges": 3, "steps": 0}):
        with pytest.raises(CircuitsError, match="edge"):
            prune_edges(model, pairs, **options)
    with pytest.raises(CircuitsError, match="learning rate"):
        prune_edges(model, pairs, edges=3, learning_rate=float("nan"))

    def broken(logits: torch.Tensor, pairs) -> torch.Tensor:
        return logits[:, 0] * float("nan")

    with pytest.raises(NonFiniteError, match="while gates are trained"):
        prune_edges(model, pairs, broken, edges=3)
