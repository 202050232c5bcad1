"""Features as nodes: they add up to the model, their scores are slopes, what is measured is what a slow run gives."""

import dataclasses
import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits.attribution import attribute_nodes
from circuits.concepts import Dictionary, FeatureScores, attribute_features
from circuits.concepts.feature_nodes.taps import Tap, parsed_node, put_together, taps_of
from circuits.concepts.features.dictionary import DictionaryKind
from circuits.concepts.features.places import FeaturePlace
from circuits.concepts.features.standing import standing
from circuits.errors import CircuitsError, GraphError
from circuits.models import Edit, Model, Run, TokenBatch
from circuits.models.forward import forward
from circuits.tasks import PromptPairs, metrics
from circuits.tasks.metric import answer_logits
from tests.models.random_models import random_shape, random_weights, record_of
from tests.patching.test_sweeps import random_pairs

FEATURES = 11
KINDS: tuple[DictionaryKind, ...] = ("relu", "topk", "jumprelu")


def random_model(seed: int, **fixed: Any) -> tuple[Model, PromptPairs]:
    """A small model with an MLP, and pairs that make a difference."""
    for attempt in itertools.count():
        rng = random.Random(f"{seed} {attempt}")
        shape = dataclasses.replace(
            random_shape(rng), **{"n_layers": 3, "windows": (None, 3, None), "rotary_bases": (), **fixed}
        )
        raw = random_weights(shape, rng)
        if "blocks.0.mlp.in.weight" in raw:
            return Model("random", "random", record_of(shape, raw), None), random_pairs(rng)
    raise AssertionError


def random_dictionary(model: Model, site: str, seed: int, reads: str = "", skip: bool = False) -> Dictionary:
    """One of some kind, about half of whose features are active where it reads."""
    rng = torch.Generator().manual_seed(seed)
    width, wide = (FeaturePlace.parse(name).width(model) for name in (reads or site, site))
    W_enc, W_dec = (torch.randn(FEATURES, size, generator=rng, dtype=torch.float64) for size in (width, wide))
    b_enc, b_dec = (torch.randn(size, generator=rng, dtype=torch.float64) for size in (FEATURES, wide))
    kind, zeros = KINDS[seed % 3], torch.zeros(FEATURES, dtype=torch.float64)
    threshold = zeros + 0.3 if kind == "jumprelu" else zeros
    W_skip = torch.randn(width, wide, generator=rng, dtype=torch.float64) if skip else None
    k = 4 if kind == "topk" else 0
    return Dictionary(f"d{seed}", site, kind, k, W_enc, b_enc, W_dec, b_dec, threshold, "", reads, W_skip)


PLACES = (("resid0", ""), ("resid2", ""), ("resid3", ""), ("mid1", ""), ("attn1", ""), ("a1", ""), ("m0", ""), ("m2", ""))
TRANSCODERS = (("m1", "in1"), ("m1", "unit1"), ("m0", "mid0"), ("m1", "resid0"))


def put(model: Model, tokens: TokenBatch, place: FeaturePlace, change: Tensor) -> Run:
    """A whole run in which something is added to what stands at a place."""
    edits = {place.site: [(None, Edit("input", lambda y: y + change.reshape(y.shape)))]}
    return forward(model.weights, model.prepare(tokens), edits=edits)


@pytest.mark.parametrize("seed", range(len(PLACES) + len(TRANSCODERS)))
def test_features_bias_and_error_add_up_to_what_stands_there(seed: int) -> None:
    model, pairs = random_model(seed)
    site, reads = (*PLACES, *TRANSCODERS)[seed]
    own = random_dictionary(model, site, seed, reads, skip=seed % 2 == 1)
    (tap,) = taps_of(model, own)
    run = model.run(pairs.clean)
    apart = tap.apart(run, size=3)
    torch.testing.assert_close(put_together(tap, apart, size=4), apart.y, atol=1e-12, rtol=1e-12)
    there = put_together(tap, apart) - standing(run, tap.writes)
    assert float((put(model, pairs.clean, tap.writes, there).logits - run.logits).abs().max()) < 1e-10
    assert float(apart.error.abs().max()) > 1e-3, "a random dictionary leaves something"
    ramp = torch.arange(apart.y[0, 0].numel(), dtype=torch.float64).sin().expand_as(apart.y)
    assert not torch.allclose(put(model, pairs.clean, tap.writes, ramp).logits, run.logits), "the run is made of it"


