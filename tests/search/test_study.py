"""A study of a model: what it measures, plans, finds and shares, and that it goes on where it was stopped."""

import dataclasses
import math
import random
from itertools import combinations
from typing import Any

import pytest
import torch

import circuits
from circuits.errors import CircuitsError, MemoryBudgetError, PromptError
from circuits.files.words import duration
from circuits.graph import Circuit, Graph
from circuits.search import StudyPlan, StudyTask
from circuits.search.methods import refining
from circuits.search.studying import plan as planning
from circuits.search.studying.measure import Pace, measure
from circuits.search.studying.plan import LADDER, estimate, fits, planned, settings_of
from circuits.search.studying.results import MeasuredBehaviour
from circuits.search.studying.run import StudyPart
from circuits.search.studying.share import at_least, common_heads, overlaps
from circuits.statistics import Effect, share_interval
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import logit_difference
from circuits.tasks.readings import Drawn
from tests.models.bundled import mini

SURE = Effect(0.9, 0.8, 1.0)


def task_of(name: str, pairs: Any, *, known: bool = False) -> StudyTask:
    """A task whose prompts are made by a function of model, count and seed."""

    def draw(model: Any, count: int, seed: int, progress: Any) -> Drawn:
        return Drawn(pairs(model, count, seed))

    return StudyTask(name=name, about="", pairs=pairs, draw=draw, metric=lambda model, pairs: logit_difference, known=known)


def turned(model: Any, count: int, seed: int) -> PromptPairs:
    """Induction with answer and distractor exchanged: what the model surely does not do."""
    pairs = circuits.tasks.induction(model, count, seed)
    return dataclasses.replace(pairs, answers=pairs.distractors, distractors=pairs.answers)


def unsayable(model: Any, count: int, seed: int) -> PromptPairs:
    raise PromptError("3 of 40 nouns are one token, this task needs 4")


def test_behaviours_are_had_not_had_or_cannot_be_asked() -> None:
    tasks = [
        StudyTask.named("induction"),
        task_of("turned", turned),
        task_of("unsayable", unsayable),
        task_of("known", circuits.tasks.induction, known=True),
    ]
    found, paces = measure(mini(), tasks, count=12)
    assert [one.state for one in found] == ["has", "has not", "cannot be asked", "has"]
    assert set(paces) == {"induction", "turned", "known"} and all(pace.seconds > 0 for pace in paces.values())
    had, turned_round, unsaid, _ = found
    assert had.clean is not None and turned_round.clean is not None and had.gap is not None
    assert turned_round.clean.effect == pytest.approx(-had.clean.effect), "the metric turns round with answer and distractor"
    assert "needs 4" in unsaid.why and unsaid.prompts == 0
    pairs = circuits.tasks.induction(mini(), 12, 0)
    scores = logit_difference(mini().run(pairs.clean).logits[torch.arange(12), pairs.answer_columns], pairs)
    assert had.clean.effect == pytest.approx(float(scores.mean()), abs=1e-4), "the plain mean over prompts"


@pytest.mark.parametrize(("right", "count"), [(0, 8), (3, 8), (8, 8), (40, 100)])
def test_wilsons_interval_is_where_a_tests_p_value_is_five_per_cent(right: int, count: int) -> None:
    share = share_interval(right / count, count)
    for end in (share.low, share.high):
        if 0 < end < 1:  # the score test of the share `end` just rejects what was seen
            z = (right / count - end) / math.sqrt(end * (1 - end) / count)
            assert abs(z) == pytest.approx(1.959964, abs=1e-4)
    assert 0 <= share.low <= share.effect <= share.high <= 1 and share.low < share.high
    with pytest.raises(CircuitsError):
        share_interval(1.2, 3)


def measured(name: str, state: Any = "has") -> MeasuredBehaviour:
    return MeasuredBehaviour(
        task=name, about="", state=state, why="", right=SURE, clean=SURE, gap=SURE, prompts=32, independent=32
    )


def plan_of(budget: float | None, names: tuple[str, ...] = ("ioi", "agreement"), pace: float = 0.01) -> StudyPlan:
    tasks = [StudyTask.named(name) for name in (*names, "facts")]
    behaviours = [*(measured(name) for name in names), measured("facts", "has not")]
    paces = {name: Pace(pace) for name in names}
    return planned(mini(), tasks, behaviours, paces, seed=3, budget=budget, measuring=5.0)


