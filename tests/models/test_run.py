"""Laws of a run: its parts sum up, its modes agree, edits are bounded and differentiable, and nothing is left behind."""

import random
import re
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from circuits.errors import CircuitsError, GraphError, NonFiniteError, PromptError
from circuits.models import Edit, Model, TokenBatch, attention_bias, load_model, node_output
from circuits.models.run import Run
from tests.models.checkpoints import RECIPES
from tests.models.random_edits import node_sizes, random_batch, random_edit, random_patterns
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights, record_of

Loaded = Callable[[str], Model]

families = pytest.mark.parametrize("name", RECIPES)
SEEDS = range(60)


def random_model(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Model, TokenBatch, random.Random]:
    """A random small model, a batch for it, and the generator that made them."""
    rng = random.Random(seed)
    shape = random_shape(rng)
    model = Model("random", "random", record_of(shape, random_weights(shape, rng), dtype), None)
    return model, random_batch(rng, D_VOCAB, LENGTH), rng


def random_edits(model: Model, batch: TokenBatch, rng: random.Random, count: int = 3) -> list[Edit]:
    """Edits of any nodes."""
    nodes = node_sizes(model.n_layers, model.n_heads, model.d_head, model.d_mlp, model.d_model)
    return [random_edit(rng, nodes, batch, model.dtype).edit for _ in range(count)]


def total_of_nodes(model: Model, run: Run) -> Tensor:
    """Everything that wrote to the residual stream."""
    parts = [node_output(run, "input")]
    for layer, block in enumerate(model.weights.blocks):
        parts += [node_output(run, f"a{layer}.h{head}") for head in range(model.n_heads)]
        parts.append(attention_bias(run, layer))
        if block.mlp is not None:
            parts.append(model.node_output(run, f"m{layer}"))
    return torch.stack(parts).sum(dim=0)


def prompts(count: int = 3, length: int = 11) -> Tensor:
    """Random token ids for the checkpoints."""
    return torch.randint(0, 257, (count, length), generator=torch.Generator().manual_seed(8))


@families
def test_node_outputs_and_biases_sum_to_the_final_residual(name: str, loaded: Loaded) -> None:
    model = loaded(name)
    run = model.run(prompts())
    assert float((total_of_nodes(model, run) - node_output(run, "logits")).abs().max()) <= 1e-10


@pytest.mark.parametrize("seed", SEEDS)
def test_node_outputs_sum_to_the_final_residual_also_under_edits(seed: int) -> None:
    model, batch, rng = random_model(seed)
    run = model.run(batch, edits=random_edits(model, batch, rng))
    assert float((total_of_nodes(model, run) - run.residuals[-1])[batch.mask].abs().max()) <= 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_neurons_and_bias_sum_to_their_mlp(seed: int) -> None:
    model, batch, _ = random_model(seed)
    run = model.run(batch)
    for layer, block in enumerate(model.weights.blocks):
        if block.mlp is None or block.mlp_post_norm is not None:
            continue
        neurons = sum(node_output(run, f"m{layer}.n{index}") for index in range(model.d_mlp))
        bias = 0.0 if block.mlp.b_out is None else block.mlp.b_out
        assert float((neurons + bias - node_output(run, f"m{layer}")).abs().max()) <= 1e-10


def test_neurons_go_through_the_norm_after_their_mlp(loaded: Loaded) -> None:
    model = loaded("gemma2")
    run = model.run(prompts())
    neurons = sum(node_output(run, f"m1.n{index}") for index in range(model.d_mlp))
    assert isinstance(neurons, Tensor)
    assert float((neurons - node_output(run, "m1")).abs().max()) <= 1e-10


@families
def test_pattern_rows_sum_to_one_and_equal_the_kept_ones(name: str, loaded: Loaded) -> None:
    model = loaded(name)
    kept, computed = model.run(prompts(), keep="patterns"), model.run(prompts())
    assert not computed.patterns and len(kept.patterns) == model.n_layers
    for layer in range(model.n_layers):
        pattern = computed.pattern(layer)
        assert float((pattern.sum(-1) - 1).abs().max()) <= 1e-12
        assert bool((pattern.triu(1) == 0).all()), "a query looks ahead"
        assert float((pattern - kept.pattern(layer)).abs().max()) <= 1e-10


@families
def test_keeping_more_changes_no_logit(name: str, loaded: Loaded) -> None:
    model = loaded(name)
    runs = {keep: model.run(prompts(), keep=keep) for keep in ("logits", "factors", "patterns")}
    assert torch.equal(runs["logits"].logits, runs["factors"].logits)
    assert float((runs["patterns"].logits - runs["factors"].logits).abs().max()) <= 1e-10
    frozen = model.run(prompts(), patterns=runs["patterns"].patterns)
    assert torch.equal(frozen.logits, runs["patterns"].logits)