@pytest.mark.parametrize("seed", range(6))
def test_blocks_of_features_are_those_of_all(seed: int) -> None:
    model, _ = random_model(1)
    own = random_dictionary(model, "m0", seed)
    y = torch.randn(4, 3, model.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole = own.encode(y)
    for size in (1, 3, FEATURES, 50):
        torch.testing.assert_close(torch.cat([z for _, z in own.blocks(y, size=size)], dim=-1), whole)
        torch.testing.assert_close(own.given(y, size=size), own.decode(whole))
    some = torch.tensor([7, 0, 3])
    torch.testing.assert_close(own.some(y, some), whole[..., some])
    if own.k:
        assert int((whole > 0).sum(dim=-1).max()) <= own.k


def slow_scores(model: Model, pairs: PromptPairs, tap: Tap, feature: int | str, step: float) -> Tensor:
    """The metric of the clean prompts where a node goes a step of the way to its corrupt value, by a whole run."""
    own, other = (tap.apart(model.run(tokens)) for tokens in (pairs.clean, pairs.corrupt))
    if isinstance(feature, str):
        change = other.rest(feature) - own.rest(feature)
    else:
        z = tap.dictionary.encode(other.r)[..., feature] - tap.dictionary.encode(own.r)[..., feature]
        change = z[..., None] * tap.dictionary.W_dec[feature]
    change = change * pairs.clean.mask[..., None]
    return metrics.logit_difference(answer_logits(put(model, pairs.clean, tap.writes, step * change), pairs), pairs)


@pytest.mark.parametrize("seed", range(len(PLACES) + len(TRANSCODERS)))
def test_scores_are_finite_differences_and_measures_are_runs(seed: int) -> None:
    model, pairs = random_model(seed, causal=True)
    site, reads = (*PLACES, *TRANSCODERS)[seed]
    own = random_dictionary(model, site, seed, reads, skip=seed % 2 == 1)
    found = attribute_features(model, own, pairs, metrics.logit_difference, method="eap", exact=50)
    (tap,) = taps_of(model, own)
    clean = metrics.logit_difference(answer_logits(model.run(pairs.clean), pairs), pairs)
    for row, name in enumerate(found.names):
        feature = parsed_node([tap], name)[1]
        step = 1e-5
        slope = (slow_scores(model, pairs, tap, feature, step) - slow_scores(model, pairs, tap, feature, -step)) / (2 * step)
        torch.testing.assert_close(found.scores[row], slope, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found.exact[row], slow_scores(model, pairs, tap, feature, 1.0) - clean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.by_position.sum(dim=1), found.scores.mean(dim=1))
    assert {tap.node(rest) for rest in tap.rests} <= set(found.names) and found.order() == list(range(len(found)))


@pytest.mark.parametrize("seed", range(4))
def test_scores_along_the_way_add_up_to_the_whole_place(seed: int) -> None:
    model, pairs = random_model(seed, activation="gelu", score_cap=None)
    own = random_dictionary(model, ("resid1", "m1", "a1", "mid0")[seed], seed)
    found = attribute_features(model, own, pairs, metrics.logit_difference, steps=200)
    one = found.taps[0]
    assert one.estimated == pytest.approx(one.exact, rel=1e-3, abs=1e-4)
    assert one.estimated == pytest.approx(float(found.scores.mean(dim=1).sum()))
    if found.taps[0].place == "resid1" and not model.weights.parallel:
        assert one.exact == pytest.approx(float(found.gap.mean()))


def test_neurons_as_features_have_the_scores_of_neurons() -> None:
    for seed in range(20):
        model, pairs = random_model(seed, activation="relu", post_norms=False)
        if model.weights.blocks[1].mlp.W_gate is None:  # type: ignore[union-attr]
            break
    mlp = model.weights.blocks[1].mlp
    assert mlp is not None and mlp.W_gate is None
    zeros = torch.zeros(mlp.W_in.shape[1], dtype=torch.float64)
    b_in = zeros if mlp.b_in is None else mlp.b_in
    b_out = torch.zeros(model.d_model, dtype=torch.float64) if mlp.b_out is None else mlp.b_out
    own = Dictionary("neurons", "m1", "relu", 0, mlp.W_in.T, b_in, mlp.W_out, b_out, zeros, reads="in1")
    found = attribute_features(model, own, pairs, metrics.logit_difference, method="eap")
    neurons = attribute_nodes(model, pairs, metrics.logit_difference, method="eap", neurons=True)
    by_name = dict(zip(neurons.names, neurons.scores - neurons.clean, strict=True))
    for name, scores in zip(found.names, found.scores, strict=True):
        if name != "m1.error":
            torch.testing.assert_close(scores, by_name[name.replace(".f", ".n")], atol=1e-10, rtol=1e-8)
    assert abs(found.taps[0].by_error) < 1e-12 and len(found) > 1


def test_attribution_to_a_feature_is_the_slope_of_its_pre_activation() -> None:
    model, pairs = random_model(5, causal=True)
    early, late = random_dictionary(model, "m0", 3), random_dictionary(model, "resid2", 4)
    found = attribute_features(model, [late, early], pairs, metrics.logit_difference, to="resid2.f6", method="eap")
    first, second = taps_of(model, [late, early])
    assert (first.name, second.name) == ("m0", "resid2") and all(name.startswith("m0.") for name in found.names)
    own = model.run(pairs.clean)
    before = (own.residuals[2] @ second.dictionary.W_enc[6] + second.dictionary.b_enc[6]).masked_fill(~pairs.clean.mask, -9e9)
    torch.testing.assert_close(found.clean, before.max(dim=1).values)
    columns, rows = before.argmax(dim=1), torch.arange(len(pairs))
    apart, other = first.apart(own), first.apart(model.run(pairs.corrupt))
    for row, name in enumerate(found.names):
        feature = parsed_node([first], name)[1]
        if isinstance(feature, str):
            continue
        z = (first.dictionary.encode(other.r) - first.dictionary.encode(apart.r))[..., feature] * pairs.clean.mask
        values = []
        for step in (1e-5, -1e-5):
            run = put(model, pairs.clean, first.writes, step * z[..., None] * first.dictionary.W_dec[feature])
            values.append((run.residuals[2] @ second.dictionary.W_enc[6])[rows, columns])
        torch.testing.assert_close(found.scores[row], (values[0] - values[1]) / 2e-5, rtol=1e-4, atol=1e-7)


def test_a_budget_changes_no_number() -> None:
    model, pairs = random_model(2)
    own = [random_dictionary(model, "m0", 3), random_dictionary(model, "resid2", 4)]
    wide, tight = (attribute_features(model, own, pairs, metrics.logit_difference, budget=budget) for budget in (2**28, 1))
    assert wide.names == tight.names
    torch.testing.assert_close(wide.scores, tight.scores, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(wide.exact, tight.exact, atol=1e-10, rtol=1e-8, equal_nan=True)


def test_what_fits_no_model_is_refused() -> None:
    model, pairs = random_model(2)
    own = random_dictionary(model, "m0", 3)
    wrong = dataclasses.replace(own, W_enc=own.W_enc[:, 1:], W_dec=own.W_dec[:, 1:], b_dec=own.b_dec[1:])
    for given, words in (
        (wrong, f"of a model {model.d_model - 1} wide, random is {model.d_model} wide"),
        (dataclasses.replace(own, site="m7"), "has no m7: it has 3 layers"),
        (dataclasses.replace(own, site="in1"), "in1 is only read"),
        (dataclasses.replace(own, reads="m2"), "reads m2, which is computed after m0"),
        (dataclasses.replace(own, site="q1"), "'q1' is no place of a dictionary"),
    ):
        with pytest.raises(GraphError, match=words):
            attribute_features(model, given, pairs, metrics.logit_difference)
    wrong_options: tuple[tuple[Any, dict[str, Any], str], ...] = (
        ([own, own], {}, "two dictionaries take m0 apart"),
        ([], {}, "there is no dictionary"),
        (own, {"to": "m0.f99"}, "has no feature 99: it has 11"),
        (own, {"to": "m0.error"}, "has no pre-activation"),
        (own, {"to": "m0.f1"}, "comes before all dictionaries"),
        (own, {"steps": 0}, "expected numbers above 0"),
    )
    for given, more, words in wrong_options:
        with pytest.raises(CircuitsError, match=words):
            attribute_features(model, given, pairs, metrics.logit_difference, **more)


def test_scores_say_what_they_are() -> None:
    model, pairs = random_model(2)
    found = attribute_features(model, random_dictionary(model, "m0", 3), pairs, metrics.logit_difference, keep=3, exact=4)
    assert len(found) == 4 and isinstance(found, FeatureScores) and "of 11 features differ; strongest m0.f" in found.summary
    table = found.to_dataframe()
    assert table["node"].tolist() == list(found.names) and not table["measured"].isna().any() and found.agreement is not None
    assert table["effect"].tolist() == pytest.approx((found.scores.mean(dim=1) / found.gap.mean()).tolist())
