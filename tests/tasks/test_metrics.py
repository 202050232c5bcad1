"""Metrics against loops that spell them out."""

import functools
import math

import pytest
import torch
from typer.testing import CliRunner

from circuits.cli import app
from circuits.cli.metrics import metric_names
from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.models import Model, TokenBatch
from circuits.tasks import PromptPairs, metrics
from circuits.tasks.metric import Metric
from tests.models.native import native_bridge

SIZE = 11


def pairs_of(count: int, seed: int = 0) -> PromptPairs:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, SIZE, (count, 4), generator=generator)
    other = rows.clone()
    other[:, 1] = (other[:, 1] + 1) % SIZE
    answers = torch.randint(0, SIZE, (count,), generator=generator)
    distractors = (answers + 1 + torch.randint(0, SIZE - 1, (count,), generator=generator)) % SIZE
    return PromptPairs.from_tokens(
        SIZE, clean=rows.tolist(), corrupt=other.tolist(), answers=answers.tolist(), distractors=distractors.tolist()
    )


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / sum(weights) for weight in weights]


def slow(name: str, row: list[float], answer: int, distractor: int) -> float:
    if name == "logit_difference":
        return row[answer] - row[distractor]
    if name == "probability":
        return softmax(row)[answer]
    if name == "log_probability":
        return math.log(softmax(row)[answer])
    above = sum(value >= row[answer] for token, value in enumerate(row) if token != answer)
    return float(above) if name == "rank" else float(above == 0)


@pytest.mark.parametrize("name", ["logit_difference", "probability", "log_probability", "rank", "accuracy"])
def test_a_metric_is_what_the_loop_says(name: str) -> None:
    for seed in range(20):
        pairs = pairs_of(7, seed)
        logits = torch.randn(7, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
        logits[0, :] = logits[0, 0]  # a tie everywhere
        got = getattr(metrics, name)(logits, pairs)
        answers, distractors = pairs.answers.tolist(), pairs.distractors.tolist()
        said = [slow(name, row, a, d) for row, a, d in zip(logits.tolist(), answers, distractors, strict=True)]
        assert got.shape == (7,)
        assert torch.allclose(got, torch.tensor(said, dtype=torch.float64), atol=1e-12, rtol=0)


def test_kl_is_what_the_loop_says_and_zero_from_itself() -> None:
    pairs = pairs_of(5)
    one, other = torch.randn(2, 5, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = metrics.kl_divergence(one)(other, pairs)
    for index in range(5):
        p, q = softmax(one[index].tolist()), softmax(other[index].tolist())
        assert float(got[index]) == pytest.approx(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), abs=1e-12)
    assert metrics.kl_divergence(one)(one, pairs).abs().max() == 0
    with pytest.raises(PromptError, match="shape"):
        metrics.kl_divergence(one[:4])(one, pairs)


def test_half_precision_is_widened_and_other_counts_are_refused() -> None:
    pairs = pairs_of(3)
    logits = torch.randn(3, SIZE, dtype=torch.bfloat16)
    for name in ("logit_difference", "probability", "log_probability", "rank", "accuracy"):
        assert getattr(metrics, name)(logits, pairs).dtype == torch.float32
        with pytest.raises(PromptError, match="logits of 2 prompts for 3 pairs"):
            getattr(metrics, name)(logits[:2], pairs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["logit_difference", "probability", "log_probability", "rank", "accuracy"])
def test_a_logit_that_is_no_number_stops_with_its_prompt(name: str, bad: float) -> None:
    pairs = pairs_of(4)
    logits = torch.zeros(4, SIZE)
    logits[2, 5] = bad
    with pytest.raises(NonFiniteError, match="prompt 2"):
        getattr(metrics, name)(logits, pairs)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pads", range(9))
def test_pads_change_no_metric(side: str, pads: int) -> None:
    model = Model.from_bridge(native_bridge(3, d_vocab=SIZE, n_ctx=16))
    plain = pairs_of(6)
    expected = metrics.logit_difference(metrics.answer_logits(model.run(plain.clean), plain), plain)

    def padded(tokens: TokenBatch) -> TokenBatch:
        ids, mask = torch.zeros(6, pads, dtype=tokens.ids.dtype), torch.zeros(6, pads, dtype=torch.bool)
        order = (1, -1) if side == "left" else (-1, 1)
        parts = [(ids, mask), (tokens.ids, tokens.mask)][:: order[0]]
        return TokenBatch(torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1))

    clean = padded(plain.clean)
    pairs = PromptPairs(clean, padded(plain.corrupt), plain.answers, plain.distractors, clean.last)
    got = metrics.logit_difference(metrics.answer_logits(model.run(clean), pairs), pairs)
    assert (got - expected).abs().max() <= 1e-10


