"""Orders of terms and removed layers against runs written out by hand."""

import dataclasses
import functools
import itertools
import json
import math
import random
from pathlib import Path

import pytest
import torch

from circuits.errors import FileFormatError, NonFiniteError, PromptError
from circuits.models import Edit, Model, TokenBatch
from circuits.models.folding import through_norm
from circuits.models.forward import forward
from circuits.models.geometry import Geometry
from circuits.models.layers import embed, mix, mlp_output, neuron_activations, normalise
from circuits.models.planted import planted_tables
from circuits.patching import LayerRemoval, Terms, order_of_terms, remove_layers
from circuits.patching.ablation.expansion import expand, frozen_final
from circuits.patching.ablation.layers import Removal, without
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights, record_of


@functools.cache
def random_case(seed: int) -> tuple[Model, TokenBatch]:
    """A random model of any kind, and prompts with pads on both sides."""
    rng = random.Random(seed)
    shape = dataclasses.replace(random_shape(rng), causal=True)
    model = Model("random", "random", record_of(shape, random_weights(shape, rng)), None)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(D_VOCAB, (3, LENGTH), generator=generator)
    mask = torch.ones_like(ids, dtype=torch.bool)
    if seed % 2:
        mask[0, :2], mask[1, -3:] = False, False
    return model, TokenBatch(ids, mask)


def loss_of(logits: torch.Tensor, tokens: TokenBatch) -> torch.Tensor:
    """Mean loss of every prompt, token by token."""
    means = []
    for row in range(len(tokens)):
        places = [p for p in range(tokens.ids.shape[1] - 1) if tokens.mask[row, p] and tokens.mask[row, p + 1]]
        values = [-logits[row, p].log_softmax(dim=-1)[tokens.ids[row, p + 1]] for p in places]
        means.append(torch.stack(values).mean())
    return torch.stack(means)


@pytest.mark.parametrize("seed", range(30))
def test_with_all_orders_the_logits_are_the_models(seed: int) -> None:
    model, tokens = random_case(seed)
    run = model.run(tokens, keep="patterns")
    whole = expand(run).up_to(model.n_layers)
    assert float((whole - run.residuals[-1])[tokens.mask].abs().max()) <= 1e-9
    found = order_of_terms(model, tokens, heads=0)
    assert found.losses.shape == (model.n_layers + 1, 3) and found.heads.shape[0] == 0
    assert float((found.losses[-1] - found.full).abs().max()) <= 1e-9
    assert float((found.full - loss_of(run.logits, tokens)).abs().max()) <= 1e-9


def slow_orders(model: Model, tokens: TokenBatch, most: int) -> torch.Tensor:
    """Elhage et al. 2021, word for word: run again and again with frozen patterns and scales, where the heads of a run write
    what they made of the stream of the run before (the first run's heads write nothing). Of an attention-only model without
    biases."""
    weights = model.weights
    run = model.run(tokens, keep="patterns")
    before: list[torch.Tensor] | None = None
    for _ in range(most + 1):
        x, streams = embed(weights, tokens), []
        for layer, block in enumerate(weights.blocks):
            streams.append(x)
            if before is not None:
                scale = normed_by(run.residuals[layer], block.attention_norm)
                read = before[layer] / scale if block.attention_norm is not None else before[layer]
                v = (read @ block.attention.W_V).unflatten(-1, (model.n_key_value_heads, -1))
                x = x + mix(run.patterns[layer], v, block.attention).flatten(-2) @ block.attention.W_O
        before = streams
    final = x / normed_by(run.residuals[-1], weights.final_norm) if weights.final_norm is not None else x
    logits = final @ weights.W_U if weights.b_U is None else final @ weights.W_U + weights.b_U
    return loss_of(logits, tokens)


def normed_by(x: torch.Tensor, norm) -> torch.Tensor:
    return (x.square().mean(dim=-1, keepdim=True) + (0 if norm is None else norm.eps)).sqrt()


@pytest.mark.parametrize("norm", [None, "RMSPre"])
def test_orders_are_those_of_the_paper(norm: str | None) -> None:
    options = {"attn_only": True, "n_layers": 3, "normalization_type": norm, "d_vocab": D_VOCAB}
    model = Model.from_bridge(native_bridge(5, **options))
    bare = [dataclasses.replace(block.attention, b_V=None, b_O=None) for block in model.weights.blocks]
    blocks = [dataclasses.replace(b, attention=attention) for b, attention in zip(model.weights.blocks, bare, strict=True)]
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=tuple(blocks)))
    tokens = random_case(0)[1]
    found = order_of_terms(model, tokens)
    for order in range(4):
        assert float((found.losses[order] - slow_orders(model, tokens, order)).abs().max()) <= 1e-9
    assert found.mlps == "none"


