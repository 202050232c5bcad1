"""One call from a model to a study of it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from circuits.errors import CircuitsError, MemoryBudgetError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.progress import Found, Progress, heard
from circuits.search.discover import Discovery, discover
from circuits.search.mechanisms.induction import find_induction_circuit
from circuits.search.studying.asked import TASKS, StudyTask, studied
from circuits.search.studying.measure import measure
from circuits.search.studying.plan import fits, planned
from circuits.search.studying.results import StudiedCircuit, Study, StudyPlan, StudySettings
from circuits.search.studying.share import common_heads, overlaps
from circuits.tasks import PromptReport, look_at_prompts

SEQUENCES = 32
"""Random sequences that induction heads are searched for on."""
_MAIN = ("model", "weights_sha256", "seed", "left_out")
"""What a study has of its plan."""


@dataclasses.dataclass(frozen=True, eq=False)
class StudyPart:
    """One task's circuit, with all that was found on the way."""

    studied: StudiedCircuit
    circuit: Circuit | None = None
    discovery: Discovery | None = None
    looked: PromptReport | None = None
    """How the model does on the prompts that were searched on and held out."""
    mechanism: Circuit | None = None


Known = Callable[[StudySettings], tuple[StudiedCircuit, Circuit | None] | None]
"""What was found before at these settings; None: nothing."""


def study(
    model: Model,
    tasks: Sequence[str | StudyTask] = TASKS,
    *,
    budget: float | None = None,
    seed: int = 0,
    memory: int = BUDGET,
    plan: StudyPlan | None = None,
    known: Known | None = None,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Study:
    """Measure which behaviours a model has, find the circuit of each, judge it on other prompts, and say what they share.

    Each circuit is what `discover` gives at the settings of the plan; for induction the heads that do it are also searched for
    (`find_induction_circuit`). What the tokenizer cannot ask, and what cannot be searched for, is said to be so in the result
    and stops nothing, also where it is for want of memory or of time. Raises PromptError for names of tasks that there are none
    of, and CircuitsError for a plan of another model, or of other tasks.

    Args:
        model: the model that is studied.
        tasks: names of tasks (`circuits.tasks.registry`), or tasks of one's own (`StudyTask`).
        budget: seconds that the whole may take; it decides how many prompts and random circuits there are, and which tasks are
            left out. None: the usual sizes, however long they take.
        seed: that of all that is drawn.
        memory: bytes that a pass may take above the model and its base runs.
        plan: what was measured and planned before, in place of measuring it again.
        known: gives what was found before at certain settings, which is not made anew.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the StudyPlan, then each `StudyPart` that is made anew.
    """
    hear, asked = heard(found), studied(tasks)
    if plan is None:
        began = time.perf_counter()
        measured, paces = measure(model, asked, seed=seed, progress=progress)
        taken = time.perf_counter() - began
        plan = planned(model, asked, measured, paces, seed=seed, budget=budget, measuring=taken)
    elif not fits(plan, model, asked, seed=seed, budget=budget):
        raise CircuitsError(
            f"the plan is one of {plan.model}, of {', '.join(plan.tasks)} at seed {plan.seed} and budget {plan.budget}: "
            "expected one of this model, its BOS, and these tasks and prompts, seed and budget; leave it out to measure anew"
        )
    hear(plan)
    by_name, done, circuits = {one.name: one for one in asked}, list[StudiedCircuit](), dict[str, Circuit]()
    for step in plan.steps:
        name = step.settings.task
        before = None if known is None else known(step.settings)
        if before is None:
            part = _searched(model, by_name[name], step.settings, memory, _named(progress, name))
            hear(part)
            before = part.studied, part.circuit
        done.append(before[0])
        circuits |= {} if before[1] is None else {name: before[1]}
    return Study(
        **{name: getattr(plan, name) for name in _MAIN},
        behaviours=plan.behaviours,
        circuits=tuple(done),
        overlaps=tuple(overlaps(circuits, seed=seed)),
        heads=common_heads(circuits),
    )


def _searched(model: Model, task: StudyTask, settings: StudySettings, memory: int, progress: Progress | None) -> StudyPart:
    """The circuit of one task, or why there is none."""
    about: dict[str, Any] = {"model": model.name, "weights_sha256": model.fingerprint, "settings": settings}
    options: dict[str, Any] = {"seed": settings.seed, "progress": progress}
    mechanism = None
    try:
        if settings.mechanism:
            mechanism = find_induction_circuit(model, sequences=SEQUENCES, **options)
            about |= {"mechanism": str(mechanism.metadata["summary"]), "mechanism_verdict": str(mechanism.metadata["verdict"])}
        drawn = task.draw(model, settings.count, settings.seed, progress)
        metric = task.metric(model, drawn.pairs)
        looked = look_at_prompts(model, drawn, metric)
        looked.require_difference()
        options |= {name: getattr(settings, name) for name in ("method", "edges", "random_circuits", "minimality")}
        discovery = discover(model, drawn.pairs, metric, budget=memory, **options)
    except CircuitsError as error:  # one task that cannot be searched is no reason to give up the others
        about |= {"memory": memory} if isinstance(error, MemoryBudgetError) else {}
        return StudyPart(StudiedCircuit(why=str(error), **about), mechanism=mechanism)
    circuit, verdict = discovery.circuit, discovery.verdict
    unrefined = circuit.metadata.get("unrefined")
    if unrefined is not None:  # for want of memory, or since gaps cancel: more memory may mend it
        about |= {"unrefined": str(unrefined), "memory": memory}
    found = StudiedCircuit(
        **about,
        method=str(circuit.metadata["method"]),
        edges=len(circuit),
        nodes=tuple(map(str, circuit.nodes)),
        prompts_searched=len(drawn.pairs) - verdict.prompts,
        prompts_held_out=verdict.prompts,
        drawn=drawn.count,
        verdict=verdict,
    )
    return StudyPart(found, circuit, discovery, looked, mechanism)


def _named(progress: Progress | None, name: str) -> Progress | None:
    """Progress that says which task it is about."""
    return None if progress is None else lambda what, done, total: progress(f"{name}: {what}", done, total)
