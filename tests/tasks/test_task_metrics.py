"""The metrics that tasks bring along: against a loop, their gradients in closed form, and what they refuse."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator

import pytest
import torch

from circuits.errors import NonFiniteError, PromptError
from circuits.tasks import PromptPairs, agreement, docstring, greater_than
from circuits.tasks.library.docstring import docstring_metric
from circuits.tasks.library.greater_than import greater_than_metric, year_tokens
from circuits.tasks.metric import Metric
from tests.tasks.vocabularies import KINDS, Make, made, model, texts, word


def random_logits(kind: str, pairs: PromptPairs, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(len(pairs), model(kind).d_vocab, dtype=torch.float64, generator=generator)


def value_and_gradient(metric: Metric, logits: torch.Tensor, pairs: PromptPairs) -> tuple:
    leaf = logits.clone().requires_grad_()
    got = metric(leaf, pairs)
    return got.detach(), torch.autograd.grad(got.sum(), leaf)


@pytest.mark.parametrize("kind", ["byte pairs", "whole words", "spaced words"])
def test_greater_than_metric_equals_a_loop_and_has_its_gradient(kind: str) -> None:
    pairs = made(greater_than, kind, 6)
    metric = greater_than_metric(model(kind), pairs)
    assert metric.name == "greater_than"
    logits = random_logits(kind, pairs)
    got, (gradient,) = value_and_gradient(metric, logits, pairs)
    for row, label in enumerate(pairs.labels):
        start = int(re.findall(r"\d\d", label)[1])
        chances = logits[row].softmax(dim=0)
        signs = {int(token): 1 if year > start else -1 for year, token in enumerate(year_tokens(model(kind)))}
        expected = sum(float(chances[token]) * sign for token, sign in signs.items())
        assert len(signs) == 100 and float(got[row]) == pytest.approx(expected, abs=1e-12)
        slope = [float(chances[token]) * (signs.get(token, 0) - expected) for token in range(len(chances))]
        assert gradient[row].tolist() == pytest.approx(slope, abs=1e-12)
    rows = [4, 1, 1]  # sums over years, which kernels may add in another order for another number of rows
    assert torch.allclose(metric(logits[rows], pairs[rows]), got[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["single digits", "mini"])
def test_greater_than_metric_of_single_digits_equals_a_loop_and_has_its_gradient(kind: str) -> None:
    pairs = made(greater_than, kind, 24)
    metric, logits = greater_than_metric(model(kind), pairs), random_logits(kind, pairs)
    got, (gradient,) = value_and_gradient(metric, logits, pairs)
    tokens = {digit: int(pairs.clean.ids[row, column]) for digit, row, column in digits_of(kind, pairs)}
    for row, label in enumerate(pairs.labels):
        start = int(re.findall(r"\d", label)[2])
        chances = logits[row].softmax(dim=0)
        signs = {tokens[digit]: (digit > start) - (digit < start) for digit in tokens}
        expected = sum(float(chances[token]) * sign for token, sign in signs.items())
        assert set(tokens) == set(range(10)), "the prompts hold every digit"
        assert float(got[row]) == pytest.approx(expected, abs=1e-12)
        slope = [float(chances[token]) * (signs.get(token, 0) - expected) for token in range(len(chances))]
        assert gradient[row].tolist() == pytest.approx(slope, abs=1e-12)
    rows = [4, 1, 1]
    assert torch.allclose(metric(logits[rows], pairs[rows]), got[rows], rtol=0, atol=1e-12)


def digits_of(kind: str, pairs: PromptPairs) -> Iterator[tuple[int, int, int]]:
    """Every token of a clean prompt that is a digit and nothing else: the digit, its row and its column."""
    for row in range(len(pairs)):
        for column, text in enumerate(model(kind).to_token_strings(pairs.clean.ids[row])):
            if len(text) == 1 and text.isdigit():
                yield int(text), row, column


def test_year_tokens_are_the_years() -> None:
    for kind in KINDS[:3]:
        assert [word(kind, token) for token in year_tokens(model(kind))] == [f"{year:02d}" for year in range(100)]


def arguments(words: list[str]) -> list[str]:
    """The names in the head of a method and behind `:param`."""
    documented = [after for before, after in itertools.pairwise(words) if before == "param"]
    return words[words.index("self") + 1 :][:6] + documented


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("corruption", ["random", "random_answer", "random_doc"])
def test_docstring_metric_equals_a_loop_and_has_its_gradient(kind: str, corruption: str) -> None:
    pairs = made(docstring, kind, 6, corruption=corruption)
    metric = docstring_metric(model(kind), pairs)
    logits = random_logits(kind, pairs)
    got, (gradient,) = value_and_gradient(metric, logits, pairs)
    for row, (clean, corrupt, answer, _) in enumerate(texts(kind, pairs)):
        names = {*arguments(clean), *arguments(corrupt)} - {answer}
        tokens = {word(kind, token): int(token) for token in (*pairs.clean.ids[row], *pairs.corrupt.ids[row])}
        wrong = [tokens[name] for name in names]
        worst = max(wrong, key=lambda token: float(logits[row, token]))
        assert float(got[row]) == pytest.approx(float(logits[row, pairs.answers[row]] - logits[row, worst]), abs=1e-12)
        expected = torch.zeros_like(gradient[row])
        expected[pairs.answers[row]], expected[worst] = 1, -1
        assert torch.equal(gradient[row], expected)
    rows = [4, 1, 1]
    assert torch.equal(metric(logits[rows], pairs[rows]), got[rows])


@pytest.mark.parametrize(("make", "of"), [(greater_than, greater_than_metric), (docstring, docstring_metric)])
def test_metrics_refuse_what_is_not_theirs(make: Make, of: Callable) -> None:
    pairs, other = made(make, "whole words", 3), made(agreement, "whole words", 3)
    metric, logits = of(model("whole words"), pairs), random_logits("whole words", pairs)
    with pytest.raises(PromptError, match="no position"):
        of(model("whole words"), other)
    with pytest.raises(PromptError, match="no position"):
        metric(logits, other)
    with pytest.raises(PromptError, match="logits of 2 prompts for 3 pairs"):
        metric(logits[:2], pairs)
    logits[1, 7] = float("nan")
    with pytest.raises(NonFiniteError, match="prompt 1"):
        metric(logits, pairs)
    assert metric(torch.zeros(3, logits.shape[1], dtype=torch.bfloat16), pairs).dtype == torch.float32


def test_greater_than_metric_refuses_a_start_that_is_no_year() -> None:
    pairs = made(greater_than, "whole words", 3)
    moved = dataclasses.replace(pairs, positions={"start_year": pairs.positions["noun"]})
    with pytest.raises(PromptError, match=r"prompt 0 .*no year stands at its position start_year"):
        greater_than_metric(model("whole words"), moved)
