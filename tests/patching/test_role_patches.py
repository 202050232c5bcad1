"""Edges between roles of tokens patched one by one, against circuits without them, plain edges, and their first order."""

import dataclasses

import pytest
import torch

from circuits import attribute_edges, metrics
from circuits.graph import Circuit
from circuits.models import node_output
from circuits.patching import patch_edges
from circuits.patching.subgraphs.members import Members
from circuits.search.judging.judge import Judge
from tests.patching.slow_roles import SlowRoles, random_roles
from tests.patching.test_sweeps import random_case


@pytest.mark.parametrize("seed", range(10))
def test_patched_edges_equal_one_reader_after_the_other(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    pairs = random_roles(rng, pairs, causal=model.weights.causal)
    graph, own, other = model.graph(roles=pairs.roles.roles), model.run(pairs.clean), model.run(pairs.corrupt)
    theirs = {node: node_output(other, node) for node in model.graph().nodes() if node.kind != "logits"}
    edges = rng.sample(list(graph.edges()), min(6, graph.edge_count))
    found = patch_edges(model, pairs, metrics.log_probability, edges, direction="noising", roles=True)
    rows = torch.arange(len(pairs))
    for edge, scores in zip(edges, found.scores, strict=True):
        rest = Circuit(graph, [one for one in graph.edges() if one != edge])
        slow = SlowRoles(model, own, pairs, rest, theirs).logits()[rows, pairs.answer_columns]
        assert torch.allclose(scores, metrics.log_probability(slow, pairs).detach(), rtol=0, atol=1e-10), edge


@pytest.mark.parametrize("seed", range(4))
def test_small_patches_move_the_metric_as_the_scores_say(seed: int) -> None:
    """Finite differences: corrupt prompts that differ from the clean ones by a small step of their embeddings."""
    rng, _, _, model, pairs = random_case(seed, plain=True)
    pairs = random_roles(rng, pairs, causal=model.weights.causal)
    step, W_E = 1e-4, model.weights.W_E
    near = torch.cat([W_E, torch.lerp(W_E[pairs.clean.ids.flatten()], W_E[pairs.corrupt.ids.flatten()], step)])
    ids = (len(W_E) + torch.arange(pairs.clean.ids.numel())).reshape(pairs.clean.ids.shape)
    ids = torch.where(pairs.clean.ids == pairs.corrupt.ids, pairs.clean.ids, ids)
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_E=near))
    pairs = dataclasses.replace(pairs, corrupt=dataclasses.replace(pairs.corrupt, ids=ids))
    how = {"metric": metrics.logit_difference, "roles": True}
    estimated, exact = (attribute_edges(model, pairs, method=name, **how) for name in ("eap", "exact"))
    assert torch.equal(estimated.writers, exact.writers) and torch.equal(estimated.readers, exact.readers)
    size = float(estimated.values.abs().max())
    assert size > 0 and float((estimated.values - exact.values).abs().max()) <= 1e-2 * size


@pytest.mark.parametrize("seed", range(8))
def test_the_model_without_nodes_at_roles_is_the_graph_without_their_edges(seed: int) -> None:
    rng, _, _, model, pairs = random_case(seed, plain=True)
    pairs = random_roles(rng, pairs, causal=model.weights.causal)
    graph = model.graph(roles=pairs.roles.roles)
    nodes = [node for node in graph.nodes() if node.kind not in ("input", "logits")]
    if not nodes:
        pytest.skip("a model without layers")
    sets = [rng.sample(nodes, rng.randint(1, len(nodes))) for _ in range(4)]
    judge = Judge(model, pairs, metrics.log_probability)
    rest = [Circuit(graph, [edge for edge in graph.edges() if edge.writer not in gone]) for gone in sets]
    slow = judge.faithfulness([Members.of(circuit) for circuit in rest], "")
    fast = torch.tensor(judge.model_without(sets, ""), dtype=torch.float64)
    assert torch.allclose(fast, slow, rtol=0, atol=1e-8)
