"""What `circuits discover` and `circuits evaluate` share: a model, a task or a file of prompts, and what is measured."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.loading import load
from circuits.cli.measured import interval, paired
from circuits.cli.output import default_directory
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import TASKS, PromptOptions, check_metric, metric_of
from circuits.cli.text import filled, one_line
from circuits.errors import CircuitsError, FileFormatError, PromptError
from circuits.models import Model
from circuits.search.judging.verdict import Verdict
from circuits.tasks import PromptPairs, task
from circuits.tasks.metrics import Metric
from circuits.tasks.registry import is_task

COUNT = 64
"""Pairs of a task, unless the command line says how many."""
SIGNIFICANT = 0.05
_HALF, _NOTHING = 0.5, 0.05
"""Shares of the behaviour: what a proven circuit surely keeps, and below which nothing was found."""
_DEFAULT_SEEDS = {"evaluate": 1}
"""Seeds of commands that do not start from 0."""
_SUFFIXES = (".csv", ".json", ".jsonl", ".txt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A model and a behaviour: a task by its name or a file of pairs, with a metric (None: the task's own)."""

    model: str
    device: str
    dtype: str
    task: str
    count: int | None
    metric: str | None
    seed: int
    memory: int
    out: Path | None

    @property
    def budget(self) -> int:
        """Bytes that a pass may take."""
        return self.memory * 2**20

    @property
    def prompts(self) -> PromptOptions:
        """The same as options about prompts."""
        if is_task(self.task):
            return PromptOptions(task=self.task, count=COUNT if self.count is None else self.count, seed=self.seed)
        return PromptOptions(prompts=Path(self.task), count=self.count, seed=self.seed)

    @property
    def source(self) -> str:
        """Where the prompts come from, in words."""
        return self.prompts.describe()

    @property
    def name(self) -> str:
        """The task's name, or the file's."""
        return self.task if is_task(self.task) else Path(self.task).name

    def check(self, least: int) -> None:
        """Raise for a task, file, number of pairs (at least so many) or metric that cannot be; needs no model."""
        if not is_task(self.task) and not Path(self.task).exists():
            if self.task.lower().endswith(_SUFFIXES):
                raise FileFormatError(f"{self.task}: No such file or directory")
            raise PromptError(
                f"unknown task {self.task!r}: there are {', '.join(TASKS)}, or a file (EAP-IG CSV, AutoCircuit JSON, BLiMP "
                "JSONL, ROME or LRE JSON)"
            )
        if self.count is not None and self.count < least:
            raise PromptError(f"--count is {self.count}; expected {least} pairs or more")
        self.prompts.check()
        if self.metric is not None:
            check_metric(self.metric)

    def folder(self, job: str) -> Path:
        """Where the files go."""
        last = default_directory(self.model).name.removeprefix("induction-")
        return Path("out") / f"{job}-{last}" if self.out is None else self.out

    def prepare(self, progress: ProgressBars) -> tuple[Model, PromptPairs, Metric]:
        """Load the model and make the pairs and the metric."""
        progress("loading the model", 0, 1)
        model = load(self.model, device=self.device, dtype=self.dtype)
        progress("loading the model", 1, 1)
        pairs = self.prompts.pairs(model)
        if self.metric is None and is_task(self.task):
            return model, pairs, task(self.task).metric(model, pairs)
        return model, pairs, metric_of(self.metric or "logit_difference", model, pairs)

    def command(self, job: str, *arguments: str, seed: int | None = None) -> str:
        """A command line about the same model and prompts; `seed`: but those of another seed."""
        seed = self.seed if seed is None else seed
        words = ["circuits", job, *arguments, "--task", self.task]
        words += [] if self.model == "mini" else ["--model", self.model]
        words += [] if self.metric is None else ["--metric", self.metric]
        words += [] if self.count is None else ["--count", str(self.count)]
        words += ["--seed", str(seed)] if is_task(self.task) and seed != _DEFAULT_SEEDS.get(job, 0) else []
        return one_line(shlex.join(words))


def named(metric: Metric) -> str:
    """A metric's name in words."""
    return metric.name.replace("_", " ")


def standing(verdict: Verdict) -> str:
    """One word: "proven" where the circuit does better than chance and surely keeps half of the behaviour on the prompts it
    was judged on, "partial" where it does better than chance and keeps more than next to nothing, else "unproven"."""
    one = verdict.faithfulness
    if verdict.p_value is None or verdict.p_value > SIGNIFICANT or one.low <= 0 or one.effect < _NOTHING:
        return "unproven"
    return "proven" if one.low >= _HALF else "partial"


def judged(verdict: Verdict) -> str:
    """A verdict in lines: its standing and why, then its summary."""
    one, word = verdict.faithfulness, standing(verdict)
    chance = "not held against random circuits" if verdict.p_value is None else f"p = {verdict.p_value:.2g}"
    faithful = interval(one, verdict.prompts).removeprefix("+")
    why = {
        "proven": "better than chance, and at least half of the behaviour within the interval",
        "partial": "better than chance, but less than half of the behaviour may be in it",
        "unproven": "next to nothing is kept, chance does as well, or too few random circuits were drawn to tell",
    }[word]
    if verdict.p_value is None:
        why = "random circuits would tell what chance does"
    return f"{word.capitalize()}: faithfulness {faithful}, {chance} ({why})\n{filled(verdict.summary)}"


def listed(folder: Path, files: Sequence[str], about: Mapping[str, str]) -> str:
    """The files that were written, and what for."""
    return paired(f"Files in {one_line(folder)}", [(name, about[name]) for name in files])


def check_at_least(option: str, value: int, least: int) -> None:
    """Raise CircuitsError, naming the option, for a number below the least."""
    if value < least:
        raise CircuitsError(f"{option} is {value}; expected a whole number from {least} on")
