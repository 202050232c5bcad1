"""Many patched runs at once equal one slow run a patch, on random small models of every kind."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from circuits.errors import NonFiniteError
from circuits.models import Model, TokenBatch
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import find_sites, value_at
from circuits.patching.engine.sweep import Sweep
from tests.models.native import native_bridge
from tests.models.random_edits import random_batch
from tests.models.random_models import D_VOCAB, LENGTH, random_shape, random_weights
from tests.models.reference import run
from tests.models.test_brute_force import planted
from tests.patching.random_changes import RandomChange, random_change

PATCHES = 20


def reading(rng: random.Random, batch: TokenBatch) -> Reading:
    """One or two random tokens of each prompt, and random weights on their logits."""
    count = rng.choice([1, 1, 2])
    columns = [[rng.choice(mask.nonzero()[:, 0].tolist()) for _ in range(count)] for mask in batch.mask]
    weight = torch.randn(count, D_VOCAB, generator=torch.Generator().manual_seed(rng.randrange(2**32))).double()
    return Reading(torch.tensor(columns), lambda logits: (logits.log_softmax(dim=-1) * weight).sum(dim=(1, 2)))


def variants_of(rng: random.Random, model: Model, batch: TokenBatch) -> list[list[RandomChange]]:
    """Twenty variants of one to four changes; some begin with the same change."""
    drawn: list[list[RandomChange]] = []
    for _ in range(PATCHES):
        begun = list(rng.choice(drawn)) if drawn and rng.random() < 0.3 else []
        more = [random_change(rng, model, batch) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        drawn.append((begun + more)[:4])
    return drawn


def expected(shape, weights, batch: TokenBatch, how: Reading, variant: list[RandomChange]) -> torch.Tensor:
    """The metric by the reference, each prompt by itself."""
    rows = []
    for prompt in range(len(batch)):
        ids = batch.ids[prompt][batch.mask[prompt]].tolist()
        done = run(shape, weights, ids, [change.slow[prompt] for change in variant])
        logits = np.zeros((batch.ids.shape[1], D_VOCAB))
        logits[batch.mask[prompt].numpy()] = done.logits
        rows.append(torch.tensor(logits[how.columns[prompt].numpy()]))
    return how.score(torch.stack(rows))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_patched_runs_equal_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model, batch = planted(shape, weights), random_batch(rng, D_VOCAB, LENGTH)
    how, variants = reading(rng, batch), variants_of(rng, model, batch)
    sweep = Sweep(model, model.run(batch), how, budget=rng.choice([2**18, 2**22]))
    fast = sweep.evaluate([tuple(change.change for change in variant) for variant in variants])
    for variant, scores in zip(variants, fast, strict=True):
        slow = expected(shape, weights, batch, how, variant)
        bound = 1e-10 * max(1.0, float(slow.abs().max()))
        assert float((scores - slow).abs().max()) <= bound, [change.change.name for change in variant]


@pytest.mark.parametrize("seed", range(30))
def test_frozen_patterns_equal_the_reference_with_the_base_run_s_patterns(seed: int) -> None:
    rng = random.Random(5000 + seed)
    shape = random_shape(rng)
    weights = random_weights(shape, rng)
    model, batch = planted(shape, weights), random_batch(rng, D_VOCAB, LENGTH)
    how = reading(rng, batch)
    variants = [[c for c in v if c.change.kind not in ("pattern", "knockout")] for v in variants_of(rng, model, batch)]
    variants = [variant for variant in variants if variant]
    sweep = Sweep(model, model.run(batch), how, freeze_patterns=True)
    fast = sweep.evaluate([tuple(change.change for change in variant) for variant in variants])
    for variant, scores in zip(variants, fast, strict=True):
        rows = []
        for prompt in range(len(batch)):
            ids = batch.ids[prompt][batch.mask[prompt]].tolist()
            patterns = run(shape, weights, ids).patterns
            done = run(shape, weights, ids, [change.slow[prompt] for change in variant], patterns)
            logits = np.zeros((batch.ids.shape[1], D_VOCAB))
            logits[batch.mask[prompt].numpy()] = done.logits
            rows.append(torch.tensor(logits[how.columns[prompt].numpy()]))
        slow = how.score(torch.stack(rows))
        assert float((scores - slow).abs().max()) <= 1e-10 * max(1.0, float(slow.abs().max()))


@pytest.mark.parametrize("seed", range(20))
def test_reading_some_tokens_equals_reading_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7000 + seed)
    shape = random_shape(rng)
    model, batch = planted(shape, random_weights(shape, rng)), random_batch(rng, D_VOCAB, LENGTH)
    variants = [tuple(change.change for change in variant) for variant in variants_of(rng, model, batch)]
    tokens = torch.tensor([[rng.randrange(D_VOCAB) for _ in range(2)] for _ in range(len(batch))])
    columns = batch.last[:, None]
    rows = torch.arange(len(batch))
    whole = Reading(columns, lambda logits: logits[rows, 0, tokens[:, 0]] - logits[rows, 0, tokens[:, 1]])
    few = Reading(columns, lambda logits: logits[:, 0, 0] - logits[:, 0, 1], tokens)
    base = model.run(batch)
    difference = Sweep(model, base, whole).evaluate(variants) - Sweep(model, base, few).evaluate(variants)
    assert float(difference.abs().max()) <= 1e-10 * max(1.0, float(base.logits.abs().max()))
    monkeypatch.setattr("circuits.patching.engine.reading.VOCABULARY", 3)
    among = Reading(columns, lambda logits: logits.log_softmax(dim=-1)[rows, 0, tokens[:, 0]])
    alone = Reading(columns, lambda told: told[:, 0, 0], tokens, normalised=True)
    difference = Sweep(model, base, among).evaluate(variants) - Sweep(model, base, alone).evaluate(variants)
    assert float(difference.abs().max()) <= 1e-10 * max(1.0, float(base.logits.abs().max()))


@pytest.mark.parametrize("seed", range(20))
def test_what_a_mask_leaves_out_may_hold_anything(seed: int) -> None:
    rng = random.Random(9000 + seed)
    shape = random_shape(rng)
    model, batch = planted(shape, random_weights(shape, rng)), random_batch(rng, D_VOCAB, LENGTH)
    given = [random_change(rng, model, batch).change for _ in range(12)]
    given = [change for change in given if change.kind != "knockout"]
    spoiled = []
    for change in given:
        used = change.mask.reshape(*change.mask.shape, *[1] * (change.value.ndim - 2))
        spoiled.append(dataclasses.replace(change, value=torch.where(used, change.value, torch.nan)))
    sweep = Sweep(model, model.run(batch), reading(rng, batch))
    pure, other = (sweep.evaluate([(change,) for change in changes]) for changes in (given, spoiled))
    assert torch.allclose(pure, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["a0.h1", "m1.n2", "a1.h0<q>"])
def test_two_changes_of_one_site_are_one_at_both_positions(name: str) -> None:
    model = Model.from_bridge(native_bridge(3, d_vocab=D_VOCAB))
    batch = TokenBatch.unpadded(torch.tensor([[1, 2, 3, 4]]))
    site, run_of = find_sites(model, name)[0], model.run(batch)
    value = 1 + value_at(Base(model, run_of), site)
    early, late = (torch.tensor([[place == wanted for place in range(4)]]) for wanted in (1, 3))
    once, *twice = (Change(site.kind, site.layer, site.index, value, mask) for mask in (early | late, early, late))
    how = Reading(torch.tensor([[3]]), lambda logits: logits[:, 0, 0] - logits[:, 0, 1])
    both, each = Sweep(model, run_of, how).evaluate([(once,), tuple(twice)])
    assert torch.allclose(both, each, rtol=1e-12, atol=1e-12)


def test_a_number_that_goes_wrong_on_the_way_is_told_with_its_layer() -> None:
    model = Model.from_bridge(native_bridge(1, d_vocab=D_VOCAB, normalization_type=None))
    batch = TokenBatch.unpadded(torch.tensor([[1, 2, 3]]))
    first = model.weights.blocks[0]
    assert first.mlp is not None
    W_out = first.mlp.W_out.clone()
    W_out[0] = 10.0  # one term that overflows alone: no order of adding makes it a number
    blocks = (dataclasses.replace(first, mlp=dataclasses.replace(first.mlp, W_out=W_out)), *model.weights.blocks[1:])
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, blocks=blocks))
    change = Change("neuron", 0, 0, torch.full((1, 3), 1e308, dtype=torch.float64), batch.mask)
    how = Reading(torch.tensor([[2]]), lambda logits: logits[:, 0, 0])
    with pytest.raises(NonFiniteError, match="the residual stream before layer 1 holds NaN or infinity in a patched run"):
        Sweep(model, model.run(batch), how).evaluate([(change,)])
