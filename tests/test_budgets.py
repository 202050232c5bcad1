"""A memory budget changes memory and time, never a number: every function that takes a metric, with metrics of every kind."""

import functools
import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import circuits
from circuits.attribution.batches import prompts_at_once
from circuits.attribution.neurons import attribute_neuron_edges
from circuits.errors import CircuitsError, MemoryBudgetError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.search.discover import discover
from circuits.search.judging.evaluate import faithfulness
from circuits.search.methods.gates import bytes_a_token
from circuits.tasks import PromptPairs, metrics
from tests.patching.test_sweeps import random_case

PROMPTS = 4
Measure = Callable[..., Tensor]


@functools.cache
def case() -> tuple[Model, PromptPairs]:
    """A small model with MLPs and two heads that share keys, and four pairs of unequal length, in double precision."""
    _, _, _, model, pairs = random_case(82, plain=True)
    assert model.n_layers == 2 and model.n_heads == 2 and model.d_mlp and len(pairs) == PROMPTS
    return model, pairs


def softened(logits: Tensor, pairs: PromptPairs, *, temperature: float) -> Tensor:
    """The answer's log-probability at a temperature."""
    return (logits / temperature).log_softmax(dim=-1)[torch.arange(len(pairs)), pairs.answers]


class Weighted:
    """An object that can be called, whose numbers depend on all prompts together."""

    def __call__(self, logits: Tensor, pairs: PromptPairs) -> Tensor:
        found = metrics.logit_difference(logits, pairs)
        return found * found.softmax(dim=0)


def kinds(model: Model, pairs: PromptPairs) -> dict[str, metrics.AnyMetric]:
    """Metrics of every kind that a caller may bring."""
    with torch.no_grad():
        clean, corrupt = (metrics.answer_logits(model.run(side), pairs) for side in (pairs.clean, pairs.corrupt))
    before = clean.mean(dim=1) + torch.arange(len(pairs))
    return {
        "answers alone": metrics.logit_difference,
        "all logits": metrics.log_probability,
        "of a reference": metrics.kl_divergence(corrupt),
        "of the clean run": metrics.kl_divergence,
        "a partial": functools.partial(softened, temperature=2.0),
        "an object across prompts": Weighted(),
        "a lambda over these prompts": lambda logits, pairs: (logits[:, 0] - before) ** 2 + before * logits[:, 1],
    }


