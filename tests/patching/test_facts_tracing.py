"""Facts are traced one by one, each as if alone; those that the model does not know are left out by name."""

import pytest
import torch

from circuits.errors import PromptError
from circuits.models import Model
from circuits.patching import causal_trace, noise_level
from circuits.patching.tracing.causal import SEVERED
from circuits.patching.tracing.facts import trace_facts
from circuits.tasks import Fact, mini_facts
from tests.models import bundled

CAPITALS = mini_facts(relation="country_capital")
KNOWN = CAPITALS[0]


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def test_a_fact_among_many_is_traced_as_alone(mini: Model) -> None:
    facts = [KNOWN, Fact("The capital of Austria is", "Austria", "Vienna", "")]
    level = noise_level(mini, [fact.subject for fact in facts])
    parts = []
    found = trace_facts(mini, facts, draws=2, window=2, seed=3, found=parts.append)
    assert [part.traces for part in parts] == [found.traces[:1], found.traces]
    assert not found.skipped and [trace.prompt for trace in found.traces] == [fact.prompt for fact in facts]
    for trace, fact in zip(found.traces, facts, strict=True):
        kinds = []
        options = {"draws": 2, "window": 2, "seed": 3, "noise": level, "found": lambda part: kinds.append(list(part.restored))}  # noqa: B023
        alone = causal_trace(mini, fact.prompt, subject=fact.subject, **options)
        assert kinds == [[], ["states"], ["states", "mlp"], ["states", "mlp", "attention"]]
        assert trace.noise == level and torch.equal(trace.corrupted, alone.corrupted)
        for kind, values in alone.restored.items():
            assert torch.equal(trace.restored[kind], values)


def test_the_noise_comes_from_all_given_subjects_even_untraced_ones(mini: Model) -> None:
    found = trace_facts(mini, CAPITALS, draws=1, kinds=["states"], limit=1)
    assert found.traces[0].noise == noise_level(mini, [fact.subject for fact in CAPITALS])
    assert trace_facts(mini, CAPITALS, draws=1, kinds=["states"], limit=1, noise=0.4).traces[0].noise == 0.4


@pytest.mark.parametrize(
    ("attribute", "used"),
    [
        ("Kabul", True),
        (" Kabul ", True),
        ("Kabul the Great", False),
        ("Kab", False),
        ("Vienna", False),
        ("", False),
    ],
)
def test_a_fact_counts_only_if_the_model_answers_its_attribute(mini: Model, attribute: str, used: bool) -> None:
    fact = Fact(KNOWN.prompt, KNOWN.subject, attribute, "")
    found = trace_facts(mini, [fact], draws=1, kinds=["states"])
    assert len(found.traces) == used
    if not used:
        prompt, reason = found.skipped[0]
        assert prompt == fact.prompt and "answers 'Kabul'" in reason and repr(attribute.strip()) in reason


def test_what_cannot_be_traced_is_skipped_with_the_reason(mini: Model) -> None:
    facts = [
        Fact("The capital of Austria is", "Japan", "Vienna", ""),
        Fact("The capital of Austria is " + "very " * 200, "Austria", "Vienna", ""),
        KNOWN,
    ]
    found = trace_facts(mini, facts, draws=1, kinds=["states"])
    assert [trace.prompt for trace in found.traces] == [KNOWN.prompt]
    assert "'Japan' is not in it" in found.skipped[0][1] and "longer than the 128" in found.skipped[1][1]


def test_a_replacement_of_other_length_is_skipped(mini: Model) -> None:
    facts = [KNOWN, Fact("The capital of the United States is", "the United States", "Washington", "")]
    found = trace_facts(mini, [KNOWN], replacement="Japan", draws=3, kinds=["states"])
    assert found.traces[0].noise == 0 and len(found.traces[0].corrupted) == 1
    found = trace_facts(mini, facts, replacement="a very long name of some other country", kinds=["states"])
    assert not found.traces and any("a replacement must differ" in reason for _, reason in found.skipped)


def test_the_limit_counts_traced_facts(mini: Model) -> None:
    wrong = Fact(KNOWN.prompt, KNOWN.subject, "Vienna", "")
    found = trace_facts(mini, [wrong, *CAPITALS], draws=1, kinds=["states"], limit=2)
    assert len(found.traces) == 2 and found.skipped[0][0] == wrong.prompt


def test_progress_counts_facts_then_cells_and_never_goes_back(mini: Model) -> None:
    said: list[tuple[str, int, int]] = []
    kinds = ("states", "mlp", SEVERED[0])
    found = trace_facts(mini, CAPITALS[:3], draws=1, kinds=kinds, progress=lambda *step: said.append(step))
    asked = [step for step in said if step[0] == "asking the model"]
    cells = [step for step in said if step[0] == f"tracing {len(found.traces)} facts"]
    assert asked + cells == said and len(found.traces) > 1
    for steps in (asked, cells):
        done = [step[1] for step in steps]
        assert done == sorted(done) and done[-1] == steps[-1][2]
    assert cells[-1][2] == sum(len(kinds) * mini.n_layers * len(trace.tokens) for trace in found.traces)


def test_wrong_options_are_no_reason_to_skip(mini: Model) -> None:
    for facts, limit in (([], None), ([KNOWN], 0)):
        with pytest.raises(PromptError, match="nothing to trace"):
            trace_facts(mini, facts, limit=limit)
    with pytest.raises(PromptError, match="a window of 0"):
        trace_facts(mini, [KNOWN], window=0)