def test_gradients_flow_through_what_is_smooth() -> None:
    pairs = pairs_of(3)
    for name in ("logit_difference", "probability", "log_probability"):
        logits = torch.randn(3, SIZE, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, name=name: getattr(metrics, name)(x, pairs), (logits,))


def test_answer_logits_refuse_another_shape() -> None:
    model = Model.from_bridge(native_bridge(3, d_vocab=SIZE, n_ctx=16))
    pairs = pairs_of(3)
    with pytest.raises(PromptError, match="the run has logits of shape"):
        metrics.answer_logits(model.run(pairs.clean[[0, 1]]), pairs)


class Margin:
    """An object that can be called."""

    def __call__(self, logits: torch.Tensor, pairs: PromptPairs) -> torch.Tensor:
        return logits[:, 0]


def first_logit(logits: torch.Tensor, pairs: PromptPairs, scale: float = 1.0) -> torch.Tensor:
    return scale * logits[:, 0]


def test_whatever_can_be_called_becomes_a_metric_with_a_name() -> None:
    named = {
        "first_logit": first_logit,
        "Margin": Margin(),
        "metric": lambda logits, pairs: logits[:, 0],
        "logit_difference": metrics.logit_difference,
    }
    for name, given in named.items():
        assert Metric.of(given).name == name
    assert Metric.of(functools.partial(functools.partial(first_logit), scale=2.0)).name == "first_logit"
    assert Metric.of(metrics.rank) is metrics.rank
    assert metrics.rank.__doc__ is not None and "How many other tokens" in metrics.rank.__doc__
    for given in ("logit_difference", 3, None):
        with pytest.raises(CircuitsError, match="a metric is called with logits and pairs"):
            Metric.of(given)
    with pytest.raises(CircuitsError, match=r"give kl_divergence\(reference\)"):
        Metric.of(metrics.kl_divergence)


def test_every_call_is_checked_and_whole_numbers_become_floats() -> None:
    pairs, logits = pairs_of(3), torch.randn(3, SIZE, dtype=torch.float64)
    for wrong in (lambda x, pairs: x, lambda x, pairs: x[:2, 0], lambda x, pairs: x[:, 0].tolist()):
        with pytest.raises(CircuitsError, match=r"for 3 prompts; expected a tensor of one number a prompt, \[3\]"):
            Metric.of(wrong)(logits, pairs)
    right = Metric.of(lambda x, pairs: x.argmax(dim=1) == pairs.answers)(logits, pairs)
    assert right.dtype == torch.float64 and torch.equal(right, metrics.accuracy(logits, pairs))


def test_metrics_of_some_prompts_are_rows_of_the_metric_of_all() -> None:
    pairs, logits = pairs_of(6), torch.randn(6, SIZE, dtype=torch.float64)
    own = lambda x, pairs: x[:, 0] - logits[: len(pairs), 1]  # noqa: E731
    own.part = lambda rows: lambda x, pairs: x[:, 0] - logits[rows, 1]  # type: ignore[attr-defined]
    for metric in (metrics.kl_divergence(logits.flip(1)), metrics.rank, metrics.logit_difference, Metric.of(own)):
        assert metric.by_prompt
        for rows in (slice(1, 4), [5, 0, 2]):
            assert torch.equal(metric.on(rows)(logits[rows], pairs[rows]), metric(logits, pairs)[rows])


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_is_what_it_says_of_itself(name: str) -> None:
    pairs = pairs_of(6)
    logits = torch.randn(6, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    metric = metrics.METRICS[name]
    assert metric.name == name and metric is getattr(metrics, name)
    metric = metric if isinstance(metric, Metric) else metric(logits.flip(1))
    scores = metric(logits, pairs)
    if metric.by_prompt:
        alone = [metric.on([row])(logits[[row]], pairs[[row]]) for row in range(6)]
        assert torch.allclose(torch.cat(alone), scores, rtol=1e-12, atol=0), "a prompt's number is its own"
    if metric.reads == "answers":
        two = torch.stack([logits.gather(1, ids[:, None])[:, 0] for ids in (pairs.answers, pairs.distractors)], dim=1)
        assert torch.allclose(metric(two, metrics.answers_alone(pairs)), scores, rtol=1e-12, atol=0), "no other logit is read"
    leaf = logits.clone().requires_grad_()
    assert metric(leaf, pairs).requires_grad == metric.differentiable
    if name != "kl_divergence":
        sure = logits.scatter(1, pairs.answers[:, None], 50.0)
        better = metric(sure, pairs) - scores
        assert bool(((-better if metric.lower_is_better else better) >= 0).all()), "a sure answer is no worse"
    assert "\n" not in metric.unit and (metric.__doc__ or "").strip()


@pytest.mark.parametrize("command", ["discover", "patch"])
def test_the_command_line_names_every_metric(command: str) -> None:
    told = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    assert all(name in told for name in metric_names())
