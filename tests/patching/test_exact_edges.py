"""Exact patching of single edges and paths, against the reference and against runs by hand."""

import random

import numpy as np
import pytest
import torch

from circuits.models import Model, TokenBatch
from circuits.models.layers import activate
from circuits.patching import patch_edges, patch_path
from circuits.patching.engine.base import Base
from circuits.patching.engine.directions import difference, through
from circuits.tasks import PromptPairs, metrics
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB
from tests.models.reference import Node as Place, run
from tests.patching.test_sweeps import random_case, random_pairs

difference_of = metrics.logit_difference


def slow_difference(shape, weights, pairs: PromptPairs, prompt: int, side: TokenBatch, changes=()) -> tuple[float, object]:
    """The logit difference of one prompt by the reference, and all that it left behind."""
    done = run(shape, weights, side.ids[prompt][side.mask[prompt]].tolist(), changes)
    logits = done.logits[-1]
    return float(logits[int(pairs.answers[prompt])] - logits[int(pairs.distractors[prompt])]), done


def head_write(weights, shape, z: np.ndarray, layer: int, head: int) -> np.ndarray:
    """What a head writes at every position."""
    columns = slice(head * shape.d_head, (head + 1) * shape.d_head)
    return z[layer][:, head] @ weights[f"blocks.{layer}.attn.o.weight"][:, columns].T


@pytest.mark.parametrize("seed", range(30))
def test_an_edge_equals_the_reference(seed: int) -> None:
    rng, shape, weights, model, pairs = random_case(seed, plain=True)
    graph = model.graph()
    heads = [node for node in graph.nodes() if node.kind == "head" and (node.layer or 0) < model.n_layers]
    writer = rng.choice(heads)
    readers = graph.readers(writer)
    effects = patch_edges(model, pairs, difference_of, [f"{writer}->{reader}" for reader in readers], direction="noising")
    for reader, scores in zip(readers, effects.scores, strict=True):
        node = reader.node
        kind = "residual" if node.kind == "logits" else {"mlp": "mlp_in"}.get(node.kind, f"{reader.slot}_in")
        place = Place(kind, model.n_layers if node.kind == "logits" else node.layer, node.index)
        for prompt in range(len(pairs)):
            _, own = slow_difference(shape, weights, pairs, prompt, pairs.clean)
            _, other = slow_difference(shape, weights, pairs, prompt, pairs.corrupt)
            writes = [head_write(weights, shape, r.z, writer.layer, writer.index) for r in (other, own)]
            delta = writes[0] - writes[1]
            change = [(place, lambda position, x, delta=delta: x + delta[position])]
            slow, _ = slow_difference(shape, weights, pairs, prompt, pairs.clean, change)
            assert abs(float(scores[prompt]) - slow) <= 1e-10 * max(1, abs(slow)), f"{writer}->{reader}"


@pytest.mark.parametrize("seed", range(30))
def test_edges_of_single_neurons_equal_the_reference(seed: int) -> None:
    rng, shape, weights, model, pairs = random_case(seed, plain=True)
    if not model.d_mlp:
        return
    neuron, later = rng.randrange(model.d_mlp), rng.randrange(model.d_mlp)
    edges = {f"m0.n{neuron}->logits": Place("residual", model.n_layers)}
    if model.n_layers > 1:
        edges[f"m0.n{neuron}->m1.n{later}"] = Place("neuron_in", 1, later)
        edges[f"m0.n{neuron}->a1.h0<v>"] = Place("v_in", 1, 0)
    effects = patch_edges(model, pairs, difference_of, list(edges), direction="noising")
    for place, scores in zip(edges.values(), effects.scores, strict=True):
        for prompt in range(len(pairs)):
            _, own = slow_difference(shape, weights, pairs, prompt, pairs.clean)
            _, other = slow_difference(shape, weights, pairs, prompt, pairs.corrupt)
            change = other.neurons[0][:, neuron] - own.neurons[0][:, neuron]
            delta = change[:, None] * weights["blocks.0.mlp.out.weight"][:, neuron]
            added = [(place, lambda position, x, delta=delta: x + delta[position])]
            slow, _ = slow_difference(shape, weights, pairs, prompt, pairs.clean, added)
            assert abs(float(scores[prompt]) - slow) <= 1e-10 * max(1, abs(slow))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("freeze_mlps", [False, True])
