"""Heads of lower rank: the nearest matrices, and ranks that keep the loss."""

import dataclasses
import functools
import itertools
import json
import math
import random
from pathlib import Path

import pytest
import torch

from circuits.errors import FileFormatError, GraphError, PromptError
from circuits.heads import Compression, compress_heads
from circuits.heads.composition import output_matrices, reading_matrices
from circuits.heads.low_rank import OFFSETS, parameters, with_ranks
from circuits.heads.text_loss import run_from
from circuits.models import Model
from circuits.models.planted import planted_tables
from circuits.models.weights import Rotary
from tests.models.native import native_bridge
from tests.models.random_models import D_VOCAB, random_shape, random_weights, record_of

IDS = torch.randint(D_VOCAB, (4, 9), generator=torch.Generator().manual_seed(0))


def random_model(seed: int, **options) -> Model:
    rng = random.Random(seed)
    shape = dataclasses.replace(random_shape(rng), **options)
    return Model("random", "random", record_of(shape, random_weights(shape, rng)), None)


@pytest.mark.parametrize("seed", range(12))
def test_lower_ranks_are_the_nearest_matrices(seed: int) -> None:
    model = random_model(seed, positions="learned", key_norm=None)
    head, layer = model.n_heads - 1, model.n_layers - 1
    for rank in range(model.d_head + 1):
        changed = with_ranks(model.weights, {(layer, head, "qk"): rank, (layer, head, "ov"): rank})
        for product in (qk_of, ov_of):
            whole, lower = product(model.weights.blocks[layer])[head], product(changed.blocks[layer])[head]
            U, S, V = torch.linalg.svd(whole)
            nearest = U[:, :rank] * S[:rank] @ V[:rank]
            assert float((lower - nearest).norm()) <= 1e-5 * float(whole.norm())
            if head:
                assert torch.equal(product(changed.blocks[layer])[0], product(model.weights.blocks[layer])[0])


def qk_of(block) -> torch.Tensor:
    return torch.einsum("hmd,hnd->hmn", reading_matrices(block, "W_Q"), reading_matrices(block, "W_K"))


def ov_of(block) -> torch.Tensor:
    return torch.einsum("hmd,hdn->hmn", reading_matrices(block, "W_V"), output_matrices(block))


@pytest.mark.parametrize("seed", range(20))
def test_the_full_rank_is_the_model_and_a_value_bias_stays(seed: int) -> None:
    model = random_model(seed)
    places = itertools.product(range(model.n_layers), range(model.n_heads), ("qk", "ov"))
    every = dict.fromkeys(places, model.d_head)
    same = dataclasses.replace(model, weights=with_ranks(model.weights, every))
    assert float((same.run(IDS).logits - model.run(IDS).logits).abs().max()) <= 1e-9
    for head in range(model.n_heads):
        none = with_ranks(model.weights, {(0, head, "ov"): 0})
        attention, old = none.blocks[0].attention, model.weights.blocks[0].attention
        assert not attention.per_head("W_O")[head].any()
        if old.b_V is not None:
            group = head // (model.n_heads // model.n_key_value_heads)
            added = old.b_V[group * old.d_head : (group + 1) * old.d_head] @ old.per_head("W_O")[head]
            before = torch.zeros_like(added) if old.b_O is None else old.b_O
            assert attention.b_O is not None and float((attention.b_O - before - added).abs().max()) <= 1e-12


def test_rotary_ranks_fall_and_more_rank_is_nearer() -> None:
    model = random_model(1, positions="rotary", rotary_dim=4, d_head=6, key_norm=None, n_heads=2, n_key_value_heads=2)
    base = model.run(IDS, keep="patterns").patterns[0]
    errors = []
    for rank in range(7):
        changed = with_ranks(model.weights, {(0, 0, "qk"): rank})
        assert int(torch.linalg.matrix_rank(changed.blocks[0].attention.W_Q[:, :6])) <= rank
        pattern = dataclasses.replace(model, weights=changed).run(IDS, keep="patterns").patterns[0]
        errors.append(float((pattern - base)[:, 0].abs().max()))
        assert torch.equal(pattern[:, 1], base[:, 1])
    assert errors[-1] <= 1e-9 < errors[0] and errors[5] < errors[1]


