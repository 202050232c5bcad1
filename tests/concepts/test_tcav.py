"""Concepts that were planted: one that the answer hangs on, one that can be read off as well and is not used."""

from typing import Any

import pytest
import torch
from sklearn.linear_model import Ridge

from circuits.concepts import ConceptTest, tcav
from circuits.concepts.changing import Continued
from circuits.concepts.places import concept_sites
from circuits.concepts.slopes import slopes
from circuits.concepts.vectors import RIDGE, concept_vectors
from circuits.errors import GraphError, PromptError
from circuits.models import Model, TokenBatch
from circuits.models.planted import planted_previous
from circuits.progress import silent
from circuits.tasks import PromptPairs
from circuits.tasks.metric import fitted

A, B = range(1, 9), range(9, 17)


def texts(firsts: range, seconds: range, count: int, seed: int) -> TokenBatch:
    """BOS and two tokens, drawn."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(part.start, part.stop, (count,), generator=generator) for part in (firsts, seconds))
    return TokenBatch.unpadded(torch.stack([torch.zeros_like(first), first, second], dim=1))


def asked(model: Model) -> PromptPairs:
    """Prompts of any tokens; which of A or B stood before the last one is what the model says."""
    tokens = texts(range(1, 25), range(1, 25), 24, 99)
    ones = torch.ones(len(tokens), dtype=torch.long)
    return PromptPairs(tokens, tokens[torch.arange(len(tokens)).flip(0)], ones, 9 * ones, tokens.last)


def says_a(logits: torch.Tensor, pairs: PromptPairs) -> torch.Tensor:
    """How much rather a token of A is said than one of B."""
    return logits[:, list(A)].mean(dim=1) - logits[:, list(B)].mean(dim=1)


def found(seed: int, *, used: bool, sites: list[str], **options: Any) -> ConceptTest:
    model = planted_previous(seed=seed).model
    examples = texts(A, range(1, 25), 40, seed) if used else texts(range(1, 25), A, 40, seed)
    pool = texts(range(1, 25), range(1, 25), 200, 1000 + seed)
    options = {"everywhere": False, **options}
    return tcav(model, examples, pool, asked(model), says_a, sites=sites, seed=seed, **options)


def test_a_used_concept_counts_in_20_of_20_and_one_that_can_only_be_read_off_in_1_at_most() -> None:
    false, published = 0, 0
    for seed in range(20):
        used, unused = (found(seed, used=used, sites=["resid2"], sets=12, curves=0) for used in (True, False))
        assert used.significant == ("resid2",) and float(used.score[0]) == 1 and float(used.low[0]) > 0
        assert float(unused.accuracy[0]) > float(unused.chance[0]) + 0.15, "it is there to be read"
        false += bool(unused.significant)
        published += float(unused.published[0]) < 0.05
    assert false <= 1
    assert published > 2, "the published test takes what its examples have by chance for the concept"


def test_moving_and_erasing_a_used_concept_moves_the_answer_and_random_directions_do_not() -> None:
    test = found(0, used=True, sites=["resid1", "resid2"], curves=2)
    assert test.significant == ("resid2",) and test.concept in test.summary and "resid2" in test.summary
    (curve,) = test.curves
    values = dict(zip(curve.steps, curve.values, strict=True))
    assert values[0.0] == pytest.approx(test.whole) and curve.errors[curve.steps.index(0.0)] == 0
    assert values[-2.0] < values[-1.0] < values[0.0] < values[1.0] < values[2.0]
    assert values[1.0] - values[0.0] == pytest.approx(float(test.slope[1]), rel=0.25), "a step is what the slope says"
    off = max(abs(random - test.whole) for random, step in zip(curve.random, curve.steps, strict=True) if abs(step) <= 2)
    assert off < 0.3 * abs(values[2.0] - values[0.0])
    everywhere = found(0, used=True, sites=["resid2"], curves=1, everywhere=True)
    assert everywhere.significant == ("resid2",)


def test_a_concept_is_found_in_the_head_that_carries_it_and_moved_there_alone() -> None:
    test = found(0, used=True, sites=["each-head", "a1", "m1"], sets=30, curves=2)
    assert test.sites == ("a0.h0", "a0.h1", "a1.h0", "a1.h1", "a2.h0", "a2.h1", "a1", "m1")
    slopes = dict(zip(test.sites, test.slope.tolist(), strict=True))
    assert set(test.significant) >= {"a1.h0", "a1"} and {curve.site for curve in test.curves} == {"a1.h0", "a1"}
    assert all(abs(slope) < 0.02 * slopes["a1"] for site, slope in slopes.items() if site not in ("a1.h0", "a1"))
    for curve in test.curves:
        values = dict(zip(curve.steps, curve.values, strict=True))
        assert values[0.0] == pytest.approx(test.whole) and curve.random_spread[curve.steps.index(0.0)] == pytest.approx(0)
        assert values[1.0] - values[0.0] == pytest.approx(slopes[curve.site], rel=0.25)
        assert curve.random_erased_spread is not None and min(curve.random_spread[:2]) > 0


def test_every_place_continues_as_the_model_does_and_its_slope_is_a_difference() -> None:
    model, pairs = planted_previous(seed=1).model, asked(planted_previous(seed=1).model)
    places, measure = concept_sites(model, ["resid0", "resid3", "a1", "a1.h0", "m2"]), fitted(says_a, model, pairs)
    ways = slopes(model, pairs, measure, places, everywhere=True, budget=2**26, report=silent)
    continued = Continued(model, pairs, measure, True, 2**26)
    generator, mask = torch.Generator().manual_seed(0), pairs.clean.mask[..., None]
    for place in places:
        stream = continued.stream(place.layer)
        whole = stream if place.family == "residual" else continued.stream(place.layer, place.family)
        torch.testing.assert_close(continued.scores(place, whole, stream), ways.scores)
        way = torch.randn(place.of(whole).shape[-1], generator=generator).double()
        ends = [
            continued.scores(place, place.put(whole, place.of(whole) + sign * 1e-5 * way * mask), stream) for sign in (1, -1)
        ]
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, ways.at[place.name] @ way, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_directions_are_those_of_ridge_regression_and_left_out_examples_are_judged_without_themselves(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 7 + 20 * (seed % 2), generator=generator).double()
    positive, negative = torch.arange(9), torch.arange(20, 29)
    x[positive] += 0.6
    fitted = concept_vectors(x, positive[None], negative[None])
    rows, sides = torch.cat([x[positive], x[negative]]), torch.cat([torch.ones(9), -torch.ones(9)]).double()
    centred = rows - rows.mean(dim=0)
    penalty = RIDGE * float(centred.square().sum(dim=1).mean()) * 18**0.5
    slow = torch.from_numpy(Ridge(alpha=penalty).fit(rows.numpy(), sides.numpy()).coef_)
    assert torch.allclose(fitted.directions[0], slow / slow.norm(), atol=1e-9)
    right = 0
    for out in range(18):
        rest = [row for row in range(18) if row != out]
        one = Ridge(alpha=penalty).fit(rows[rest].numpy(), sides[rest].numpy())
        right += float(one.predict(rows[out : out + 1].numpy())[0]) * float(sides[out]) > 0
    assert float(fitted.accuracy[0]) == pytest.approx(right / 18)
    apart = (x[positive].mean(dim=0) - x[negative].mean(dim=0)) @ fitted.directions[0]
    assert float(fitted.spread[0]) == pytest.approx(float(apart) / 2)


def test_what_cannot_be_tested_is_refused() -> None:
    model = planted_previous(seed=0).model
    few, pool = texts(A, A, 4, 0), texts(A, A, 30, 1)
    for examples, others, options, words in (
        (few, pool, {}, "4 examples of the concept and 30 other texts: expected 5 or more"),
        (pool, pool[:9], {}, "30 examples of the concept and 9 other texts"),
        (pool[:10], pool, {"sets": 1}, "sets=1"),
    ):
        with pytest.raises(PromptError, match=words):
            tcav(model, examples, others, asked(model), says_a, **options)  # type: ignore[arg-type]
    for site, words in (
        ("p0", "p0 is no place of a concept; expected resid3, a3"),
        ("m0.n3", "m0.n3 has one direction, along which every concept's slope is as large: expected m0"),
        ("a7", "has no a7"),
    ):
        with pytest.raises(GraphError, match=words):
            tcav(model, pool[:10], pool, asked(model), says_a, sites=[site])