def test_a_path_equals_the_four_runs_of_ioi(seed: int, freeze_mlps: bool) -> None:
    rng, shape, weights, model, pairs = random_case(seed, plain=True)
    if model.n_layers < 2:
        return
    writer, reader = (0, rng.randrange(model.n_heads)), (model.n_layers - 1, rng.randrange(model.n_heads))
    path = [f"a0.h{writer[1]}", f"a{reader[0]}.h{reader[1]}<q>"]
    effects = patch_path(model, pairs, difference_of, path, freeze_mlps=freeze_mlps)
    for prompt in range(len(pairs)):
        _, own = slow_difference(shape, weights, pairs, prompt, pairs.clean)  # run B
        _, new = slow_difference(shape, weights, pairs, prompt, pairs.corrupt)  # run A
        frozen = []
        for layer in range(model.n_layers):
            for head in range(model.n_heads):
                source = new if (layer, head) == writer else own
                values = source.z[layer][:, head]
                frozen.append((Place("head", layer, head), lambda position, x, values=values: values[position]))
        if freeze_mlps:
            for layer in range(model.n_layers):
                for neuron in range(model.d_mlp):
                    values = own.neurons[layer][:, neuron : neuron + 1]
                    frozen.append((Place("neuron", layer, neuron), lambda position, x, values=values: values[position]))
        _, sent = slow_difference(shape, weights, pairs, prompt, pairs.clean, frozen)  # run C
        delta = sent.residuals[reader[0]] - own.residuals[reader[0]]
        change = [(Place("q_in", *reader), lambda position, x, delta=delta: x + delta[position])]
        slow, _ = slow_difference(shape, weights, pairs, prompt, pairs.clean, change)  # run D
        assert abs(float(effects.scores[0, prompt]) - slow) <= 1e-9 * max(1, abs(slow))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("slot", ["q", "k", "v"])
def test_heads_move_as_the_reference_does_where_one_slot_reads_something_else(seed: int, slot: str) -> None:
    rng, shape, weights, model, pairs = random_case(seed, plain=True)
    layer, own = rng.randrange(model.n_layers), Base(model, model.run(pairs.clean))
    count = model.n_heads if slot == "q" else model.n_key_value_heads
    index = rng.randrange(count)
    delta = torch.randn(own.run.residuals[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reader = model.graph().reader(f"a{layer}.h{index}<{slot}>")
    moved = through(own, model.graph(), [reader], delta)
    heads = range(index * model.n_heads // count, (index + 1) * model.n_heads // count)
    for prompt in range(len(pairs)):
        mask = pairs.clean.mask[prompt]
        added = delta[prompt][mask].numpy()
        change = [(Place(f"{slot}_in", layer, index), lambda at, x, added=added: x + added[at])]
        new, old = (run(shape, weights, pairs.clean.ids[prompt][mask].tolist(), changes) for changes in (change, []))
        slow = sum(head_write(weights, shape, new.z, layer, h) - head_write(weights, shape, old.z, layer, h) for h in heads)
        assert float(np.abs(moved[prompt][mask].numpy() - slow).max()) <= 1e-10 * max(1.0, float(np.abs(slow).max()))


def test_a_longer_path_is_what_its_steps_bring() -> None:
    model = Model.from_bridge(native_bridge(5, n_layers=3, d_vocab=D_VOCAB))
    pairs = random_pairs(random.Random(3), padded=False)
    effects = patch_path(model, pairs, difference_of, ["a0.h0", "a1.h1<v>", "m2", "logits"], freeze_mlps=True)
    clean, corrupt = model.run(pairs.clean), model.run(pairs.corrupt)
    graph, base, other = model.graph(), Base(model, clean), Base(model, corrupt)
    delta = difference(base, other, graph.node("a0.h0"))
    block, attention = model.weights.blocks[1], model.weights.blocks[1].attention
    norm = torch.nn.functional.layer_norm
    d_model = model.d_model
    normed = norm(clean.residuals[1] + delta, (d_model,), block.attention_norm.weight, block.attention_norm.bias, 1e-5)
    values = (normed @ attention.W_V + attention.b_V).unflatten(-1, (2, 4))[:, :, 1]
    z = clean.pattern(1)[:, 1] @ values
    delta = (z - clean.z[1][:, :, 1]) @ attention.per_head("W_O")[1]
    mlp = model.weights.blocks[2]
    reads = norm(clean.middles[2] + delta, (d_model,), mlp.mlp_norm.weight, mlp.mlp_norm.bias, 1e-5)
    neurons = activate(reads @ mlp.mlp.W_in + mlp.mlp.b_in, mlp.mlp.activation)
    final = clean.residuals[3] + (neurons - clean.neurons[2]) @ mlp.mlp.W_out
    last = norm(final, (d_model,), model.weights.final_norm.weight, model.weights.final_norm.bias, 1e-5)
    logits = last @ model.weights.W_U + (0 if model.weights.b_U is None else model.weights.b_U)
    rows = torch.arange(len(pairs))
    slow = difference_of(logits[rows, pairs.answer_columns], pairs)
    assert float((effects.scores[0] - slow).abs().max()) <= 1e-6, "native norms compute in float32"