def test_a_run_of_logits_says_what_it_lacks(loaded: Loaded) -> None:
    run = loaded("gpt2").run(prompts(), keep="logits")
    assert not any((run.z, run.q, run.k, run.v, run.neurons, run.residuals, run.middles, run.patterns, run.edited_mlps))
    for ask in (lambda: run.pattern(0), lambda: node_output(run, "input"), lambda: run.final_scale):
        with pytest.raises(CircuitsError, match="keep"):
            ask()


@pytest.mark.parametrize("seed", SEEDS)
def test_edits_that_change_nothing_are_bit_equal_to_the_plain_run(seed: int) -> None:
    model, batch, rng = random_model(seed)
    plain = model.run(batch)
    same = [Edit(e.node, lambda value: value, e.positions) for e in random_edits(model, batch, rng)]
    nowhere = [Edit(e.node, 5.0, []) for e in random_edits(model, batch, rng)]
    for edits in ([], same, nowhere):
        assert torch.equal(model.run(batch, edits=edits).logits, plain.logits)
    node = f"a{model.n_layers - 1}.h{model.n_heads - 1}"
    own = plain.z[-1][:, :, -1]
    assert torch.equal(model.run(batch, edits=[Edit(node, own)]).logits, plain.logits)


@pytest.mark.parametrize("seed", SEEDS)
def test_runs_leave_weights_tokens_values_and_generators_alone(seed: int) -> None:
    model, batch, rng = random_model(seed)
    edits = random_edits(model, batch, rng, count=5)
    before, values = model.weights.fingerprint(), [torch.as_tensor(e.value).clone() for e in edits if not callable(e.value)]
    plain, state = model.run(batch), torch.random.get_rng_state()
    kept, ids = [z.clone() for z in plain.z], batch.ids.clone()
    first, second = (model.run(batch, edits=edits) for _ in range(2))
    assert torch.equal(first.logits, second.logits) and torch.equal(model.run(batch).logits, plain.logits)
    assert model.weights.fingerprint() == before and torch.equal(batch.ids, ids)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(kept, plain.z, strict=True))
    after = [torch.as_tensor(e.value) for e in edits if not callable(e.value)]
    assert all(torch.equal(a, b) for a, b in zip(values, after, strict=True))
    assert not any(tensor.requires_grad for _, tensor in model.weights.tensors())


@families
def test_another_batch_size_moves_logits_by_rounding_only(name: str, loaded: Loaded) -> None:
    model, ids = loaded(name), prompts(5)
    together = model.run(ids, keep="logits").logits
    alone = torch.cat([model.run(row, keep="logits").logits for row in ids])
    assert float((together - alone).abs().max()) <= 1e-10


BAD_EDITS: dict[str, tuple[Edit, type[CircuitsError], str]] = {
    "layer": (Edit("a2.h0", 0.0), GraphError, r"a2\.h0"),
    "head": (Edit("a0.h4", 0.0), GraphError, r"a0\.h4"),
    "mlp": (Edit("m7", 0.0), GraphError, "m7"),
    "neuron": (Edit("m0.n128", 0.0), GraphError, r"m0\.n128"),
    "name": (Edit("head 3", 0.0), GraphError, "head 3"),
    "logits": (Edit("logits", 0.0), GraphError, "logits"),
    "head shape": (Edit("a0.h1", torch.zeros(5)), GraphError, r"a0\.h1.*\(5,\)"),
    "batch shape": (Edit("m0", torch.zeros(2, 11, 32)), GraphError, r"m0.*\(2, 11, 32\)"),
    "column shape": (Edit("input", torch.zeros(3, 32), [1, 2]), GraphError, r"input.*\(3, 32\)"),
    "function": (Edit("m0.n1", lambda value: value[:, :1]), GraphError, r"m0\.n1.*\(3, 1\)"),
    "function type": (Edit("m0.n1", lambda value: "text"), GraphError, r"m0\.n1.*str"),  # type: ignore[arg-type,return-value]
    "position": (Edit("a0.h1", 0.0, [11]), PromptError, r"a0\.h1.*position 11"),
    "negative position": (Edit("a0.h1", 0.0, [-12]), PromptError, r"a0\.h1.*position -12"),
    "function position": (Edit("a0.h1", lambda value: value, [0, 40]), PromptError, "position 40"),
    "mask": (Edit("a0.h1", 0.0, torch.ones(3, 10, dtype=torch.bool)), PromptError, r"\(3, 10\)"),
}


@pytest.mark.parametrize("case", BAD_EDITS)
def test_edits_that_do_not_fit_are_refused_by_node(case: str, loaded: Loaded) -> None:
    edit, kind, message = BAD_EDITS[case]
    with pytest.raises(kind, match=message) as caught:
        loaded("gpt2").run(prompts(), edits=[edit])
    assert "\n" not in str(caught.value)


