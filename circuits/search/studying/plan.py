"""How long a study takes, and what is left out where it may not take that long."""

import dataclasses
from collections.abc import Mapping, Sequence

from circuits.files.words import duration
from circuits.graph import Graph
from circuits.models import Model
from circuits.search.judging.extent import JudgingRuns, asked
from circuits.search.searching import usual_size
from circuits.search.studying.asked import StudyTask
from circuits.search.studying.measure import LEAST_RIGHT, Pace
from circuits.search.studying.results import MeasuredBehaviour, StudyPlan, StudySettings, StudyStep

_MUCH, _SOME, _FEW = 128, 64, 40
LADDER = (
    (256, _MUCH, True),
    (128, _MUCH, True),
    (96, _MUCH, True),
    (96, _MUCH, False),
    (64, _MUCH, True),
    (64, _MUCH, False),
    (48, _MUCH, False),
    (48, _SOME, False),
    (32, _SOME, False),
    (32, _FEW, False),
    (24, _FEW, False),
    (16, _FEW, False),
    (16, 20, False),
)
"""(prompts, random circuits, whether each node is asked for) from much to little: a budget takes the first that fits. With
fewer than 19 random circuits no circuit could be proven, and of fewer than 16 prompts too few are held out."""
USUAL, LARGE = (64, _MUCH, True), (96, _MUCH, False)
"""What is taken where no budget is given, of models of few nodes (`SMALL`) and of others: circuits of a large model are fitted
to the prompts where these are few."""
SMALL = 64
"""Nodes of a model up to which each node of a circuit is asked for, where no budget is given: each costs a run."""
Level = tuple[int, int, bool]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What stages take, in readings of one prompt (the model run on it beside a few others, its answer alone unembedded)."""

    drawing: float = 1.0
    """Of a prompt that is drawn, also of those that are not kept."""
    searching: float = 80.0
    """Of a prompt searched on: attribution, and the rounds that follow it."""
    circuit: float = 1.9
    """Of a circuit on a prompt: random ones, those without some nodes."""
    nodes: float = 0.66
    """The share of a model's nodes that is in a circuit."""
    fixed: float = 2.0
    """Seconds of a circuit whatever its model: files and pictures."""


COST = Cost()
MECHANISM = 2000.0
"""Readings of a prompt of the task that the search for induction heads takes: 17 of its own 32 sequences of 51 tokens."""


def settings_of(model: Model, task: StudyTask, level: Level, seed: int) -> StudySettings:
    """The settings of a task at a level of the ladder."""
    count, random_circuits, minimality = level
    return StudySettings(
        task=task.name,
        method=None,
        edges=usual_size(model.graph()),
        count=count,
        random_circuits=random_circuits,
        minimality=minimality,
        seed=seed,
        dtype=str(model.dtype).removeprefix("torch."),
        prepend_bos=model.prepend_bos,
        prompts_sha256=task.prompts_sha256,
        mechanism=task.mechanism,
    )


def fits(plan: StudyPlan, model: Model, tasks: Sequence[StudyTask], *, seed: int, budget: float | None) -> bool:
    """Whether a plan is about what is asked now: the same weights in the same number format, openings of prompts, tasks, files,
    seed and budget, and steps at settings that these tasks have."""
    by_name = {one.name: one for one in tasks}
    files = {name: one.prompts_sha256 for name, one in by_name.items()}
    now = model.fingerprint, tuple(by_name), files, model.prepend_bos, seed, budget
    if now != (plan.weights_sha256, plan.tasks, dict(plan.prompts_sha256 or {}), plan.prepend_bos, plan.seed, plan.budget):
        return False
    steps = [step.settings for step in plan.steps]
    levels = [(one.count, one.random_circuits, one.minimality) for one in steps]
    found = zip(steps, levels, strict=True)
    return all(one.task in by_name and one == settings_of(model, by_name[one.task], level, seed) for one, level in found)


def estimate(settings: StudySettings, task: StudyTask, behaviour: MeasuredBehaviour, pace: Pace, graph: Graph) -> float:
    """Seconds that finding and judging a circuit should take."""
    half, nodes = settings.count / 2, round(COST.nodes * graph.node_count)
    share = 1.0 if behaviour.right is None or not task.known else max(behaviour.right.effect, LEAST_RIGHT)
    runs = JudgingRuns.of(
        prompts=settings.count // 2,
        nodes=nodes,
        random_circuits=settings.random_circuits,
        asked=asked(settings.minimality, nodes),
    )
    readings = COST.drawing * settings.count / share + COST.searching * half + COST.circuit * runs.verdict
    readings += MECHANISM if settings.mechanism else 0.0
    return COST.fixed + pace.seconds * readings


def planned(
    model: Model,
    tasks: Sequence[StudyTask],
    measured: Sequence[MeasuredBehaviour],
    paces: Mapping[str, Pace],
    *,
    seed: int,
    budget: float | None,
    measuring: float,
) -> StudyPlan:
    """What to search for, in the order in which tasks were named: all behaviours that the model has at the usual sizes, or with
    a budget at the largest sizes that fit; where the smallest do not, the last ones are left out, if need be all of them."""
    by_name, graph = {one.name: one for one in tasks}, model.graph()
    had = [one for one in measured if one.had]
    left_out: dict[str, str] = {}

    def steps(level: Level) -> list[StudyStep]:
        """Those of all behaviours at one level."""
        found = []
        for one in had:
            settings = settings_of(model, by_name[one.task], level, seed)
            seconds = estimate(settings, by_name[one.task], one, paces[one.task], graph)
            found.append(StudyStep(settings=settings, estimate=seconds))
        return found

    chosen = steps(USUAL if graph.node_count <= SMALL else LARGE)
    if budget is not None and had:
        room = budget - measuring
        fitting = (level for level in LADDER if sum(step.estimate for step in steps(level)) <= room)
        chosen = steps(next(fitting, LADDER[-1]))
        while chosen and sum(step.estimate for step in chosen) > room:
            dropped = chosen.pop()
            why = f"its circuit would take about {duration(dropped.estimate)} more"
            if not chosen:
                alone = duration(measuring + dropped.estimate)
                why = f"a budget of {duration(budget)} is too small: it alone takes about {alone}"
            left_out[dropped.settings.task] = why
    return StudyPlan(
        model=model.name,
        weights_sha256=model.fingerprint,
        tasks=tuple(one.name for one in tasks),
        seed=seed,
        budget=budget,
        measuring=measuring,
        behaviours=tuple(measured),
        steps=tuple(chosen),
        left_out=left_out,
        prepend_bos=model.prepend_bos,
        prompts_sha256={one.name: one.prompts_sha256 for one in tasks},
    )