def of_edges(method: str) -> Measure:
    def measure(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
        found = circuits.attribute_edges(model, pairs, metric, method=method, steps=2, budget=budget)  # type: ignore[arg-type]
        return torch.stack([found.values, found.errors.flatten()])

    return measure


def of_nodes(method: str) -> Measure:
    def measure(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
        found = circuits.attribute_nodes(model, pairs, metric, method=method, steps=2, budget=budget)  # type: ignore[arg-type]
        return torch.cat([found.scores, found.clean[None], found.corrupt[None]])

    return measure


def neuron_edges(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    found = attribute_neuron_edges(model, pairs, metric, steps=2, keep=10**4, budget=budget)
    return found.values


def patched(function: str, *what: object) -> Measure:
    def measure(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
        return getattr(circuits, function)(model, pairs, metric, *what, budget=budget).scores

    return measure


def some_circuits(model: Model) -> list[Circuit]:
    edges = list(model.graph().edges())
    return [Circuit(model.graph(), edges[start::3]) for start in range(3)]


def run(outside: str) -> Measure:
    def measure(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
        return circuits.run_circuits(model, pairs, metric, some_circuits(model), outside=outside, budget=budget)  # type: ignore[arg-type]

    return measure


def pruned(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    found = circuits.prune_edges(model, pairs, metric, edges=5, steps=4, outside="mean", budget=budget)
    return torch.cat([found.values, torch.tensor([found.metadata["loss"]])])


def shrunk(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    return circuits.shrink(model, pairs, metric, edges=10, outside="mean", budget=budget).values


def refined(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    found = circuits.refine(model, pairs, metric, edges=10, rounds=3, outside="mean", budget=budget)
    return torch.tensor([found.edges.get(edge) or 0.0 for edge in model.graph().edges()])


def cut_at_two(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    found = circuits.acdc_thresholds(model, pairs, [0.1, 0.001], metric, budget=budget)
    return torch.tensor([one.edges.get(edge) or 0.0 for one in found for edge in model.graph().edges()])


def cut(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    found = circuits.acdc(model, pairs, metric, threshold=0.01, connected=False, budget=budget)
    return torch.tensor([found.edges.get(edge) or 0.0 for edge in model.graph().edges()])


def judged(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    circuit, options = some_circuits(model)[0], {"random_circuits": 2, "random_sets": 0, "budget": budget}
    found = circuits.evaluate(model, circuit, pairs, metric, searched_on=pairs, **options)  # type: ignore[arg-type]
    assert found.searched_on is not None
    return torch.tensor(
        [found.faithfulness.effect, *found.null, found.searched_on.effect, *(one.change for one in found.minimality)]
    )


def faithful(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    return torch.tensor([faithfulness(model, some_circuits(model)[1], pairs, metric, budget=budget).effect])


def curved(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    scores = circuits.attribute_edges(model, pairs, metrics.logit_difference, method="eap")
    found = circuits.faithfulness_curve(model, scores, pairs, metric, shares=(0.2, 0.7), random_orders=1, budget=budget)
    return torch.tensor([*(one.effect for one in found.faithfulness), *found.null.flatten().tolist()])


def screened(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    scores = circuits.attribute_edges(model, pairs, metrics.logit_difference, method="eap")
    found = circuits.screen_then_verify(model, pairs, metric, scores, edges=8, contexts=1, budget=budget)
    return torch.tensor([(one.alone.effect, one.effect.effect) for one in found.tested])


def found_by(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    options = {"random_circuits": 2, "steps": 2, "held_out": pairs, "budget": budget}
    found = discover(model, pairs, metric, edges=8, **options)  # type: ignore[arg-type]
    assert found.scores is not None
    return torch.cat([found.scores.values, torch.tensor([found.verdict.faithfulness.effect])])


def of_a_concept(model: Model, pairs: PromptPairs, metric: metrics.AnyMetric, budget: int) -> Tensor:
    examples, others = pairs.clean[[0, 1, 2, 3, 0]], pairs.corrupt[[0, 1, 2, 3, 3, 2, 1, 0, 1, 2]]
    found = circuits.tcav(model, examples, others, pairs, metric, sets=2, curves=0, budget=budget)
    return torch.stack([found.slope, found.low])


FUNCTIONS: dict[str, tuple[str, Measure]] = {
    "patch_nodes": ("patch_nodes", patched("patch_nodes")),
    "patch_edges": ("patch_edges", patched("patch_edges")),
    "patch_path": ("patch_path", patched("patch_path", ["a0.h0", "a1.h1<q>", "logits"])),
    "ablate": ("ablate", patched("ablate", [["a0.h0", "m0"], ["m1"]])),
    **{f"run_circuits {kind}": ("run_circuits", run(kind)) for kind in ("corrupt", "mean")},
    **{f"attribute_edges {method}": ("attribute_edges", of_edges(method)) for method in ("eap", "eap-ig", "relp", "exact")},
    "attribute_edges by layer": ("attribute_edges", of_edges("eap-ig-activations")),
    "attribute_edges of neurons": ("attribute_edges", neuron_edges),
    **{f"attribute_nodes {method}": ("attribute_nodes", of_nodes(method)) for method in ("eap", "eap-ig", "relp")},
    "acdc": ("acdc", cut),
    "acdc_thresholds": ("acdc_thresholds", cut_at_two),
    "prune_edges": ("prune_edges", pruned),
    "shrink": ("shrink", shrunk),
    "refine": ("refine", refined),
    "evaluate": ("evaluate", judged),
    "faithfulness": ("faithfulness", faithful),
    "faithfulness_curve": ("faithfulness_curve", curved),
    "screen_then_verify": ("screen_then_verify", screened),
    "discover": ("discover", found_by),
    "tcav": ("tcav", of_a_concept),
}


def least(measure: Measure, model: Model, pairs: PromptPairs) -> int:
    """A small budget that a function does not refuse: at 2**15 all of them cut these four prompts, or refuse."""
    for power in range(30, 60):
        try:
            measure(model, pairs, metrics.log_probability, int(2 ** (power / 2)))
            return int(2 ** (power / 2))
        except MemoryBudgetError:
            continue
    raise AssertionError("every budget is refused")


SEARCHES = ("prune_edges", "shrink", "refine", "discover")
"""Searches of many steps, by functions that are measured with metrics of every kind themselves: with every other kind here."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_budget_changes_no_number(name: str) -> None:
    model, pairs = case()
    measure = FUNCTIONS[name][1]
    small = least(measure, model, pairs)
    for number, (kind, metric) in enumerate(list(kinds(model, pairs).items())[:: 2 if name in SEARCHES else 1]):
        expected = measure(model, pairs, metric, 2**28)
        assert bool(expected.isfinite().any()), kind
        for budget in (3 * small, small)[number > 0 :]:
            found = measure(model, pairs, metric, budget)
            assert torch.allclose(found.double(), expected.double(), rtol=1e-6, atol=1e-6, equal_nan=True), (kind, budget)


def test_small_budgets_do_cut_the_prompts() -> None:
    model, pairs = case()
    for name in ("attribute_edges eap", "attribute_nodes eap", "attribute_edges of neurons"):
        assert prompts_at_once(model, pairs, least(FUNCTIONS[name][1], model, pairs)) < PROMPTS, name
    assert least(shrunk, model, pairs) < PROMPTS * pairs.clean.ids.shape[1] * bytes_a_token(model)


def test_every_function_that_takes_a_metric_is_here() -> None:
    there = {name for name in circuits.__all__ if inspect.isfunction(value := getattr(circuits, name)) and takes_metric(value)}
    without = {name for name in there if "budget" not in inspect.signature(getattr(circuits, name)).parameters}
    assert without == {"look_at_prompts"}, "it unembeds one column of a few prompts at a time, whatever the metric"
    assert there - without <= {name for name, _ in FUNCTIONS.values()} and len(there) >= 14


def takes_metric(function: Callable) -> bool:
    return "metric" in inspect.signature(function).parameters


WRONG: dict[str, tuple[metrics.AnyMetric, str]] = {
    "a mean": (lambda logits, pairs: logits.mean(), r"the given metric gave a tensor of shape \[\] for 4 prompts"),
    "no tensor": (lambda logits, pairs: 3.0, r"gave 3.0 for 4 prompts; expected a tensor of one number a prompt, \[4\]"),
    "other prompts": (
        lambda logits, pairs: logits[:, 0] - torch.zeros(7),
        r"fails on logits \[4, 13\] of these prompts: Runtime",
    ),
    "another reference": (metrics.kl_divergence(torch.zeros(2, 13).double()), r"the reference \(2, 13\)"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_metric_that_does_not_fit_is_refused_before_anything_runs(
    name: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pairs = case()
    metric, said = WRONG[wrong]
    runs: list[str] = []
    if name not in ("faithfulness_curve", "screen_then_verify"):  # these are given scores, which are made first here
        monkeypatch.setattr("circuits.models.model.forward", lambda *_, **__: runs.append("model.run"))
        monkeypatch.setattr("circuits.patching.engine.base.forward", lambda *_, **__: runs.append("plain_run"))
    with pytest.raises(CircuitsError, match=said) as error:
        FUNCTIONS[name][1](model, pairs, metric, 2**28)
    assert "\n" not in str(error.value) and not runs


NEED_GRADIENTS = (
    "attribute_edges eap",
    "attribute_edges of neurons",
    "attribute_nodes eap",
    "shrink",
    "refine",
    "prune_edges",
    "discover",
)


@pytest.mark.parametrize("name", NEED_GRADIENTS)
def test_a_metric_without_a_gradient_is_refused_where_one_is_needed(name: str) -> None:
    model, pairs = case()
    for metric in (metrics.rank, metrics.accuracy, lambda logits, pairs: (logits[:, 0] > 0).double()):
        with pytest.raises(CircuitsError, match="has no gradient by the logits"):
            FUNCTIONS[name][1](model, pairs, metric, 2**28)
    assert len(
        circuits.patch_nodes(model, pairs, lambda logits, pairs: logits.argmax(dim=-1) + 0.0 * logits[:, 0] + logits[:, 1])
    )


def test_a_metric_made_for_some_prompts_goes_with_them_into_both_halves() -> None:
    model, pairs = case()
    reference = metrics.answer_logits(model.run(pairs.corrupt), pairs)
    found = discover(model, pairs, metrics.kl_divergence(reference), edges=8, random_circuits=1, steps=2)
    alike = discover(model, pairs, metrics.kl_divergence, edges=8, random_circuits=1, steps=2)
    assert found.verdict.metadata["metric"] == alike.verdict.metadata["metric"] == "kl_divergence"
    with pytest.raises(CircuitsError, match=r"fails on logits \[2, 13\]"):
        discover(model, pairs, lambda logits, pairs: logits[:, 0] - reference[:, 0], edges=8)