def turn(rotary: Rotary, place: float, d_head: int) -> torch.Tensor:
    """The matrix that rotary positions apply to a row, written out."""
    matrix, count = torch.eye(d_head, dtype=torch.float64), len(rotary.inverse_frequencies)
    for i, frequency in enumerate(rotary.inverse_frequencies.tolist()):
        a, b = (2 * i, 2 * i + 1) if rotary.adjacent else (i, i + count)
        angle = place * frequency / rotary.position_scale
        matrix[a, a] = matrix[b, b] = math.cos(angle)
        matrix[a, b], matrix[b, a] = math.sin(angle), -math.sin(angle)
    return matrix


@pytest.mark.parametrize("seed", range(8))
def test_rotary_ranks_are_the_nearest_over_all_relative_places(seed: int) -> None:
    """Scores of all relative places beside each other are one matrix; nothing of that rank is nearer to it."""
    model = random_model(seed, positions="rotary", position_scale=2.0, d_head=6, key_norm=None)
    rotary, block, head = model.weights.rotary_at(0), model.weights.blocks[0], model.n_heads - 1
    assert rotary is not None
    turns = [turn(rotary, place, 6) for place in range(OFFSETS)]
    sides = [("W_Q", "W_K", turns), ("W_K", "W_Q", [matrix.T for matrix in turns])]
    for rank in range(1, 6):
        changed = with_ranks(model.weights, {(0, head, "qk"): rank}).blocks[0]
        for own, other, turned in sides if model.n_heads == model.n_key_value_heads else sides[:1]:
            reads = torch.cat([matrix @ reading_matrices(block, other)[head].T for matrix in turned], dim=1)
            whole, lower = (reading_matrices(one, own)[head] @ reads for one in (block, changed))
            U = torch.linalg.svd(whole, full_matrices=False).U[:, :rank]
            assert float((lower - U @ U.T @ whole).norm()) <= 1e-5 * float(whole.norm())


def test_each_layer_is_compressed_with_its_own_rotary_positions() -> None:
    model = random_model(2, positions="rotary", n_layers=2, windows=(None, None), rotary_bases=(), key_norm=None, d_head=6)
    one = model.weights.rotary_at(0)
    ranks = {(layer, model.n_heads - 1, "qk"): 1 for layer in range(2)}
    turned, still, mixed = (
        with_ranks(dataclasses.replace(model.weights, rotary=rotary), ranks) for rotary in (one, None, (one, None))
    )
    for layer, same, other in ((0, turned, still), (1, still, turned)):
        W_Q, theirs, others = (weights.blocks[layer].attention.W_Q for weights in (mixed, same, other))
        assert torch.equal(W_Q, theirs) and not torch.allclose(W_Q, others)


def test_a_run_from_a_layer_on_turns_each_layer_as_the_whole_run_does() -> None:
    bases = (50.0, None, 10000.0)
    model = random_model(2, positions="rotary", n_layers=3, windows=(None,) * 3, rotary_bases=bases, key_norm=None, d_head=6)
    run = model.run(torch.tensor([[3, 1, 4, 1, 5, 2]]))
    for layer in range(3):
        later = run_from(model.weights, run.tokens, layer, run.residuals[layer])
        assert float((later.residuals[-1] - run.residuals[-1]).abs().max()) <= 1e-12
        alone = run_from(model.weights.of_layers(layer, layer + 1), run.tokens, 0, run.residuals[layer])
        assert float((alone.residuals[-1] - run.residuals[layer + 1]).abs().max()) <= 1e-12


