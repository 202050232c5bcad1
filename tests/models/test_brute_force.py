"""The fast forward equals the slow reference on random small models of every kind, with and without edits."""

import random

import numpy as np
import pytest
import torch

from circuits.errors import ModelError
from circuits.models import Model, TokenBatch
from circuits.models.run import Run
from tests.models.native import native_bridge, random_native
from tests.models.random_edits import RandomEdit, node_sizes, random_batch, random_edit, random_patterns
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights, record_of
from tests.models.reference import Array, Result, Shape, run

BY_HAND, NATIVE, EDITS = range(200), range(100), 4


def planted(shape: Shape, weights: dict[str, Array], dtype: torch.dtype = torch.float64) -> Model:
    """A model from raw weights."""
    return Model("random", "random", record_of(shape, weights, dtype), None)


def sizes_of(model: Model) -> dict:
    """What can be edited in a model."""
    return node_sizes(model.n_layers, model.n_heads, model.d_head, model.d_mlp, model.d_model)


def some_edits(rng: random.Random, model: Model, batch: TokenBatch) -> list[RandomEdit]:
    """One to four edits."""
    return [random_edit(rng, sizes_of(model), batch, model.dtype) for _ in range(rng.randint(1, EDITS))]


def slow(
    shape: Shape, weights: dict[str, Array], batch: TokenBatch, edits: list[RandomEdit], patterns: list | None = None
) -> list[Result]:
    """The reference on each prompt by itself, without its pads."""
    results = []
    for prompt in range(len(batch)):
        given = None if patterns is None else [p[prompt].numpy() for p in patterns]
        changes = [edit.changes[prompt] for edit in edits]
        results.append(run(shape, weights, batch.ids[prompt][batch.mask[prompt]].tolist(), changes, given))
    return results


def assert_equal(fast: Run, slow_results: list[Result], bound: float) -> None:
    """Logits, residuals, z, neurons and patterns agree at every token."""
    for prompt, expected in enumerate(slow_results):
        seen = fast.tokens.mask[prompt]
        pairs = [("logits", fast.logits[prompt, seen], expected.logits)]
        for name in ("residuals", "z", "neurons"):
            ours, theirs = getattr(fast, name), getattr(expected, name)
            assert len(ours) == len(theirs), name
            pairs += [(name, a[prompt, seen], b) for a, b in zip(ours, theirs, strict=True)]
        for layer, pattern in enumerate(expected.patterns):
            pairs.append(("pattern", fast.pattern(layer)[prompt][:, seen][:, :, seen], pattern))
        for name, ours, theirs in pairs:
            assert tuple(ours.shape) == theirs.shape, name
            difference = np.abs(ours.double().numpy() - theirs).max(initial=0.0)
            assert difference <= bound, f"{name} of prompt {prompt} differ by {difference:.2g}"


@pytest.mark.parametrize("seed", BY_HAND)
def test_models_built_by_hand_equal_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model, batch = planted(shape, weights), random_batch(rng, D_VOCAB, LENGTH)
    assert_equal(model.run(batch), slow(shape, weights, batch, []), 1e-10)
    for _ in range(2):
        edits = some_edits(rng, model, batch)
        keep = rng.choice(["factors", "patterns"])
        with torch.set_grad_enabled(seed % 2 == 0):
            fast = model.run(batch, edits=[e.edit for e in edits], keep=keep)
        assert_equal(fast, slow(shape, weights, batch, edits), 1e-10)


@pytest.mark.parametrize("seed", NATIVE)
def test_native_models_equal_the_reference_and_their_bridge(seed: int) -> None:
    rng = random.Random(1000 + seed)
    shape, bridge = random_native(rng)
    weights = {name: tensor.detach().double().numpy() for name, tensor in bridge.state_dict().items()}
    model, batch = Model.from_bridge(bridge), random_batch(rng, D_VOCAB, LENGTH)
    assert_equal(model.run(batch), slow(shape, weights, batch, []), 1e-10)
    edits = some_edits(rng, model, batch)
    assert_equal(model.run(batch, edits=[e.edit for e in edits]), slow(shape, weights, batch, edits), 1e-10)
    with torch.no_grad():
        theirs = bridge(batch.ids, prepend_bos=False)
    ours = model.run(batch.ids, keep="logits").logits
    assert float((ours - theirs).abs().max()) <= 1e-5, "native norms compute in float32"


@pytest.mark.parametrize("seed", range(25))
def test_frozen_patterns_equal_the_reference(seed: int) -> None:
    rng = random.Random(2000 + seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model = planted(shape, weights)
    batch = TokenBatch.unpadded(random_batch(rng, D_VOCAB, LENGTH).ids)
    patterns, edits = random_patterns(rng, model.n_layers, model.n_heads, batch), some_edits(rng, model, batch)
    fast = model.run(batch, edits=[e.edit for e in edits], patterns=patterns)
    assert_equal(fast, slow(shape, weights, batch, edits, patterns), 1e-10)


@pytest.mark.parametrize("seed", range(25))
def test_float32_stays_within_1e_5(seed: int) -> None:
    rng = random.Random(3000 + seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model, batch = planted(shape, weights, torch.float32), random_batch(rng, D_VOCAB, LENGTH)
    edits = some_edits(rng, model, batch)
    fast = model.run(batch, edits=[e.edit for e in edits])
    assert fast.logits.dtype == torch.float32
    assert_equal(fast, slow(shape, weights, batch, edits), 1e-5)


def test_the_reference_itself_sees_a_change_of_every_switch() -> None:
    """A reference that ignored a switch could not vouch for it: each one moves its logits."""
    for switch, values in {
        "norm": ["LN", "RMS"],
        "final_rms": [False, True],
        "eps": [1e-5, 1e-2],
        "adjacent": [True, False],
        "rotary_base": [10000.0, 50.0],
        "rotary_bases": [(), (10000.0, None)],
        "position_scale": [1.0, 2.0],
        "parallel": [False, True],
        "post_norms": [False, True],
        "score_scale": [0.5, 0.7],
        "score_cap": [None, 2.0],
        "logit_cap": [None, 3.0],
        "windows": [(None, None), (2, None)],
        "causal": [True, False],
        "embedding_scale": [1.0, 3.0],
        "embedding_norm": [False, True],
        "activation": ["gelu", "gelu_new"],
        "slopes": [(), (0.3, 0.1)],
    }.items():
        results = []
        for value in values:
            fixed = {"n_layers": 2, "n_heads": 2, "n_key_value_heads": 1, "d_head": 4, "rotary_dim": 4}
            shape = Shape(**{**fixed, "positions": "rotary", "score_scale": 0.5, switch: value})
            weights = random_weights(Shape(**fixed, norm="LN", positions="rotary"), random.Random(3))
            results.append(run(shape, weights, [1, 2, 3, 4]).logits)
        assert np.abs(results[0] - results[1]).max() > 1e-6, switch


def test_native_models_with_a_norm_inside_the_mlp_are_refused() -> None:
    with pytest.raises(ModelError, match="solu_ln"):
        Model.from_bridge(native_bridge(act_fn="solu_ln"))
