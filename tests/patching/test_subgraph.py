"""Many circuits at once against one reader after the other, over every kind of model."""

import dataclasses
import random

import pytest
import torch
from torch import Tensor

from circuits import metrics
from circuits.graph import Circuit, Graph, Node
from circuits.models import Model, Run, node_output
from circuits.patching import run_circuits
from circuits.tasks import PromptPairs
from tests.models.random_models import D_VOCAB
from tests.patching.slow_subgraph import slow_subgraph
from tests.patching.test_sweeps import random_case, random_pairs


def outside_values(graph: Graph, run: Run, kind: str) -> dict[Node, Tensor]:
    """What edges outside carry, node by node."""
    mask, found = run.tokens.mask, {}
    for node in graph.nodes():
        if node.kind == "logits":
            continue
        value = node_output(run, node)
        if kind == "zero":
            value = torch.zeros_like(value)
        elif kind == "mean":
            mean = value.mean(dim=0) if bool(mask.all()) else value[mask].mean(dim=0)
            value = mean.expand_as(value)
        found[node] = value
    return found


def circuits_of(rng: random.Random, graph: Graph, count: int) -> list[Circuit]:
    edges = list(graph.edges())
    sizes = [rng.choice([0, 1, 3, len(edges) // 4, len(edges) // 2, len(edges) - 1, len(edges)]) for _ in range(count)]
    return [Circuit(graph, rng.sample(edges, min(size, len(edges)))) for size in sizes]


def assert_equal(model: Model, pairs: PromptPairs, circuits: list[Circuit], found: Tensor, kind: str, metric) -> None:
    own, other, rows = model.run(pairs.clean), model.run(pairs.corrupt), torch.arange(len(pairs))
    for circuit, scores in zip(circuits, found, strict=True):
        theirs = outside_values(circuit.graph, other, kind)
        slow = metric(slow_subgraph(model, own, circuit, theirs)[rows, pairs.answer_columns], pairs)
        assert float((scores - slow).abs().max()) <= 1e-10 * max(1.0, float(slow.abs().max())), (len(circuit), kind)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("neurons", [False, True])
def test_circuits_equal_one_reader_after_the_other(seed: int, neurons: bool) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    graph = model.graph(neurons=neurons)
    circuits = circuits_of(rng, graph, 5)
    budget = rng.choice([2**28, 2**12])
    found = run_circuits(model, pairs, metrics.log_probability, circuits, budget=budget)
    assert_equal(model, pairs, circuits, found, "corrupt", metrics.log_probability)


@pytest.mark.parametrize("kind", ["corrupt", "zero", "mean"])
@pytest.mark.parametrize("causal", [True, False])
def test_pairs_that_differ_late_move_from_where_they_can(kind: str, causal: bool) -> None:
    for seed in range(6):
        rng, _, _, model, _ = random_case(seed, plain=True)
        model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, causal=causal))
        clean = [[rng.randrange(D_VOCAB) for _ in range(5)] for _ in range(2)] + [[1, 2, 3]]
        corrupt = [[*row[:4], (row[4] + 1) % D_VOCAB] for row in clean[:2]] + [[1, 2, 4]]
        pairs = PromptPairs.from_tokens(D_VOCAB, clean=clean, corrupt=corrupt, answers=[1, 2, 3], distractors=[4, 5, 6])
        pairs = dataclasses.replace(pairs, answer_columns=torch.tensor([rng.choice([1, 4]), 4, 2]))
        circuits = [circuit for circuit in circuits_of(rng, model.graph(), 4) if len(circuit) < circuit.graph.edge_count]
        found = run_circuits(model, pairs, metrics.log_probability, circuits, outside=kind)
        assert_equal(model, pairs, circuits, found, kind, metrics.log_probability)


def without_output_biases(model: Model) -> Model:
    """The same model whose sublayers write nothing but what their nodes do (a norm behind one would scale its bias too)."""
    replace, blocks = dataclasses.replace, []
    for block in model.weights.blocks:
        mlp = None if block.mlp is None else replace(block.mlp, b_out=None)
        blocks.append(replace(block, attention=replace(block.attention, b_O=None), mlp=mlp))
    return replace(model, weights=replace(model.weights, blocks=tuple(blocks)))


BEHIND = [seed for seed in range(90) if any(b.attention_post_norm for b in random_case(seed)[3].weights.blocks)][:16]


@pytest.mark.parametrize("seed", BEHIND)
@pytest.mark.parametrize("neurons", [False, True])
def test_norms_behind_sublayers_share_their_scale_among_nodes(seed: int, neurons: bool) -> None:
    rng, _, _, model, pairs = random_case(seed)
    model = without_output_biases(model)
    circuits = circuits_of(rng, model.graph(neurons=neurons), 5)
    found = run_circuits(model, pairs, metrics.log_probability, circuits)
    assert_equal(model, pairs, circuits, found, "corrupt", metrics.log_probability)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_other_values_outside(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    _, _, _, model, _ = random_case(seed, plain=True)
    pairs = random_pairs(rng, padded=rng.random() < 0.5)
    for neurons in (False, True):
        circuits = circuits_of(rng, model.graph(neurons=neurons), 4)
        circuits = [circuit for circuit in circuits if len(circuit) < circuit.graph.edge_count]
        found = run_circuits(model, pairs, metrics.log_probability, circuits, outside=kind)
        assert_equal(model, pairs, circuits, found, kind, metrics.log_probability)
