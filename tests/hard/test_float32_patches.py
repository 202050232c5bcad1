"""Patched runs in float32 equal brute force in float64 to 1e-5, on random models of every kind."""

import dataclasses
import random

import pytest
import torch

from circuits.patching.engine.sweep import Sweep
from tests.models.random_edits import random_batch
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights
from tests.models.test_brute_force import planted
from tests.patching.random_changes import RandomChange
from tests.patching.test_engine import expected, reading, variants_of


def single(change: RandomChange) -> RandomChange:
    """The same change, its value in float32."""
    value = change.change.value
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return change
    return dataclasses.replace(change, change=dataclasses.replace(change.change, value=value.float()))


@pytest.mark.parametrize("seed", range(500))
def test_patches_in_float32_equal_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model, batch = planted(shape, weights, torch.float32), random_batch(rng, D_VOCAB, LENGTH)
    how, variants = reading(rng, batch), variants_of(rng, model, batch)
    own = dataclasses.replace(how, score=lambda logits: how.score(logits.double()))
    sweep = Sweep(model, model.run(batch), own, budget=2**22)
    fast = sweep.evaluate([tuple(single(change).change for change in variant) for variant in variants])
    for variant, scores in zip(variants, fast, strict=True):
        slow = expected(shape, weights, batch, how, variant)
        bound = 1e-5 * max(1.0, float(slow.abs().max()))
        assert float((scores - slow).abs().max()) <= bound, [change.change.name for change in variant]
