"""Fitted probes against scikit-learn's, and codelength and scores against their definitions."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from circuits.errors import CircuitsError, NonFiniteError
from circuits.probes.codelength import block_ends, online_bits
from circuits.probes.fitting import LinearProbe, macro_f1
from circuits.probes.regression import Problem, Scale, Turned, fit_logistic, scores_of


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Correlated vectors of very different sizes, and labels that hang on them more or less."""
    generator = torch.Generator().manual_seed(seed)
    count, width, classes = 40 + 23 * (seed % 5), 2 + 3 * (seed % 4), 2 + seed % 4
    x = torch.randn(count, width, generator=generator).double() @ torch.randn(width, width, generator=generator).double()
    x *= 10.0 ** torch.randint(-2, 3, (width,), generator=generator)
    noise = torch.randn(count, classes, generator=generator).double()
    scores = Scale.of(x).apply(x) @ torch.randn(width, classes, generator=generator).double()
    return x, (scores + noise * (seed % 3)).argmax(dim=1), classes


@pytest.mark.parametrize("seed", range(8))
def test_the_weights_are_scikit_learn_s_in_float64(seed: int) -> None:
    x, labels, classes = drawn(seed)
    x = Scale.of(x).apply(x)
    penalties = (1.0, 0.03, 0.001)
    found = fit_logistic(Turned.of(x), [Problem(labels, one) for one in penalties], classes=classes, tolerance=1e-15)
    there = labels.unique()
    for penalty, ours in zip(penalties, found, strict=True):
        slow = LogisticRegression(C=1 / (len(x) * penalty), tol=1e-10, max_iter=20_000).fit(x.numpy(), labels.numpy())
        theirs = torch.from_numpy(slow.predict_proba(x.numpy()))
        chances = scores_of(x, ours).softmax(dim=1)
        if len(there) == 2:  # scikit-learn then has one vector for both classes, whose penalty is another one
            continue
        assert torch.allclose(chances[:, there], theirs, atol=2e-5)
        if len(there) == classes:
            centred = ours[:-1] - ours[:-1].mean(dim=1, keepdim=True)
            assert torch.allclose(centred.T, torch.from_numpy(slow.coef_), atol=2e-4 / penalty**0.5)


@pytest.mark.parametrize("seed", range(4))
def test_problems_side_by_side_are_those_one_by_one_and_the_gradient_is_zero(seed: int) -> None:
    x, labels, classes = drawn(seed)
    x, other = Scale.of(x).apply(x), labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    problems = [Problem(labels, 0.1), Problem(other, 0.01), Problem(labels, 0.002)]
    together = fit_logistic(Turned.of(x), problems, classes=classes, tolerance=1e-16)
    for problem, weights in zip(problems, together, strict=True):
        alone = fit_logistic(Turned.of(x), [problem], classes=classes, tolerance=1e-16)[0]
        assert torch.allclose(alone, weights, atol=1e-6)
        at = weights.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(scores_of(x, at), problem.labels)
        loss = loss + problem.penalty / 2 * at[:-1].square().sum()
        present = problem.labels.bincount(minlength=classes) > 0
        (slope,) = torch.autograd.grad(loss, at)
        assert float(slope[:, present].abs().max()) < 1e-6


def test_the_default_tolerance_is_near_enough() -> None:
    x, labels, classes = drawn(7)
    turned = Turned.of(Scale.of(x).apply(x))
    near, exact = (fit_logistic(turned, [Problem(labels, 0.003)], classes=classes, tolerance=t)[0] for t in (1e-4, 1e-15))

    def loss(weights: torch.Tensor) -> float:
        scores = scores_of(turned.rows @ turned.axes.T, weights)
        return float(torch.nn.functional.cross_entropy(scores, labels) + 0.0015 * weights[:-1].square().sum())

    assert 0 <= loss(near) - loss(exact) < 1e-3


def test_what_cannot_be_fitted_is_refused() -> None:
    x = torch.randn(6, 2).double()
    turned, labels = Turned.of(x), torch.tensor([0, 1, 0, 1, 0, 1])
    for problem, words in (
        (Problem(labels[:3], 0.1), "3 labels of 6 words"),
        (Problem(labels, 0.0), "a penalty of 0.0"),
        (Problem(labels + 1, 0.1), "the label 2: expected one from 0 to 1"),
    ):
        with pytest.raises(CircuitsError, match=words):
            fit_logistic(turned, [problem], classes=2)
    with pytest.raises(CircuitsError, match="no words"):
        Turned.of(x[:0])
    broken = Turned(torch.full_like(turned.rows, torch.nan), turned.axes, turned.spread)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        fit_logistic(broken, [Problem(labels, 0.1)], classes=2)


def test_a_direction_that_never_changes_is_left_as_it_is() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert Scale.of(x).apply(x).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_a_probe_s_answer_hangs_on_its_directions_alone() -> None:
    x, labels, classes = drawn(3)
    scale = Scale.of(x)
    weights = fit_logistic(Turned.of(scale.apply(x)), [Problem(labels, 0.01)], classes=classes)[0]
    probe = LinearProbe(scale, weights, 0.01)
    basis = probe.directions
    assert basis.shape == (classes - 1, x.shape[1])
    assert torch.allclose(basis @ basis.T, torch.eye(classes - 1).double(), atol=1e-9)
    kept = x @ basis.T @ basis
    moved = kept + torch.randn_like(x) @ (torch.eye(x.shape[1]).double() - basis.T @ basis)
    assert torch.allclose(probe.scores(kept).softmax(dim=1), probe.scores(moved).softmax(dim=1), atol=1e-6)
    erased = x - (x - x.mean(dim=0)) @ basis.T @ basis
    assert torch.allclose(probe.scores(erased).softmax(dim=1).std(dim=0), torch.zeros(classes).double(), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learn_s(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gold, answers = torch.randint(4, (2, 30), generator=generator)
    expected = f1_score(gold.numpy(), answers.numpy(), labels=gold.unique().numpy(), average="macro", zero_division=0)
    assert macro_f1(answers, gold, 5) == pytest.approx(float(expected))


def test_codelength_is_the_definition_and_tells_what_can_be_read() -> None:
    generator = torch.Generator().manual_seed(0)
    count, classes = 200, 3
    labels = torch.randint(classes, (count,), generator=generator)
    sentence = torch.arange(count) // 4
    told = torch.nn.functional.one_hot(labels, classes).double() + 0.01 * torch.randn(count, 3, generator=generator).double()
    noise = torch.randn(count, 3, generator=generator).double()
    about = {"classes": classes, "penalty": 0.01}
    known, unknown = (online_bits(Scale.of(x).apply(x), labels, sentence, **about) for x in (told, noise))
    assert known < 0.6 and 0.95 * math.log2(3) < unknown < 1.5 * math.log2(3)
    ends, x, bits = block_ends(sentence), Scale.of(told).apply(told), 0.0
    assert ends[-1] == count and ends == sorted(set(ends)) and all(end % 4 == 0 for end in ends)
    for start, end in zip([0, *ends], ends, strict=False):
        if not start:
            bits += end * math.log2(classes)
            continue
        problem = Problem(labels[:start], 0.01 * count / start)
        fitted = fit_logistic(Turned.of(x).first(start), [problem], classes=classes)[0]
        for word in range(start, end):
            chance = float(scores_of(x[word : word + 1], fitted).softmax(dim=1)[0, labels[word]])
            bits -= math.log2((start * chance + 0.5) / (start + 0.5 * classes))
    assert bits / count == pytest.approx(known)
