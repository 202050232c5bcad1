"""Where wrong sentences stand out, on a planted shift and against scipy's density."""

import random

import pytest
import torch
from scipy.stats import multivariate_normal

from circuits.errors import ModelError, PromptError
from circuits.models.planted import planted_chain
from circuits.probes import probe_anomaly
from circuits.probes.anomalies.gaussians import LayerGaussian
from circuits.tasks import MinimalPair, grammar_pairs
from tests.probes.spoken import TOKENS, previous_model


def walks(count: int, seed: int) -> list[list[int]]:
    """Rows in which each word is followed by the next one, in a circle."""
    rng = random.Random(seed)
    return [[(start + step) % TOKENS + 1 for step in range(9)] for start in (rng.randrange(TOKENS) for _ in range(count))]


def said(row: list[int]) -> str:
    return " ".join(f"w{token}" for token in row)


def test_a_planted_shift_is_found_at_its_layer_and_not_before() -> None:
    model, pairs, rng = previous_model(), [], random.Random(5)
    for row in walks(40, 1):
        at = rng.randrange(1, 6)
        wrong = [*row]
        wrong[at], wrong[at + 2] = wrong[at + 2], wrong[at]  # the same words: only what stood before them is unusual
        pairs.append(MinimalPair(said(row), said(wrong), "circle"))
    found = probe_anomaly(model, pairs, [said(row) for row in walks(200, 2)], shuffles=200)
    assert found.sites == ("resid0", "resid1", "resid2", "resid3") and found.groups == ("circle",) and found.counts == (40,)
    assert found.first(0) == 2, "the word before is copied by layer 1"
    assert float(found.gaps[0, 2]) > 10 and float(found.gaps[0, :2].abs().max()) < 3
    assert "circle first at resid2" in found.summary
    assert float(found.shares[0, 2]) == 1 and float((found.shares[0, :2] - 0.5).abs().max()) < 0.3
    turned = [MinimalPair(pair.bad, pair.good, "circle") for pair in pairs]
    other = probe_anomaly(model, turned, [said(row) for row in walks(200, 2)], shuffles=20)
    assert torch.allclose(other.gaps, -found.gaps) and other.first(0) is None
    mixed = [*pairs[:20], *turned[20:]]
    assert probe_anomaly(model, mixed, [said(row) for row in walks(200, 2)], shuffles=200).first(0) is None


def test_surprisals_are_scipy_s() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=generator, dtype=torch.float64) @ torch.randn(4, 4, generator=generator).double() + 2
    fitted = LayerGaussian.of(x.sum(dim=0), x.T @ x, len(x))
    assert 0 < fitted.shrinkage < 0.2
    correlation = (1 - fitted.shrinkage) * torch.corrcoef(x.T) + fitted.shrinkage * torch.eye(4)
    covariance = correlation * torch.outer(x.std(dim=0, correction=0), x.std(dim=0, correction=0))
    slow = -multivariate_normal(x.mean(dim=0).numpy(), covariance.numpy()).logpdf(x[:9].numpy())
    assert fitted.surprisal(x[:9]).tolist() == pytest.approx(slow.tolist())
    still = torch.cat([x, torch.ones(200, 1)], dim=1)
    assert bool(LayerGaussian.of(still.sum(dim=0), still.T @ still, 200).surprisal(still).isfinite().all())


def test_pairs_of_the_grammar_have_one_thing_wrong() -> None:
    pairs = grammar_pairs(60, seed=3)
    assert {pair.paradigm for pair in pairs} == {"order", "number", "category"} and len(pairs) == 60
    for pair in pairs:
        good, bad = (text.lower().removesuffix(".").split() for text in (pair.good, pair.bad))
        apart = [place for place, (one, other) in enumerate(zip(good, bad, strict=True)) if one != other]
        assert len(apart) == 2 and sorted(good) == sorted(bad), "no word alone tells them apart"
        assert apart[1] == apart[0] + 1 or pair.paradigm != "order"
    assert grammar_pairs(60, seed=3) == pairs != grammar_pairs(60, seed=4)


def test_what_cannot_be_asked_is_refused() -> None:
    model, text = previous_model(), [said(row) for row in walks(200, 2)]
    pair = MinimalPair("w1 w2", "w2 w1")
    with pytest.raises(PromptError, match="3 minimal pairs in 1 paradigms: expected 10"):
        probe_anomaly(model, [pair] * 3, text)
    with pytest.raises(PromptError, match="directions: give more text"):
        probe_anomaly(model, [pair] * 10, text[:2])
    with pytest.raises(PromptError, match="shuffles=1"):
        probe_anomaly(model, [pair] * 10, text, shuffles=1)
    with pytest.raises(ModelError, match="has no tokenizer"):
        probe_anomaly(planted_chain().model, [pair] * 10, torch.tensor([[0, 1]]))