@pytest.mark.parametrize("seed", range(12))
def test_heads_terms_sum_to_the_order(seed: int) -> None:
    model, tokens = random_case(seed)
    expansion = expand(model.run(tokens, keep="patterns"), heads=2)
    for order in range(1, min(2, model.n_layers) + 1):
        parts = [expansion.head_term(order, layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
        assert float((sum(parts) - expansion.terms[order]).abs().max()) <= 1e-10


def test_a_planted_model_is_its_direct_path_and_single_heads() -> None:
    planted = planted_tables(seed=0)
    filler = planted.fillers[0]
    rows = [[0, filler, s, planted.fillers[1], d, o] for held in planted.skip_trigrams.values() for s, d, o in held]
    found = order_of_terms(planted.model, torch.tensor(rows))
    assert found.loss(1) == pytest.approx(found.full_loss, abs=1e-9) and found.loss(0) > found.loss(1) + 0.2
    ranked = found.heads_dataframe().sort_values("rise", ascending=False)["head"].tolist()
    assert set(ranked[:2]) == set(planted.skip_trigrams)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_removed_layers_equal_changed_models(seed: int, kind: Removal) -> None:
    model, tokens = random_case(seed)
    found = remove_layers(model, tokens, kind=kind)
    run = model.run(tokens)
    for index, part in enumerate(found.parts):
        for layer in range(model.n_layers):
            x, weights = embed(model.weights, tokens), model.weights
            geometry = Geometry(weights, tokens, torch.float64)
            for at, block in enumerate(weights.blocks):
                wrote = slow_parts(model, geometry, x, at)
                clean = (run.middles[at] - run.residuals[at], run.residuals[at + 1] - run.middles[at])
                stand = [one[tokens.mask].mean(dim=0) if kind == "mean" else 0 * one[0, 0] for one in clean]
                gone = at == layer
                attention = stand[0].expand_as(x) if gone and part != "mlp" else wrote
                middle = x + attention
                source = x if weights.parallel else middle
                x = middle + (stand[1] if gone and part != "attention" else slow_mlp(block, source))
            logits = normalise(x, weights.final_norm) @ weights.W_U
            logits = logits if weights.b_U is None else logits + weights.b_U
            cap = weights.logit_soft_cap
            logits = logits if cap is None else cap * torch.tanh(logits / cap)
            expected = loss_of(logits, tokens) - found.full
            assert float((found.loss[index, layer] - expected).abs().max()) <= 1e-9


def slow_parts(model: Model, geometry: Geometry, x: torch.Tensor, layer: int) -> torch.Tensor:
    """What attention of a layer writes on a residual stream."""
    weights = model.weights
    bare = dataclasses.replace(weights.blocks[layer], mlp=None)
    one = dataclasses.replace(weights, blocks=(bare,), rotary=weights.rotary_at(layer))
    run = forward(one, geometry.tokens, edits={("input", 0): [(None, Edit("input", x))]})
    return run.residuals[-1] - x


def slow_mlp(block, x: torch.Tensor) -> torch.Tensor:
    if block.mlp is None:
        return torch.zeros_like(x)
    return mlp_output(neuron_activations(normalise(x, block.mlp_norm), block.mlp), block.mlp, block.mlp_post_norm)


@pytest.mark.parametrize("seed", range(30))
def test_direct_total_and_compensation_add_up_where_no_norm_rescales(seed: int) -> None:
    model, tokens = random_case(seed)
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, final_norm=None))
    found = remove_layers(model, tokens)
    assert float((found.total - (found.direct - found.compensation)).abs().max()) <= 1e-9
    assert float((found.later.sum(dim=-1) - found.mean("compensation")).abs().max()) <= 1e-9
    assert not found.compensation[-1, -1].abs().max() > 1e-12, "after the last layer nothing compensates"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_direct_and_total_effects_are_those_on_the_next_tokens_logit(seed: int, kind: Removal) -> None:
    model, tokens = random_case(seed)
    found, run, weights = remove_layers(model, tokens, kind=kind), model.run(tokens), model.weights
    onto = weights.W_U.T[tokens.ids.roll(-1, dims=1)] - weights.W_U.mean(dim=1)

    def over_prompts(read: torch.Tensor) -> torch.Tensor:
        counted = tokens.mask & tokens.mask.roll(-1, dims=1)
        counted[:, -1] = False
        return ((read * onto).sum(dim=-1) * counted).sum(dim=1) / counted.sum(dim=1)

    for index, part in enumerate(found.parts):
        for layer in range(model.n_layers):
            wrote = torch.stack([run.middles[layer] - run.residuals[layer], run.residuals[layer + 1] - run.middles[layer]])
            stand = wrote[:, tokens.mask].mean(dim=1) if kind == "mean" else 0 * wrote[:, 0, 0]
            gone = (wrote - stand[:, None, None])[{"attention": [0], "mlp": [1], "both": [0, 1]}[part]].sum(dim=0)
            direct = over_prompts(through_norm(gone, weights.final_norm, run.final_scale))
            assert float((found.direct[index, layer] - direct).abs().max()) <= 1e-9
            blocks = (*weights.blocks[:layer], without(weights.blocks[layer], part, stand), *weights.blocks[layer + 1 :])
            other = dataclasses.replace(model, weights=dataclasses.replace(weights, blocks=blocks)).run(tokens)
            ends = [normalise(one.residuals[-1], weights.final_norm) for one in (run, other)]
            assert float((found.total[index, layer] - over_prompts(ends[0] - ends[1])).abs().max()) <= 1e-9
    counts = found.counts.double()
    assert torch.allclose(found.mean("loss"), (found.loss * counts).sum(dim=-1) / counts.sum(), rtol=0, atol=1e-12)
    assert found.interval("total", "attention", 0).effect == pytest.approx(float(found.total[0, 0].mean()))


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_losses_are_over_tokens_and_intervals_over_prompts(seed: int) -> None:
    model, tokens = random_case(seed)
    cut = {"W_U": model.weights.W_U[:, :7], "b_U": None, "logit_soft_cap": None}
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, **cut))
    tokens = TokenBatch(tokens.ids % 7, tokens.mask)
    found, run = order_of_terms(model, tokens), model.run(tokens, keep="patterns")
    counts = (tokens.mask.sum(dim=1) - 1).double()

    def mean(values: torch.Tensor) -> float:
        return float((values * counts).sum() / counts.sum())

    assert found.uniform == pytest.approx(math.log(7)) and torch.equal(found.counts.double(), counts)
    assert found.full_loss == pytest.approx(mean(loss_of(run.logits, tokens)), abs=1e-9)
    assert found.loss(1) == pytest.approx(mean(found.losses[1]), abs=1e-12)
    assert found.interval(1).effect == pytest.approx(float((found.losses[0] - found.losses[1]).mean()))
    expansion = expand(run, heads=1)
    for layer, head in itertools.product(range(model.n_layers), range(model.n_heads)):
        x = frozen_final(run, expansion.up_to(1) - expansion.head_term(1, layer, head))
        expected = mean(loss_of(x @ model.weights.W_U, tokens)) - found.loss(1)
        assert float(found.heads[0, layer, head]) == pytest.approx(expected, abs=1e-9)


