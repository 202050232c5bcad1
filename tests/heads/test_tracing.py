"""Attention tracing against its definitions word by word: loops, all paths, networkx and minimal cuts."""

import dataclasses
import itertools
import math
import random

import networkx
import pytest
import torch

from circuits.errors import NonFiniteError, PromptError
from circuits.heads.attention.max_flow import layered_flows
from circuits.heads.attention.tracing import flow, flow_network, lat, norm_weighted, rollout, trace_attention
from circuits.models import Model, Run, TokenBatch
from circuits.models.planted import planted_induction
from circuits.patching.tracing.attention import own_positions
from tests.models.random_models import random_shape, random_weights, record_of

PADS = TokenBatch(
    torch.tensor([[0, 0, 5, 9, 3, 1], [0, 7, 1, 0, 0, 0], [2, 3, 4, 5, 6, 7]]),
    torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool(),
)


def random_model(rng: random.Random) -> Model:
    shape = random_shape(rng)
    return Model("random", "random", record_of(shape, random_weights(shape, rng)), None, prepend_bos=False)


def runs(count: int, seed: int = 0) -> list[Run]:
    rng = random.Random(seed)
    return [random_model(rng).run(PADS, keep="patterns") for _ in range(count)]


def real(run: Run, prompt: int) -> list[int]:
    return run.tokens.mask[prompt].nonzero()[:, 0].tolist()


def slow_lat(run: Run, prompt: int, head: int) -> dict[int, float]:
    """The sum over all paths of tokens, from the last one down, of the product of attention along them."""
    layers, columns = len(run.weights.blocks), real(run, prompt)
    scores = dict.fromkeys(columns, 0.0)
    for path in itertools.product(columns, repeat=layers):
        product, query = 1.0, columns[-1]
        for layer, key in zip(reversed(range(layers)), path, strict=True):
            product *= float(run.pattern(layer)[prompt, head, query, key])
            query = key
        scores[query] += product
    return scores


def slow_mixed(run: Run, prompt: int, layer: int) -> list[list[float]]:
    columns = real(run, prompt)
    heads = run.weights.blocks[0].attention.n_heads
    rows = []
    for query in columns:
        row = [sum(float(run.pattern(layer)[prompt, h, query, key]) for h in range(heads)) / heads for key in columns]
        row[columns.index(query)] += 1
        rows.append([value / sum(row) for value in row])
    return rows


def slow_rollout(run: Run, prompt: int) -> list[float]:
    width = len(real(run, prompt))
    joint = [[float(i == j) for j in range(width)] for i in range(width)]
    for layer in range(len(run.weights.blocks)):
        mixed = slow_mixed(run, prompt, layer)
        joint = [[sum(mixed[i][k] * joint[k][j] for k in range(width)) for j in range(width)] for i in range(width)]
    return joint[-1]


