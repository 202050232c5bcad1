"""Weight scores against the dense matrices they stand for."""

import itertools

import pytest
import torch

from circuits.graph import Node
from circuits.heads import composition_scores, copying_eigenvalue_scores, matching_eigenvalue_scores
from circuits.heads.composition import random_composition
from circuits.models import Model
from tests.models.native import native_bridge

OPTIONS = [
    {"normalization_type": "LN"},
    {"normalization_type": "RMS"},
    {"normalization_type": None},
    {"n_key_value_heads": 2},
    {"d_vocab_out": 21},
]


def random_model(seed: int = 0, **options) -> Model:
    shape = {"d_vocab": 30, "n_heads": 4, "n_layers": 3, "attn_only": True}
    return Model.from_bridge(native_bridge(seed, **{**shape, **options}))


def reading(model: Model, layer: int, head: int, slot: str) -> torch.Tensor:
    """Column-vector style: the matrix that a head applies to the normed residual, norm folded in, written out in full."""
    block = model.weights.blocks[layer]
    group = head if slot == "Q" else head // (model.n_heads // model.n_key_value_heads)
    d_head = model.d_head
    matrix = getattr(block.attention, f"W_{slot}")[:, group * d_head : (group + 1) * d_head]
    return folded(model, block.attention_norm) @ matrix


def folded(model: Model, norm) -> torch.Tensor:
    identity = torch.eye(model.d_model, dtype=torch.float64)
    if norm is None:
        return identity
    gain = identity if norm.weight is None else torch.diag(norm.weight)
    return (identity - 1 / model.d_model if norm.kind == "layer" else identity) @ gain


def output(model: Model, layer: int, head: int) -> torch.Tensor:
    d_head = model.d_head
    return model.weights.blocks[layer].attention.W_O[head * d_head : (head + 1) * d_head]


def positive_share(matrix: torch.Tensor) -> float:
    values = torch.linalg.eigvals(matrix)
    return float(values.sum().real / values.abs().sum())


@pytest.mark.parametrize("options", OPTIONS)
def test_eigenvalue_scores_equal_those_of_the_vocabulary_wide_matrices(options: dict):
    model = random_model(**options)
    weights = model.weights
    copying, matching = copying_eigenvalue_scores(model), matching_eigenvalue_scores(model)
    for layer, head in itertools.product(range(3), range(4)):
        W_Q, W_K, W_V = (reading(model, layer, head, slot) for slot in "QKV")
        known = weights.W_E[: weights.W_U.shape[1]]  # tokens that the model both reads and predicts
        ov = known @ W_V @ output(model, layer, head) @ folded(model, weights.final_norm) @ weights.W_U
        assert float(copying[layer, head]) == pytest.approx(positive_share(ov), abs=1e-6)
        qk = weights.W_E @ W_Q @ W_K.T @ weights.W_E.T
        assert float(matching[layer, head]) == pytest.approx(positive_share(qk), abs=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_composition_equals_the_norms_of_dense_products(options: dict):
    model = random_model(**options)
    scores = composition_scores(model)
    norm = torch.linalg.matrix_norm
    for early, late in itertools.combinations(range(3), 2):
        for a, b in itertools.product(range(4), range(4)):
            ov1 = reading(model, early, a, "V") @ output(model, early, a)
            ov2 = reading(model, late, b, "V") @ output(model, late, b)
            qk2 = reading(model, late, b, "Q") @ reading(model, late, b, "K").T
            dense = {
                "q": norm(ov1 @ qk2) / (norm(ov1) * norm(qk2)),
                "k": norm(qk2 @ ov1.T) / (norm(ov1) * norm(qk2)),
                "v": norm(ov1 @ ov2) / (norm(ov1) * norm(ov2)),
            }
            for slot, expected in dense.items():
                got = scores.of(slot, Node("head", early, a), Node("head", late, b))
                assert got == pytest.approx(float(expected) - scores.random, abs=1e-9)


def test_earlier_readers_score_zero_and_the_table_lists_each_pair_once():
    scores = composition_scores(random_model())
    assert not scores.k[2, :, :3].any()
    assert len(scores.to_dataframe()) == 3 * 16


def test_random_weights_lie_near_the_random_mean():
    model = random_model(d_model=64, d_head=8, normalization_type=None)
    later = [scores[0, :, 1] for scores in (composition_scores(model).k, composition_scores(model).q)]
    assert max(float(values.mean().abs()) for values in later) < 0.05
    drawn = [composition_scores(model, seed=seed).random for seed in (0, 1)]
    assert drawn == [random_composition(64, 8, seed=seed) for seed in (0, 1)] and drawn[0] != drawn[1]