BAD_PATTERNS: dict[str, Callable[[Sequence[Tensor]], list[Tensor]]] = {
    "too few": lambda patterns: [patterns[0]],
    "too many": lambda patterns: [*patterns, patterns[0]],
    "another width": lambda patterns: [p[..., :5, :5] for p in patterns],
    "another batch": lambda patterns: [p[:2] for p in patterns],
    "another head count": lambda patterns: [p[:, :2] for p in patterns],
}


@pytest.mark.parametrize("case", BAD_PATTERNS)
def test_patterns_that_do_not_fit_are_refused(case: str, loaded: Loaded) -> None:
    model = loaded("gpt2")
    patterns = BAD_PATTERNS[case](model.run(prompts(), keep="patterns").patterns)
    with pytest.raises(PromptError, match="pattern"):
        model.run(TokenBatch.unpadded(prompts()), patterns=patterns)


BAD_PROMPTS: dict[str, object] = {
    "negative id": torch.tensor([[3, -1]]),
    "id past the vocabulary": torch.tensor([[3, 300]]),
    "too long": torch.zeros(1, 65, dtype=torch.long),
    "no token": torch.zeros(1, 0, dtype=torch.long),
    "no prompt": torch.zeros(0, 3, dtype=torch.long),
    "empty list": [],
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_prompts_that_do_not_fit_are_refused(case: str, loaded: Loaded) -> None:
    with pytest.raises(PromptError):
        loaded("gpt2").run(BAD_PROMPTS[case])  # type: ignore[arg-type]


def test_node_outputs_of_nodes_that_are_not_there_are_refused(loaded: Loaded) -> None:
    run = loaded("gpt2").run(prompts())
    for node in ("a2.h0", "a0.h4", "m2", "m0.n128", "nonsense"):
        with pytest.raises(GraphError):
            node_output(run, node)


@pytest.mark.parametrize("seed", range(20))
def test_gradients_equal_finite_differences(seed: int) -> None:
    model, batch, rng = random_model(seed)
    patterns = random_patterns(rng, model.n_layers, model.n_heads, batch) if rng.random() < 0.3 else None
    nodes = node_sizes(model.n_layers, model.n_heads, model.d_head, model.d_mlp, model.d_model)
    node = rng.choice(list(nodes))
    noise = torch.Generator().manual_seed(seed)
    point, direction = (torch.randn(batch.ids.shape + nodes[node][1], generator=noise).double() for _ in range(2))
    reader = torch.randn(D_VOCAB, generator=noise).double()
    others = random_edits(model, batch, rng, count=2)

    def metric(value: Tensor) -> Tensor:
        run = model.run(batch, edits=[Edit(node, value), *others], patterns=patterns, keep="logits")
        return (run.logits.log_softmax(-1) @ reader)[batch.mask].sum() + 0 * value.sum()  # others may replace the node

    leaf, step = point.clone().requires_grad_(), 1e-5
    (gradient,) = torch.autograd.grad(metric(leaf), leaf)
    slope = float((gradient * direction).sum())
    numeric = float(metric(point + step * direction) - metric(point - step * direction)) / (2 * step)
    assert slope == pytest.approx(numeric, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_weight_that_is_no_number_stops_every_run_by_name(seed: int) -> None:
    model, batch, rng = random_model(seed)
    name, weight = rng.choice(list(model.weights.tensors()))
    weight[tuple(rng.randrange(size) for size in weight.shape)] = rng.choice([float("nan"), float("inf")])
    with pytest.raises(NonFiniteError, match=f"the weight {re.escape(name)} of random holds NaN or infinity"):
        model.run(batch)


@families
def test_bfloat16_runs_and_stays_close(name: str, checkpoint: Callable, loaded: Loaded) -> None:
    model = load_model(checkpoint(name), dtype=torch.bfloat16)
    run = model.run(prompts(), keep="patterns")
    assert run.logits.dtype == torch.bfloat16 and bool(run.logits.isfinite().all())
    assert all(p.dtype == torch.bfloat16 for p in run.patterns)
    exact = loaded(name).run(prompts()).logits.log_softmax(-1)
    assert float((run.logits.double().log_softmax(-1) - exact).abs().mean()) <= 0.1


def test_every_way_to_hand_over_prompts_gives_one_batch(loaded: Loaded) -> None:
    model = loaded("gpt2")
    ids = model.to_tokens("some text").ids
    for given in ("some text", ["some text"], ids, ids[0], TokenBatch.unpadded(ids)):
        assert torch.equal(model.run(given).logits, model.run(ids).logits)


def test_the_graph_describes_the_model(loaded: Loaded) -> None:
    graph = loaded("gpt-neox").graph()
    assert (graph.n_layers, graph.n_heads, graph.d_mlp, graph.parallel) == (2, 4, 48, True)
    assert loaded("qwen2").graph().n_key_value_heads == 2 and not loaded("qwen2").graph().parallel
