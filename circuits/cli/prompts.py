"""From the options that name prompts and a metric to pairs and a function; nothing heavy is imported before they are made."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import circuits
from circuits.cli.metrics import check_metric, metric_of
from circuits.cli.progress import ProgressBars
from circuits.cli.settings import Setting, Work
from circuits.cli.starting import announce
from circuits.errors import FileFormatError, PromptError

if TYPE_CHECKING:
    from circuits.tasks import Fact
    from circuits.tasks.metric import Metric, Relative
    from circuits.tasks.readings import Drawn

COUNT = 32
"""Prompts of a task, unless the command line says how many."""
_FIRST = "induction"
"""The task that is taken where none is named."""
_SUFFIXES = (".csv", ".json", ".jsonl", ".txt")
SEVERAL = ("mean", "max")
"""How several right answers of a prompt may count."""


def task_names() -> tuple[str, ...]:
    """The names of all tasks."""
    from circuits.tasks import registry

    return tuple(registry.TASKS)


def require_text(prompt: str, what: str = "the prompt") -> None:
    """Raise PromptError for a prompt without a word, of which a model would see BOS alone."""
    if not prompt.strip():
        raise PromptError(f"{what} is empty: give a text that the model reads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What the command line says about prompts: a task, a file, or one pair of texts."""

    task: str | None = None
    prompts: Path | None = None
    clean: str | None = None
    corrupt: str | None = None
    answer: str | None = None
    distractor: str | None = None
    count: int | None = None
    seed: int = 0
    several: str | None = None
    skip_bad: bool = False
    read: list[str] = dataclasses.field(default_factory=list, init=False, compare=False, repr=False)
    """What was found out about a file when it was read, in words."""

    def given(self) -> list[str]:
        """The options that say which prompts to use, of those that were given."""
        names = ("task", "prompts", "clean", "corrupt", "answer", "distractor", "count")
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def check(self) -> None:
        """Raise PromptError where the options contradict each other or are not whole; needs no model."""
        from circuits.tasks import registry

        pair = {name: getattr(self, name) for name in ("clean", "corrupt", "answer", "distractor")}
        missing = [f"--{name}" for name, text in pair.items() if text is None]
        if 0 < len(missing) < len(pair):
            raise PromptError(f"a pair of your own needs {', '.join(f'--{name}' for name in pair)}: {missing[0]} is missing")
        for name in ("clean", "corrupt"):
            if pair[name] is not None:
                require_text(pair[name], f"--{name}")
        given = [name for name, there in _sources(self, pair=not missing).items() if there]
        if len(given) > 1:
            raise PromptError(f"{' and '.join(given)} both say where prompts come from: give one of them")
        if self.task is not None and not registry.is_task(self.task):
            raise PromptError(f"unknown task {self.task!r}: there are {', '.join(task_names())}")
        if self.task is not None:
            registry.task(self.task)  # refuses a relation that does not exist
        beside = [name for name, there in (("--several", self.several), ("--skip-bad", self.skip_bad)) if there]
        if beside and self.prompts is None:
            raise PromptError(f"{beside[0]} is about prompts of a file: name one")
        if self.several is not None and self.several not in SEVERAL:
            raise PromptError(f"--several is {self.several!r}: expected {' or '.join(SEVERAL)}")
        if self.prompts is not None and not self.prompts.is_file():
            raise FileFormatError(f"{self.prompts}: {'not a file' if self.prompts.exists() else 'No such file or directory'}")

    def check_file(self, least: int = 1) -> None:
        """Raise FileFormatError for a file of prompts that is broken, or has fewer than the least number of different clean
        prompts, as far as that shows before a model reads it."""
        from circuits.tasks.sources.readers import check_prompts

        if self.prompts is not None:
            check_prompts(self.prompts, skip_bad=self.skip_bad, least=least)

    @property
    def name(self) -> str:
        """The task's name, or the file's."""
        return self.prompts.name if self.prompts is not None else self.task or _FIRST

    def describe(self) -> str:
        """Where the prompts come from, in words."""
        if self.prompts is not None:
            return f"file {self.prompts.name}" + "".join(f", {said}" for said in self.read)
        return "given as text" if self.clean is not None else f"task {self.task or _FIRST}, seed {self.seed}"

    @property
    def question(self) -> str:
        """What the corrupt prompts of a task ask of a circuit, in one line; of prompts of one's own nothing is known."""
        from circuits.tasks import registry

        own = self.prompts is not None or self.clean is not None
        return "" if own else registry.task(self.task or _FIRST).question

    def arguments(self) -> list[str]:
        """The options again, as words of a command line."""
        words: list[str] = []
        for field in dataclasses.fields(self):
            value, option = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if field.name == "read" or value is None or value == field.default:
                continue
            words += [option] if value is True else [option, str(value)]
        return words

    def pairs(self, model: "circuits.Model") -> "circuits.PromptPairs":
        """The pairs. Raises PromptError and FileFormatError, with the prompt, for those that do not align."""
        return self.draw(model).pairs

    def draw(self, model: "circuits.Model", progress: ProgressBars | None = None) -> "Drawn":
        """The pairs, and for tasks that ask for what a model knows how many were drawn to find such as it gets right."""
        from circuits.tasks import registry
        from circuits.tasks.readings import Drawn

        self.check()
        if self.prompts is not None:
            return Drawn(self._from_file(self.prompts, model))
        if self.clean is not None and self.corrupt is not None:
            answers, distractors = [self.answer or ""], [self.distractor or ""]
            pairs = circuits.PromptPairs.from_text(
                model, clean=[self.clean], corrupt=[self.corrupt], answers=answers, distractors=distractors
            )
            return Drawn(pairs)
        return registry.task(self.task or _FIRST).draw(model, self.count or COUNT, self.seed, progress=progress)

    def _from_file(self, path: Path, model: "circuits.Model") -> "circuits.PromptPairs":
        found = circuits.tasks.read_prompts(
            path, model, several="max" if self.several == "max" else "mean", skip_bad=self.skip_bad
        )
        self.read[:] = [found.describe()]
        return found.pairs[: self.count]