def slow_norm(run: Run, prompt: int) -> list[float]:
    columns, total = real(run, prompt), []
    for layer, block in enumerate(run.weights.blocks):
        attention = block.attention
        groups = attention.n_heads // attention.n_key_value_heads
        post = block.attention_post_norm
        sizes = []
        for key in columns:
            moved = torch.zeros(run.residuals[0].shape[-1], dtype=torch.float64)
            for head in range(attention.n_heads):
                written = run.v[layer][prompt, key, head // groups] @ attention.per_head("W_O")[head]
                moved += run.pattern(layer)[prompt, head, columns[-1], key] * written
            if post is not None:
                moved = moved - moved.mean() if post.kind == "layer" else moved
                moved = moved if post.weight is None else moved * post.weight
            sizes.append(float(moved.norm()))
        total.append([size / sum(sizes) for size in sizes])
    return [sum(column) / len(total) for column in zip(*total, strict=True)]


def cut(network: networkx.DiGraph, source: object, sink: object) -> float:
    """The least capacity of any set of edges that parts the two: every set of nodes tried."""
    others = [node for node in network if node not in (source, sink)]
    best = math.inf
    for chosen in itertools.product((False, True), repeat=len(others)):
        inside = {source, *(node for node, taken in zip(others, chosen, strict=True) if taken)}
        edges = network.edges(data="capacity")
        best = min(best, sum(capacity for a, b, capacity in edges if a in inside and b not in inside))
    return best


def test_every_tracing_equals_its_definition_on_random_models_with_pads():
    for run in runs(10):
        told: list[tuple[str, int, int]] = []
        flows = flow(run, progress=lambda *step, seen=told: seen.append(step))
        total = int(run.tokens.mask.sum())
        assert told[-1] == ("tracing flows", total, total) and told == sorted(told)
        assert {done for _, done, _ in told} == set(range(1, total + 1)) or len(run.weights.blocks) == 1
        ways, rolled, norms = lat(run), rollout(run), norm_weighted(run)
        for prompt in range(len(run.tokens)):
            columns, top = real(run, prompt), len(run.weights.blocks)
            for head in range(ways.shape[1]):
                for column, score in slow_lat(run, prompt, head).items():
                    assert float(ways[prompt, head, column]) == pytest.approx(score, abs=1e-12)
            assert rolled[prompt, columns].tolist() == pytest.approx(slow_rollout(run, prompt), abs=1e-12)
            assert norms[prompt, columns].tolist() == pytest.approx(slow_norm(run, prompt), abs=1e-12)
            network, expected = flow_network(run, prompt=prompt), []
            for layer in range(top):
                for i, row in zip(columns, slow_mixed(run, prompt, layer), strict=True):
                    for j, capacity in zip(columns, row, strict=True):
                        found = network.get_edge_data((layer + 1, i), (layer, j), {"capacity": 0.0})["capacity"]
                        assert found == pytest.approx(capacity, abs=1e-14)
            for column in columns:
                expected.append(networkx.maximum_flow_value(network, (top, columns[-1]), (0, column)))
            assert flows[prompt, columns].tolist() == pytest.approx(expected, abs=1e-12)


def test_flow_is_the_least_cut_of_tiny_networks():
    checked = 0
    for run in runs(40, seed=5):
        network, top = flow_network(run, prompt=1), len(run.weights.blocks)
        if top <= 3:
            for column in (0, 1, 2):
                assert float(flow(run)[1, column]) == pytest.approx(cut(network, (top, 2), (0, column)), abs=1e-12)
            checked += 1
    assert checked >= 20


def test_layered_flows_equal_networkx_where_flow_must_turn_back():
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        steps, width = (int(torch.randint(1, high, (1,), generator=generator)) for high in (7, 8))
        capacities = (4 * torch.randn(steps, width, width, generator=generator, dtype=torch.float64)).softmax(dim=-1)
        capacities *= torch.rand(capacities.shape, generator=generator) < 0.6
        capacities = capacities.tril() if seed % 2 else capacities
        network = networkx.DiGraph()
        network.add_nodes_from((step, node) for step in range(steps + 1) for node in range(width))
        for step, a, b in capacities.nonzero().tolist():
            network.add_edge((step, a), (step + 1, b), capacity=float(capacities[step, a, b]))
        expected = [networkx.maximum_flow_value(network, (0, width - 1), (steps, node)) for node in range(width)]
        assert layered_flows(capacities, width - 1).tolist() == pytest.approx(expected, abs=1e-12)


def test_rows_sum_to_one_and_pads_score_exactly_zero():
    for run in runs(12, seed=3):
        found = trace_attention(run)
        assert all(bool((values[~run.tokens.mask] == 0).all()) for values in found.values())
        for name in ("lat", "rollout", "norm"):
            assert found[name].sum(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-12)
        assert float(found["flow"].min()) >= 0 and float(found["flow"].max()) <= 1 + 1e-12
        assert bool((found["flow"].sum(dim=1) >= 1 - 1e-12).all())


def test_padding_changes_nothing_and_any_token_can_be_read():
    rng = random.Random(9)
    for _ in range(8):
        model = random_model(rng)
        alone = trace_attention(model.run(torch.tensor([[5, 9, 3, 1]])), torch.tensor([2]))
        left = trace_attention(model.run(PADS), torch.tensor([4, 1, 3]))
        for name, values in left.items():
            moved = own_positions(values, PADS)[0, :4]
            assert moved.tolist() == pytest.approx(alone[name][0].tolist(), abs=1e-10), name
        if model.weights.causal:
            assert all(float(values[0, 3]) == 0 for values in alone.values())


def test_a_planted_previous_token_head_is_traced_to_the_token_before():
    planted = planted_induction(seed=1)
    model = planted.model
    node = next(node for node, role in planted.circuit.roles.items() if role == "previous token")
    layer, head = node.layer, node.index
    run = model.run(torch.tensor([[0, 5, 9, 3, 7, 1]]), keep="patterns")
    cut_off = dataclasses.replace(model.weights, blocks=model.weights.blocks[layer : layer + 1])
    one = dataclasses.replace(run, weights=cut_off, patterns=(run.patterns[layer],), v=(run.v[layer],))
    score = lat(one)[0, head]
    assert int(score.argmax()) == 4 and float(score[4]) > 0.9
    assert int(trace_attention(one)["norm"][0].argmax()) in (4, 5)


def test_a_readout_that_is_none_and_patterns_that_are_none_are_refused():
    run = runs(1)[0]
    for columns, words in (([0, 0, 0], "prompt 0: column 0"), ([5, 2, 6], "prompt 2: column 6"), ([5, 2], "2 readout columns")):
        with pytest.raises(PromptError, match=words):
            rollout(run, torch.tensor(columns))
    patterns = [run.pattern(layer).clone() for layer in range(len(run.weights.blocks))]
    patterns[0][2, 0, 4, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"pattern of a0\.h0 holds NaN or infinity at prompt 2, position 4"):
        lat(dataclasses.replace(run, patterns=tuple(patterns)))