def test_a_budget_takes_the_most_that_fits_and_leaves_out_the_last() -> None:
    usual = plan_of(None)
    assert [step.settings.task for step in usual.steps] == ["ioi", "agreement"], "no circuit of what it has not"
    assert usual.steps[0].settings.count == 64 and usual.announced == 5.0 + sum(step.estimate for step in usual.steps)
    counts = []
    for budget in (1e6, usual.announced, 0.9 * usual.announced, 0.75 * usual.announced):
        plan = plan_of(budget)
        assert plan.announced <= budget and not plan.left_out
        counts.append((plan.steps[0].settings.count, plan.steps[0].settings.random_circuits))
    assert counts == sorted(counts, reverse=True) and counts[0] == LADDER[0][:2] and len(set(counts)) > 2
    least = [settings_of(mini(), StudyTask.named(name), LADDER[-1], 3) for name in ("ioi", "agreement")]
    task, pace, graph = StudyTask.named("ioi"), Pace(0.01), mini().graph()
    one = estimate(least[0], task, measured("ioi"), pace, graph)
    short = plan_of(5.0 + 1.2 * one)
    assert [step.settings.task for step in short.steps] == ["ioi"] and list(short.left_out) == ["agreement"]
    none = plan_of(5.0 + 0.5 * one)
    assert not none.steps and none.behaviours == short.behaviours, "what was measured is kept"
    assert "too small: it alone takes about" in none.left_out["ioi"] and set(none.left_out) == {"ioi", "agreement"}


def test_overlaps_agree_with_counting_all_draws() -> None:
    rng = random.Random(0)
    for _ in range(20):
        count = rng.randint(1, 9)
        sizes = rng.randint(0, count), rng.randint(0, count)
        shared = rng.randint(0, min(sizes))
        first = set(range(sizes[0]))
        draws = [len(first & set(drawn)) for drawn in combinations(range(count), sizes[1])]
        assert at_least(shared, sizes, count) == pytest.approx(sum(both >= shared for both in draws) / len(draws))
    graph = Graph(n_layers=3, n_heads=4, n_key_value_heads=4, d_mlp=4)
    one = ["input->a0.h0<v>", "a0.h0->a1.h1<q>", "a1.h1->logits", "a0.h0->a1.h0<k>", "a0.h2->logits"]
    two = ["input->a2.h3<v>", "a2.h3->logits", "input->m0", "m0->logits", "a1.h1->logits"]
    named = {"one": Circuit(graph, one), "same": Circuit(graph, one), "two": Circuit(graph, two)}
    found = {(each.first, each.second, each.kind): each for each in overlaps(named, draws=99)}
    assert found["one", "same", "edges"].shared == 5 and found["one", "same", "edges"].p_value == 0.01
    assert found["one", "two", "edges"].shared == 1 and found["one", "two", "heads"].names == ("a1.h1",)
    assert found["one", "two", "heads"].expected == 4 * 2 / 12
    assert found["one", "same", "edges"].expected < 2.5, "random circuits have few of its edges"
    twice = dict.fromkeys(("a0.h0", "a0.h2", "a1.h0"), ("one", "same"))
    assert common_heads(named) == {"a1.h1": ("one", "same", "two"), **twice}


def test_a_study_is_its_parts_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "USUAL", (8, 4, False))
    monkeypatch.setattr(planning, "LADDER", ((8, 4, False), (8, 4, False)))
    monkeypatch.setattr(planning, "usual_size", lambda graph: 30)
    tasks = [
        dataclasses.replace(StudyTask.named("induction"), name="one", mechanism=False),
        task_of("none", turned),
        task_of("odd", unsayable),
    ]
    parts: list[Any] = []
    study = circuits.study(mini(), tasks, found=parts.append)
    plan, part = parts
    assert isinstance(plan, StudyPlan) and isinstance(part, StudyPart)
    assert [one.task for one in study.circuits] == ["one"] and study.circuits[0] == part.studied
    pairs = circuits.tasks.induction(mini(), 8, 0)
    options: dict[str, Any] = {"edges": 30, "random_circuits": 4, "minimality": False}
    same = circuits.discover(mini(), pairs, logit_difference, **options)
    assert part.circuit == same.circuit and part.studied.verdict is not None
    assert part.studied.verdict.as_json() == same.verdict.as_json(), "what discover gives at these settings"
    assert "1 of 3 behaviours: one (1 cannot be asked)" in study.summary
    known = {part.studied.settings: (part.studied, part.circuit)}
    again: list[Any] = []
    assert circuits.study(mini(), tasks, plan=plan, known=known.get, found=again.append).as_json() == study.as_json()
    assert again == [plan], "nothing is made anew"
    assert (part.studied.method, part.studied.unrefined, part.studied.memory) == ("refine", None, None)
    with pytest.raises(CircuitsError, match="seed 0"):
        circuits.study(mini(), tasks, plan=plan, seed=1)


