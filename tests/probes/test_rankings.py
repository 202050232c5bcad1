"""Rankings of neurons: each against its definition said slowly, and all on neurons whose part is known."""

import itertools
import math
import random

import pytest
import torch

from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.probes.ranking.agreement import agreement
from circuits.probes.ranking.gaussians import Gaussians, choose_by_gaussians, top_of
from circuits.probes.ranking.means import apart_by_means
from circuits.probes.ranking.weights import by_mass, fit_elastic_net

CAUSAL, COPIES, NOISE = (0, 1, 2), (3, 4), 5
"""Columns of `planted`: three that each know a part of the label, copies of the first two, one of noise with large numbers."""


def planted(words: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes told apart by three neurons together; the rest is noise."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (words,), generator=made)
    x = torch.randn(words, 12, generator=made, dtype=torch.float64)
    means = torch.tensor([[-1.0, -1.0, 0.0], [-1.0, 1.0, 1.1], [1.0, -1.0, -1.1], [1.0, 1.0, 0.0]], dtype=torch.float64)
    x[:, :3] = means[labels] + 0.9 * x[:, :3]
    x[:, 3:5] = x[:, :2] + 0.05 * torch.randn(words, 2, generator=made, dtype=torch.float64)
    x[:, NOISE] *= 40
    return x, labels


def slow_choice(gaussians: Gaussians, x: torch.Tensor, labels: torch.Tensor, count: int) -> tuple[list[int], list[float]]:
    """Every candidate fitted from scratch: the marginal Gaussians of chosen neurons and one more."""
    chosen, likelihoods = [], []
    for _ in range(count):
        best, most = -1, -math.inf
        for neuron in set(range(x.shape[1])) - set(chosen):
            some = [*chosen, neuron]
            densities = [
                torch.distributions.MultivariateNormal(mean[some], covariance[some][:, some]).log_prob(x[:, some])
                for mean, covariance in zip(gaussians.means, gaussians.covariances, strict=True)
            ]
            joint = torch.stack(densities, dim=1) + gaussians.log_shares
            likelihood = float(joint.log_softmax(dim=1).gather(1, labels[:, None]).sum())
            if likelihood > most:
                best, most = neuron, likelihood
        chosen.append(best)
        likelihoods.append(most)
    return chosen, likelihoods


@pytest.mark.parametrize("seed", range(3))
def test_neurons_chosen_by_gaussians_are_those_of_fitting_each_candidate_anew(seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (150,), generator=made)
    x = torch.randn(150, 9, generator=made, dtype=torch.float64) @ torch.randn(9, 9, generator=made, dtype=torch.float64)
    x += torch.randn(3, 9, generator=made, dtype=torch.float64)[labels]
    gaussians = Gaussians.of(x[:80], labels[:80], classes=3)
    found = choose_by_gaussians(gaussians, x[80:], labels[80:], count=9)
    chosen, likelihoods = slow_choice(gaussians, x[80:], labels[80:], 9)
    assert found.neurons.tolist() == chosen
    shares = labels[80:].bincount(minlength=3) / 70
    entropy = float(-(shares * shares.log2()).sum())
    expected = torch.tensor(likelihoods) / (70 * math.log(2)) + entropy
    assert torch.allclose(found.bits, expected, atol=1e-6)


def test_a_gaussian_is_what_prior_and_words_say() -> None:
    x, labels = planted(60, 1)
    found = Gaussians.of(x, labels, classes=4)
    own = x[labels == 2]
    prior = x.var(dim=0, correction=0).diag() + 0.01 * len(own) / (0.01 + len(own)) * torch.outer(
        own.mean(dim=0) - x.mean(dim=0), own.mean(dim=0) - x.mean(dim=0)
    )
    assert torch.allclose(found.covariances[2], (own.T.cov(correction=0) * len(own) + prior) / (1 + len(own)))
    assert torch.allclose(found.means[2], (own.sum(dim=0) + 0.01 * x.mean(dim=0)) / (len(own) + 0.01))


@pytest.mark.parametrize("seed", range(5))
def test_gaussians_take_no_copy_before_all_that_is_new(seed: int) -> None:
    x, labels = planted(1600, seed)
    found = choose_by_gaussians(Gaussians.of(x[:800], labels[:800], classes=4), x[800:], labels[800:], count=3)
    groups = [{0, 3}, {1, 4}, {2}]
    assert all(len(group & set(found.neurons.tolist())) == 1 for group in groups)
    assert found.bits[2] > found.bits[1] + 0.1, "the third neuron tells what the two do not"


@pytest.mark.parametrize("seed", range(5))
def test_means_without_a_scale_rank_the_noise_first(seed: int) -> None:
    x, labels = planted(800, seed)
    raw = apart_by_means(x, labels, classes=4, standardised=False)
    fair = apart_by_means(x, labels, classes=4)
    assert int(raw.argmax()) == NOISE
    assert set(fair.argsort(descending=True)[:5].tolist()) == {0, 1, 2, 3, 4}


def test_distances_of_means_are_those_of_all_pairs() -> None:
    x, labels = planted(50, 3)
    x[:, 7] = 2.5
    slow = torch.zeros(12, dtype=torch.float64)
    for a, b in itertools.combinations(range(4), 2):
        slow += (x[labels == a].mean(dim=0) - x[labels == b].mean(dim=0)).abs()
    assert torch.allclose(apart_by_means(x, labels, classes=4, standardised=False), slow, atol=1e-12)
    deviation = x.std(dim=0, correction=0)
    assert torch.allclose(apart_by_means(x, labels, classes=4)[:7], (slow / deviation)[:7])
    assert float(apart_by_means(x, labels, classes=6)[7]) == 0, "a neuron that never changes; classes without words are none"


def test_an_elastic_net_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    x, labels = planted(300, 4)
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    sparse, ridge = 0.02, 0.01
    found = fit_elastic_net(x, labels, classes=4, sparse=sparse, ridge=ridge, tolerance=1e-9, steps=5000)
    strength = sparse + ridge
    oracle = LogisticRegression(
        C=1 / (300 * strength), l1_ratio=sparse / strength, solver="saga", tol=1e-8, max_iter=5000, fit_intercept=True
    ).fit(x.numpy(), labels.numpy())
    weights = torch.from_numpy(oracle.coef_).T
    assert torch.allclose(found.weights, weights, atol=1e-4)
    assert int((found.weights == 0).sum()) > 12, "weights that are worth little are 0"


def test_the_mass_before_a_neuron_is_dalvis_ranking() -> None:
    rng = random.Random(0)
    weights = torch.tensor([[rng.choice([0.0, rng.uniform(-2, 2)]) for _ in range(3)] for _ in range(10)], dtype=torch.float64)
    found = by_mass(weights)
    for share in (0.05, 0.3, 0.7, 0.95):
        slow = set()
        for column in weights.T.abs():
            total, held = float(column.sum()), 0.0
            for neuron in sorted(range(10), key=lambda n: -float(column[n])):
                if held >= share * total or float(column[neuron]) == 0:
                    break
                slow.add(neuron)
                held += float(column[neuron])
        assert {neuron for neuron in range(10) if float(found[neuron]) < share} == slow


@pytest.mark.parametrize("seed", range(3))
def test_weights_find_the_causal_and_not_the_noise(seed: int) -> None:
    x, labels = planted(1000, seed)
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    found = by_mass(fit_elastic_net(x, labels, classes=4, sparse=0.01, ridge=0.01).weights)
    assert set(found.argsort()[:5].tolist()) == {0, 1, 2, 3, 4}


def test_shared_neurons_agree_and_others_do_not() -> None:
    made = torch.Generator().manual_seed(0)
    shared = torch.randn(400, 3, generator=made, dtype=torch.float64)
    models = []
    for _ in range(3):
        own = torch.randn(400, 5, generator=made, dtype=torch.float64)
        models.append(torch.cat([shared[:, :2] * torch.tensor([1.0, -3.0]), own], dim=1))
    models[1] = torch.cat([models[1], shared[:, 2:]], dim=1)
    first = torch.cat([models[0], shared[:, 2:]], dim=1)
    found = agreement(first, models[1], models[2])
    assert (found.by("min")[:2] > 0.999).all()
    assert (found.by("min")[2:] < 0.3).all()
    assert found.by("max")[7] > 0.999, "one model has it"
    assert found.by("min")[7] < 0.3, "not all have it"
    for name in ("regression", "svcca"):
        assert float(found.by(name)[:2].min()) > 0.99 > 0.5 > float(found.by(name)[2:].max())


def test_what_a_regression_explains_is_least_squares() -> None:
    made = torch.Generator().manual_seed(1)
    x, other = torch.randn(60, 4, generator=made), torch.randn(60, 5, generator=made)
    other[:, 0] = x[:, 0] + other[:, 0]
    found = agreement(x, other).explained[0]
    design = torch.cat([other, torch.ones(60, 1)], dim=1).double()
    left = x.double() - design @ torch.linalg.lstsq(design, x.double()).solution
    expected = 1 - left.square().sum(dim=0) / (x.double() - x.double().mean(dim=0)).square().sum(dim=0)
    assert torch.allclose(found, expected, atol=1e-9)


def test_what_cannot_be_ranked_is_refused() -> None:
    x, labels = planted(40, 0)
    with pytest.raises(CircuitsError, match="class 4 has no word"):
        Gaussians.of(x, labels, classes=5)
    with pytest.raises(CircuitsError, match="from 0 to 2"):
        apart_by_means(x, labels, classes=3)
    with pytest.raises(CircuitsError, match="from 1 to the 12 neurons"):
        choose_by_gaussians(Gaussians.of(x, labels, classes=4), x, labels, count=13)
    bad = x.clone()
    bad[3, 1] = math.nan
    with pytest.raises(NonFiniteError):
        fit_elastic_net(bad, labels, classes=4)
    with pytest.raises(PromptError, match="40, 39 words"):
        agreement(x, x[:39])
    with pytest.raises(CircuitsError, match="another model"):
        agreement(x)
    with pytest.raises(CircuitsError, match="expected one of max, min, regression, svcca"):
        agreement(x, x).by("mean")


def test_a_ranking_goes_on_where_the_choice_ends() -> None:
    x, labels = planted(200, 0)
    found = choose_by_gaussians(Gaussians.of(x, labels, classes=4), x, labels, count=2)
    rest = torch.arange(12, dtype=torch.float64)
    order = top_of(found, 12, rest).tolist()
    assert order[:2] == found.neurons.tolist()
    assert order[2:] == [n for n in reversed(range(12)) if n not in order[:2]]