def test_a_removed_part_writes_its_constant() -> None:
    model, tokens = random_case(3)
    value = torch.randn(2, model.d_model, dtype=torch.float64)
    blocks = (without(model.weights.blocks[0], "both", value), *model.weights.blocks[1:])
    run = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks)).run(tokens)
    added = value.sum(dim=0) if model.d_mlp else value[0]
    assert float((run.residuals[1] - run.residuals[0] - added)[tokens.mask].abs().max()) <= 1e-12


def test_small_batches_change_nothing() -> None:
    model, tokens = random_case(4)
    whole, removed = order_of_terms(model, tokens), remove_layers(model, tokens, kind="mean")
    again, once_more = order_of_terms(model, tokens, budget=1), remove_layers(model, tokens, kind="mean", budget=1)
    assert float((whole.losses - again.losses).abs().max()) <= 1e-12
    assert float((whole.heads - again.heads).abs().max()) <= 1e-12
    assert float((removed.compensation - once_more.compensation).abs().max()) <= 1e-10


def test_results_are_saved_and_read_back(tmp_path: Path) -> None:
    model, tokens = random_case(2)
    terms, removal = order_of_terms(model, tokens), remove_layers(model, tokens, kind="mean")
    terms.save(tmp_path / "terms.json")
    removal.save(tmp_path / "removal.json")
    assert Terms.load(tmp_path / "terms.json").to_dataframe().equals(terms.to_dataframe())
    assert LayerRemoval.load(tmp_path / "removal.json").to_dataframe().equals(removal.to_dataframe())
    assert LayerRemoval.load(tmp_path / "removal.json").kind == "mean"
    for kind, name, changes in (
        (Terms, "terms", ({"mlps": "odd"}, {"losses": [[1.0]]}, {"heads_shape": [1]}, {"counts": "x"})),
        (LayerRemoval, "removal", ({"parts": ["odd"]}, {"loss": [1.0]}, {"counts": None})),
    ):
        data = json.loads((tmp_path / f"{name}.json").read_text())
        for change in changes:
            (tmp_path / "bad.json").write_text(json.dumps({**data, **change}))
            with pytest.raises(FileFormatError, match=r"bad\.json"):
                kind.load(tmp_path / "bad.json")


def test_bad_text_and_weights_are_refused() -> None:
    model, tokens = random_case(0)
    for job in (order_of_terms, remove_layers):
        with pytest.raises(PromptError, match="no next token"):
            job(model, torch.tensor([[3]]))
    with pytest.raises(PromptError, match="frozen or zero"):
        order_of_terms(model, tokens, heads=-1)
    broken = dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_E=model.weights.W_E * float("nan")))
    with pytest.raises(NonFiniteError):
        order_of_terms(broken, tokens)