@pytest.mark.parametrize("refined", [True, False], ids=["refining", "drawing"])
def test_too_little_memory_stops_no_study(refined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where refining does not fit the proposed edges are the circuit, as `discover` has it; what fits nowhere is said so."""
    monkeypatch.setattr(planning, "USUAL", (8, 4, False))
    monkeypatch.setattr(planning, "LADDER", ((8, 4, False), (8, 4, False)))
    monkeypatch.setattr(planning, "usual_size", lambda graph: 20)

    def fails(*given: Any, **options: Any) -> None:
        raise MemoryBudgetError("it takes 3 MiB, the budget is 1 MiB")

    task = dataclasses.replace(StudyTask.named("induction"), name="one", mechanism=False)
    if refined:
        monkeypatch.setattr(refining, "gated", fails)
    else:
        task = dataclasses.replace(task, draw=fails)
    found = circuits.study(mini(), [task], memory=2**28).circuits[0]
    assert found.memory == 2**28 and "it takes 3 MiB" in found.summary
    assert (found.method, found.standing == "none") == (("eap-ig", False) if refined else (None, True))


def test_a_plan_is_kept_only_where_all_that_it_rests_on_is_the_same() -> None:
    def own(name: str, sha256: str) -> StudyTask:
        return StudyTask.of_pairs(name, lambda model: circuits.tasks.induction(model, 32, 0), about="", sha256=sha256)

    tasks = [own("induction", "a"), own("other", "b")]
    behaviours, paces = [measured("induction"), measured("other", "has not")], {"induction": Pace(0.01)}
    made = planned(mini(), tasks, behaviours, paces, seed=3, budget=None, measuring=5.0)
    plan = StudyPlan.from_json(made.as_json())
    asked: dict[str, Any] = {"seed": 3, "budget": None}
    assert fits(plan, mini(), tasks, **asked), "also as a file has it"
    assert not plan.steps[0].settings.mechanism, "a file of this name is not the task: its heads are not searched for"
    assert settings_of(mini(), StudyTask.named("induction"), LADDER[0], 3).mechanism
    for changed in ([own("induction", "c"), tasks[1]], [tasks[0], own("other", "c")], tasks[::-1], tasks[:1]):
        assert not fits(plan, mini(), changed, **asked)
    assert not fits(plan, mini().with_bos(True), tasks, **asked) and not fits(plan, mini().with_bos(False), tasks, **asked)
    assert not fits(plan, mini(torch.float64), tasks, **asked)
    assert not fits(plan, mini(), tasks, seed=4, budget=None) and not fits(plan, mini(), tasks, seed=3, budget=60.0)
    before = {name: value for name, value in made.as_json().items() if name not in ("prepend_bos", "prompts_sha256")}
    assert not fits(StudyPlan.from_json(before), mini(), tasks, **asked), "written when files were not told apart"


def test_a_task_that_cannot_be_searched_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_pair(model: Any, count: int, seed: int) -> PromptPairs:
        pairs = circuits.tasks.induction(model, 8, seed)
        return pairs if count > 16 else pairs[[0] * 4]

    monkeypatch.setattr(planning, "USUAL", (16, 20, False))
    monkeypatch.setattr(planning, "LADDER", ((16, 20, False), (16, 20, False)))
    study = circuits.study(mini(), [task_of("alike", one_pair)])
    assert (
        study.circuits[0].standing == "none" and "split" in study.circuits[0].why and "No circuit found: alike" in study.summary
    )
    with pytest.raises(PromptError, match="named twice"):
        circuits.study(mini(), ["ioi", "ioi"])
    with pytest.raises(PromptError, match="ioi"):
        circuits.study(mini(), ["no such task"])


def test_times_read_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.2, 45.0, 90.0, 600.0, 5400.0, 5459.0, 7260.0)] == [
        "1 s",
        "45 s",
        "2 min",
        "10 min",
        "1 h 30 min",
        "1 h 31 min",
        "2 h 1 min",
    ]
