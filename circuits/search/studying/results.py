"""What a study finds, and what it planned to do."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted, duration
from circuits.search.judging.verdict import Verdict
from circuits.statistics import Effect

State = Literal["has", "has not", "cannot be asked"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredBehaviour:
    """Whether a model does what a task asks for, on some of the task's prompts as they come."""

    task: str
    about: str
    """What the task asks for, in words."""
    state: State
    why: str
    """What decided it, in words."""
    metric: str = ""
    unit: str = ""
    prompts: int = 0
    independent: int = 0
    """How many groups of prompts share none, clean or corrupt."""
    tokens: int = 0
    """Of the longest prompt."""
    right: Effect | None = None
    """The share of prompts whose answer is the top token, with Wilson's 95 % interval."""
    preferred: Effect | None = None
    """The share of prompts on which the metric is above 0: the answer is preferred to the distractor."""
    clean: Effect | None = None
    """Mean of the metric on clean prompts, positive = the answer is preferred, with its 95 % interval over prompts."""
    gap: Effect | None = None
    """The same of clean less corrupt prompts."""

    @property
    def had(self) -> bool:
        """Whether the model has it."""
        return self.state == "has"


def task_folder(task: str) -> str:
    """The folder of a task's circuit, inside that of its study."""
    return task.replace(":", "-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What a task's circuit depends on, besides the model: all that must be equal for a saved one to be read again."""

    task: str
    method: str | None
    """How edges are found; None: as `discover` finds them unless told."""
    edges: int
    count: int
    """Prompts, half of which are held out."""
    random_circuits: int
    minimality: bool
    """Whether it is asked of each node if it is needed."""
    seed: int
    dtype: str
    prepend_bos: bool | None
    """How prompts open: with BOS, without, or (None) as the tokenizer does."""
    prompts_sha256: str = ""
    """Of the file that prompts come from, where they come from one."""
    mechanism: bool = False
    """Whether the heads that carry it are also searched for by what they do (induction alone)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyStep:
    """One thing to do, and how long it should take, in seconds."""

    settings: StudySettings
    estimate: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StudyPlan(Result, format="circuits-study-plan", indent=1):
    """What a study measured first, and what it is going to do, decided by that, by a timed forward and by a budget."""

    model: str
    weights_sha256: str
    tasks: tuple[str, ...]
    seed: int
    budget: float | None
    """Seconds that the whole may take; None: as long as it takes at the usual sizes."""
    measuring: float
    """Seconds that measuring the behaviours took."""
    behaviours: tuple[MeasuredBehaviour, ...]
    steps: tuple[StudyStep, ...]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Task that the model has and that is not searched → why."""
    prepend_bos: bool | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """How prompts opened when behaviours were measured, as in `StudySettings`."""
    prompts_sha256: Mapping[str, str] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """Every task that was asked → what tells its prompts from others of this name, as in `StudySettings`."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def announced(self) -> float:
        """Seconds that the whole should take, with what measuring took."""
        return self.measuring + sum(step.estimate for step in self.steps)

    @property
    def summary(self) -> str:
        """How many circuits are searched for, and how long that should take."""
        had = sum(one.had for one in self.behaviours)
        words = f"{self.model} has {had} of {counted(len(self.behaviours), 'behaviour')}; {counted(len(self.steps), 'circuit')}"
        return f"{words} to find in about {duration(self.announced)}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a step: its settings and its estimate in seconds."""
        rows = [{**dataclasses.asdict(step.settings), "estimate": step.estimate} for step in self.steps]
        names = [field.name for field in dataclasses.fields(StudySettings)]
        return pd.DataFrame(rows, columns=[*names, "estimate"])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StudiedCircuit(Result, format="circuits-studied", indent=1):
    """The circuit of one task as a study found and judged it; the circuit itself stands in a file of its own."""

    model: str
    weights_sha256: str
    settings: StudySettings
    why: str = ""
    """Why there is none; empty where there is one."""
    edges: int = 0
    nodes: tuple[str, ...] = ()
    prompts_searched: int = 0
    prompts_held_out: int = 0
    drawn: int | None = None
    """How many prompts were drawn to find such that the model gets right; None where all were taken."""
    verdict: Verdict | None = None
    mechanism: str = ""
    """What the search for the heads that do it found, in words."""
    mechanism_verdict: str = ""
    method: str | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """The method that the circuit is by."""
    unrefined: str | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """Why it is the strongest edges as they are, where these could not be refined."""
    memory: int | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """The bytes that a pass might take, where more of them may give another circuit; None: they changed nothing."""

    @property
    def task(self) -> str:
        """The task's name."""
        return self.settings.task

    @property
    def standing(self) -> str:
        """One word: proven, partial, unproven, or none where no circuit was found."""
        return "none" if self.verdict is None else self.verdict.standing

    @property
    def summary(self) -> str:
        """The verdict, or why there is none."""
        said = self.why if self.verdict is None else f"{self.standing}: {self.verdict.summary}"
        return f"{self.task}: {said}" + (f" By {self.method}, unrefined: {self.unrefined}." if self.unrefined else "")

    def to_dataframe(self) -> pd.DataFrame:
        """The verdict's table."""
        return pd.DataFrame() if self.verdict is None else self.verdict.to_dataframe()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """What two circuits have in common, against what circuits of these sizes have in common by chance."""

    first: str
    second: str
    kind: Literal["edges", "heads"]
    shared: int
    sizes: tuple[int, int]
    expected: float
    """The mean by chance."""
    p_value: float
    """The chance of sharing as many or more."""
    names: tuple[str, ...] = ()
    """The heads that are in both."""

    @property
    def ratio(self) -> float | None:
        """How many times what chance gives; None where chance gives nothing."""
        return self.shared / self.expected if self.expected else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Study(Result, format="circuits-study", indent=1):
    """What a study found: the behaviours that a model has, the circuit of each, and what they share."""

    model: str
    weights_sha256: str
    seed: int
    behaviours: tuple[MeasuredBehaviour, ...]
    circuits: tuple[StudiedCircuit, ...]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overlaps: tuple[Overlap, ...] = ()
    heads: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Heads that are in the circuits of several tasks → these tasks."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Which behaviours the model has, and how the circuits stand."""
        had = [one.task for one in self.behaviours if one.had]
        not_asked = sum(one.state == "cannot be asked" for one in self.behaviours)
        words = [f"{self.model} has {len(had)} of {counted(len(self.behaviours), 'behaviour')}: {', '.join(had) or 'none'}"]
        words[0] += f" ({not_asked} cannot be asked)." if not_asked else "."
        for standing in ("proven", "partial", "unproven", "none"):
            names = [one.task for one in self.circuits if one.standing == standing]
            if names:
                said = "no circuit found" if standing == "none" else f"circuit {standing}"
                words.append(f"{said[0].upper()}{said[1:]}: {', '.join(names)}.")
        return " ".join(words)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a task: what was measured of it, and how its circuit stands."""
        found, rows = {one.task: one for one in self.circuits}, []
        for one in self.behaviours:
            row = {"task": one.task, "state": one.state, "prompts": one.prompts, "metric": one.metric, "why": one.why}
            for name in ("right", "preferred", "clean", "gap"):
                row |= _numbers(name, getattr(one, name))
            circuit = found.get(one.task)
            verdict = None if circuit is None else circuit.verdict
            row |= {
                "circuit": None if circuit is None else circuit.standing,
                "edges": None if verdict is None else verdict.edges,
            }
            row |= _numbers("faithfulness", None if verdict is None else verdict.faithfulness)
            row["p_value"] = None if verdict is None else verdict.p_value
            row["incompleteness"] = None if verdict is None else verdict.incompleteness
            rows.append(row)
        return pd.DataFrame(rows)

    def overlap_table(self) -> pd.DataFrame:
        """One row a pair of circuits and kind: first, second, kind, shared, expected, ratio, p_value."""
        names = ("first", "second", "kind", "shared", "expected", "ratio", "p_value")
        return pd.DataFrame([{name: getattr(one, name) for name in names} for one in self.overlaps], columns=list(names))


def _numbers(name: str, effect: Effect | None) -> dict[str, float | None]:
    values = (None,) * 3 if effect is None else (effect.effect, effect.low, effect.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
