"""Edges between roles of tokens: against a zero added to what every reader reads at every role, and against plain edges."""

import pytest
import torch

from circuits import attribute_edges, metrics
from circuits.graph import Circuit, Reader
from circuits.models import node_output
from tests.patching.slow_roles import SlowRoles, random_roles
from tests.patching.test_sweeps import random_case


def slow_scores(model, pairs, metric) -> dict[str, float]:
    graph = model.graph(roles=pairs.roles.roles)
    own, other = model.run(pairs.clean), model.run(pairs.corrupt)
    whole = Circuit(graph, graph.edges())
    theirs = {node: node_output(own, node) for node in model.graph().nodes() if node.kind != "logits"}
    slow = SlowRoles(model, own, pairs, whole, theirs)
    rows = torch.arange(len(pairs))
    score = metric(slow.logits()[rows, pairs.answer_columns], pairs).sum()
    found = torch.autograd.grad(score, list(slow.leaves.values()), allow_unused=True, materialize_grads=True)
    slopes: dict[Reader, torch.Tensor] = dict(zip(slow.leaves, found, strict=True))
    scores = {}
    for edge in graph.edges():
        change = node_output(other, edge.writer.everywhere) - node_output(own, edge.writer.everywhere)
        mask = slow.masks[edge.writer.at]
        scores[str(edge)] = float(((change * slopes[edge.target]).sum(dim=-1) * mask).sum()) / len(pairs)
    return scores


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_a_gradient_by_each_reader_at_each_role(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    pairs = random_roles(rng, pairs, causal=model.weights.causal)
    fast = attribute_edges(model, pairs, metrics.log_probability, method="eap", roles=True)
    slow = slow_scores(model, pairs, metrics.log_probability)
    edges = [str(edge) for edge in fast.edges()]
    assert set(edges) == set(slow)
    expected = torch.tensor([slow[edge] for edge in edges], dtype=torch.float64)
    assert float((fast.values - expected).abs().max()) <= 1e-10 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("seed", range(14))
def test_roles_of_an_edge_sum_to_the_edge(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed)
    pairs = random_roles(rng, pairs, causal=model.weights.causal)
    how = {"method": rng.choice(["eap", "eap-ig", "eap-ig-activations"])}
    how["budget"] = rng.choice([2**28, 2**14])
    plain = attribute_edges(model, pairs, metrics.log_probability, **how)
    roles = attribute_edges(model, pairs, metrics.log_probability, roles=True, **how)
    sums = torch.zeros_like(plain.matrix())
    count = roles.graph.role_count
    plain_readers = roles.readers.div(count, rounding_mode="floor")  # the logits come last in both
    sums.index_put_((roles.writers.div(count, rounding_mode="floor"), plain_readers), roles.values, accumulate=True)
    assert torch.allclose(sums, plain.matrix(), rtol=0, atol=1e-10 * max(1.0, float(plain.matrix().abs().max())))