def task_or_file(
    name: str, *, count: int | None, seed: int, usual: int, several: str | None = None, skip_bad: bool = False
) -> PromptOptions:
    """The prompts of a task (`usual`: how many, where it is not said) or of a file. Raises PromptError for neither."""
    from circuits.tasks.registry import is_task

    if is_task(name):
        if several is not None or skip_bad:
            raise PromptError(f"{'--skip-bad' if skip_bad else '--several'} is about prompts of a file: {name} is a task")
        return PromptOptions(task=name, count=usual if count is None else count, seed=seed)
    if not Path(name).exists():
        if name.lower().endswith(_SUFFIXES):
            raise FileFormatError(f"{name}: No such file or directory")
        raise PromptError(
            f"unknown task {name!r}: there are {', '.join(task_names())}, or a file (of EAP-IG, AutoCircuit, MIB, "
            "sparse feature circuits, function vectors, BLiMP, CounterFact, ROME or LRE)"
        )
    return PromptOptions(prompts=Path(name), count=count, seed=seed, several=several, skip_bad=skip_bad)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What is asked about: prompts, and the metric that is measured on them (None: the task's own, `logit_difference` for
    a file)."""

    prompts: PromptOptions
    metric: str | None

    def check(self, least: int = 1) -> None:
        """Raise for prompts that cannot be, fewer than the least number of them, or no metric; needs no model."""
        if self.prompts.count is not None and self.prompts.count < least:
            raise PromptError(f"--count is {self.prompts.count}; expected {least} pairs or more")
        self.prompts.check()
        if self.metric is not None:
            check_metric(self.metric)

    def prepare(
        self, setting: Setting, progress: ProgressBars, *, check: "Callable[[circuits.Model], object] | None" = None
    ) -> "tuple[circuits.Model, circuits.PromptPairs, Metric | Relative]":
        """Load the model and make the pairs and the metric. What is wrong without a model is refused before it is loaded, what
        does not fit it (`check`) before the prompts are made."""
        model, drawn, metric = self._drawn(setting, progress, check)
        return model, drawn.pairs, metric

    def look(
        self,
        work: Work,
        *,
        positions: bool = False,
        check: "Callable[[circuits.Model], object] | None" = None,
        fits: "Callable[[circuits.Model, circuits.PromptPairs], object] | None" = None,
        show: bool = True,
        least: int = 1,
    ) -> "tuple[circuits.Model, circuits.PromptPairs, Metric | Relative, circuits.PromptReport]":
        """The same, and how the model does on these prompts, which is written, and with `show` published and printed before
        the long run. Raises PromptError where no pair makes a difference. `positions`: whether columns are asked about; `check`
        refuses what does not fit the model before the prompts are made, `fits` prompts that do not, before anything is written;
        `least`: how many different clean prompts it takes."""
        from circuits.cli.reports.look import figures, looked, warned

        setting, progress = work.setting, work.progress
        model, drawn, metric = self._drawn(setting, progress, check, least)
        if fits is not None:
            fits(model, drawn.pairs)
        report = circuits.look_at_prompts(model, drawn, metric, progress=progress)
        report.require_difference()
        pairs = drawn.pairs
        tokens = int(pairs.clean.mask.sum() + pairs.corrupt.mask.sum())
        announce(progress, model, "pairs of prompts", len(pairs), tokens, budget=setting.budget)
        report.save(work.staging / "prompts.json")
        if show:
            work.publish(found=False)
            work.say(looked(figures(report, positions=positions)))
        if (setting.as_json or not show) and sys.stderr.isatty():  # the report says it to all others
            for line in warned(report, positions=positions):
                progress.say(line, err=True)
        return model, drawn.pairs, metric, report

    def _drawn(
        self,
        setting: Setting,
        progress: ProgressBars,
        check: "Callable[[circuits.Model], object] | None" = None,
        least: int = 1,
    ) -> "tuple[circuits.Model, Drawn, Metric | Relative]":
        self.check()
        self.prompts.check_file(least)
        model = setting.load(progress)
        if check is not None:
            check(model)
        return model, *self.drawn_for(model, progress)

    def drawn_for(self, model: "circuits.Model", progress: ProgressBars | None = None) -> "tuple[Drawn, Metric | Relative]":
        """The prompts for a model that is loaded, and the metric."""
        from circuits.tasks.registry import task

        drawn = self.prompts.draw(model, progress)
        if self.metric is None and self.prompts.task is not None:
            return drawn, task(self.prompts.task).metric(model, drawn.pairs)
        return drawn, metric_of(self.metric or "logit_difference")


def _sources(options: PromptOptions, *, pair: bool) -> dict[str, bool]:
    return {"--task": options.task is not None, "--prompts": options.prompts is not None, "--clean": pair}


def facts_of(path: Path, setting: Setting, *, skip_bad: bool) -> "tuple[Fact, ...]":
    """The facts of a file; what was left out is said with the answer. Raises FileFormatError."""
    from circuits.tasks.sources.facts import fitting_facts
    from circuits.tasks.sources.rows import counted

    found = fitting_facts(path, skip_bad=skip_bad)
    if found.skipped:
        left = sum(found.skipped.values())
        setting.said.append(f"{path}: {left:,} of {found.total:,} rows left out: {counted(found.left_out)}")
    return found.values


def names_of(text: str) -> list[str]:
    """Names separated by commas, without the spaces around them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def words_of(text: str | None) -> list[str]:
    """Words separated by commas or spaces."""
    return (text or "").replace(",", " ").split()


def positions_of(text: str | None) -> "str | list[int | str] | None":
    """`each`, or names and columns separated by commas; None = every position together."""
    names = [] if text is None else names_of(text)
    if not names:
        return None
    if names == ["each"]:
        return "each"
    return [int(name) if name.isascii() and name.removeprefix("-").isdigit() else name for name in names]