def test_numbers_of_a_head_are_those_of_its_factors() -> None:
    for groups, positions, expected in ((4, "learned", 2 * 8 * 2), (4, "rotary", 2 * 2 * 14), (2, "rotary", 2 * 14 + 8 * 6)):
        options = {"n_heads": 4, "n_key_value_heads": groups, "positions": positions, "d_head": 6, "key_norm": None}
        weights = random_model(0, **options).weights
        attention = weights.blocks[0].attention
        assert parameters(attention, 8, weights.rotary_at(0), "qk", 2) == expected, "a query of rank 2; shared keys stay whole"
        assert parameters(attention, 8, weights.rotary_at(0), "ov", 2) == 2 * 8 * 2
        whole = {parameters(attention, 8, weights.rotary_at(0), part, rank) for part in ("qk", "ov") for rank in (None, 6)}
        assert whole == {2 * 8 * 6}


def mean_loss(model: Model) -> float:
    logits = model.run(IDS).logits[:, :-1].log_softmax(dim=-1)
    return -float(logits.gather(-1, IDS[:, 1:, None]).mean())


@pytest.mark.parametrize("seed", range(5))
def test_the_ranks_that_are_reported_keep_the_loss(seed: int) -> None:
    model = random_model(seed, causal=True)
    found = compress_heads(model, IDS, tolerance=0.02)
    assert found.loss == pytest.approx(mean_loss(model), abs=1e-9)
    assert found.joint_loss == pytest.approx(mean_loss(found.apply(model)), abs=1e-9)
    assert len(found.parts) == 2 * model.n_layers * model.n_heads
    for (key, rank), part in zip(found.ranks.items(), found.parts, strict=True):
        alone = dataclasses.replace(model, weights=with_ranks(model.weights, {key: rank}))
        assert part.change == pytest.approx(mean_loss(alone) - found.loss, abs=1e-9) and part.change <= 0.02
        if rank:
            below = dataclasses.replace(model, weights=with_ranks(model.weights, {key: rank - 1}))
            assert mean_loss(below) - found.loss > 0.02


def test_together_the_loss_stays_within_the_tolerance() -> None:
    model = Model.from_bridge(native_bridge(3, d_vocab=D_VOCAB, n_heads=2, d_head=4))
    alone, together = (compress_heads(model, IDS, tolerance=0.05, together=both) for both in (False, True))
    assert together.joint_loss - together.loss <= 0.05 and together.parameters >= alone.parameters


def test_planted_heads_keep_what_was_written_and_lose_what_was_not() -> None:
    planted = planted_tables(seed=0)
    first, second, *_ = planted.fillers
    rows = [[0, first, s, second, d, o] for held in planted.skip_trigrams.values() for s, d, o in held]
    found = compress_heads(planted.model, torch.tensor(rows), tolerance=0.02)
    ranks = {(part.head, part.part): part.rank for part in found.parts}
    for head in planted.skip_trigrams:  # five sources, and resting on BOS
        assert 3 <= ranks[head, "ov"] <= 5 and 3 <= ranks[head, "qk"] <= 6
    assert found.parameters < 0.5 * found.whole_parameters


@functools.cache
def small() -> tuple[Model, Compression]:
    model = random_model(3, causal=True)
    return model, compress_heads(model, IDS, heads=["a0.h0"])


def test_results_are_saved_and_read_back(tmp_path: Path) -> None:
    _, found = small()
    found.save(tmp_path / "ranks.json")
    again = Compression.load(tmp_path / "ranks.json")
    assert dataclasses.asdict(again) == dataclasses.asdict(found) and len(found.to_dataframe()) == 2
    data = json.loads((tmp_path / "ranks.json").read_text())
    for change in ({"parts": [1]}, {"loss": None}, {"parts": [{"head": "a0.h0"}]}, {"format": "x"}):
        (tmp_path / "bad.json").write_text(json.dumps({**data, **change}))
        with pytest.raises(FileFormatError, match=r"bad\.json"):
            Compression.load(tmp_path / "bad.json")


def test_what_cannot_be_compressed_is_refused() -> None:
    model, _ = small()
    with pytest.raises(GraphError, match="m0"):
        compress_heads(model, IDS, heads=["m0"])
    with pytest.raises(PromptError, match="tolerance"):
        compress_heads(model, IDS, tolerance=-1.0)
    with pytest.raises(PromptError, match="no next token"):
        compress_heads(model, IDS[:, :1])
