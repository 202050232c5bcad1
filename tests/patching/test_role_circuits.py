"""Circuits with roles of tokens, against one reader after the other, over every kind of model."""

import pytest
import torch

from circuits import metrics
from circuits.graph import Circuit
from circuits.patching import run_circuits
from circuits.tasks import PromptPairs
from tests.patching.slow_roles import SlowRoles, random_roles
from tests.patching.test_subgraph import circuits_of, outside_values, without_output_biases
from tests.patching.test_sweeps import random_case


def assert_equal(model, pairs: PromptPairs, circuits, found, kind: str) -> None:
    own, other, rows = model.run(pairs.clean), model.run(pairs.corrupt), torch.arange(len(pairs))
    theirs = outside_values(model.graph(), other, kind)
    for circuit, scores in zip(circuits, found, strict=True):
        slow = SlowRoles(model, own, pairs, circuit, theirs).logits()[rows, pairs.answer_columns]
        slow = metrics.log_probability(slow, pairs).detach()
        assert float((scores - slow).abs().max()) <= 1e-10 * max(1.0, float(slow.abs().max())), (len(circuit), kind)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["corrupt", "mean", "zero"])
def test_role_circuits_equal_one_reader_after_the_other(seed: int, kind: str) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    pairs = random_roles(rng, pairs, causal=model.weights.causal)
    circuits = circuits_of(rng, model.graph(roles=pairs.roles.roles), 3)
    budget = rng.choice([2**28, 2**12])
    found = run_circuits(model, pairs, metrics.log_probability, circuits, outside=kind, budget=budget)
    assert_equal(model, pairs, circuits, found, kind)


BEHIND = [seed for seed in range(60) if any(b.attention_post_norm for b in random_case(seed)[3].weights.blocks)][:6]


@pytest.mark.parametrize("seed", BEHIND)
def test_norms_behind_sublayers_share_their_scale_role_by_role(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed)
    model, pairs = without_output_biases(model), random_roles(rng, pairs, causal=model.weights.causal)
    circuits = circuits_of(rng, model.graph(roles=pairs.roles.roles), 3)
    assert_equal(model, pairs, circuits, run_circuits(model, pairs, metrics.log_probability, circuits), "corrupt")


@pytest.mark.parametrize("seed", range(12))
def test_all_roles_of_an_edge_are_the_edge(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed)
    model, pairs = without_output_biases(model), random_roles(rng, pairs, causal=model.weights.causal)
    graph = model.graph(roles=pairs.roles.roles)
    plain = circuits_of(rng, model.graph(), 3)
    spread = []
    for circuit in plain:
        kept = {(edge.writer, edge.reader, edge.slot) for edge in circuit.edges}
        edges = [e for e in graph.edges() if (e.writer.everywhere, e.reader.everywhere, e.slot) in kept]
        spread.append(Circuit(graph, edges))
    kind = rng.choice(["corrupt", "mean", "zero"])
    ways = [run_circuits(model, pairs, metrics.log_probability, some, outside=kind) for some in (plain, spread)]
    assert torch.allclose(*ways, rtol=0, atol=1e-10)
