"""`circuits study`: which behaviours a model has, the circuit of each, and what they share."""

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.commands.discover import FILES as DISCOVERED
from circuits.cli.options import Seed
from circuits.cli.prompts import PromptOptions, names_of, task_or_file
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError, PromptError

FILES = {
    "study.json": "all that was found; circuits.search.Study.load reads it",
    "plan.json": "what was measured first, what was planned, and how long it should take",
    "study.md": "the report, to read",
    "behaviours.csv": "each behaviour and its circuit's verdict as a table",
    "overlaps.csv": "what each two circuits share, against chance",
    "study.png": "behaviours, verdicts and overlaps, drawn",
}
"""What `circuits study` writes, and what for, beside a folder a task."""

TASK_FILES = {
    "studied.json": "settings, prompts and verdict of the study: what it reads again",
    "induction_heads.json": "the heads that continue a repeated text, as circuits induction finds them",
    **DISCOVERED,
}
"""What stands in the folder of a task."""

_TIME = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s?)?")


@app.command()
# What it does depends on how long things take, and each behaviour that is done lies in its folder: no journal, and no workers.
@with_setting("study", memory=True, long=False)
def study(
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What is asked: names of tasks and files of prompts, between commas.",
            show_default="induction,ioi,greater-than,facts,pronouns,agreement",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long it may take (90s, 10m, 1h30m): decides how many prompts and random circuits there are.",
            show_default="as long as the usual sizes take",
        ),
    ] = None,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Study a model: which behaviours it has, and by which circuits.

    First each behaviour is asked for on a few prompts: does the model prefer the answer, surely? Of those that it has, the
    circuit is searched for on half of more prompts and judged on the other half, as circuits discover does. Then each two
    circuits are compared: do they share more edges and heads than chance would have it? How long all this takes is said before
    it begins. What is there already, of the same model and settings, is read and not made anew: a study that was stopped goes
    on where it was.

    \b
    Examples:
      circuits study
      circuits study --model gpt2 --budget 30m
      circuits study --tasks ioi,greater-than,my_prompts.csv --out results
    """
    from circuits.search.studying.asked import TASKS

    run(_asked(names_of(tasks) if tasks is not None else list(TASKS), seed), setting, budget=_seconds(budget), seed=seed)


def _asked(names: list[str], seed: int) -> dict[str, PromptOptions]:
    """Each task or file by the name that it has in the study. Raises CircuitsError for what is neither; needs no model."""
    from circuits.search.studying.asked import StudyTask

    found: dict[str, PromptOptions] = {}
    if not names:
        raise PromptError("--tasks names nothing to study")
    for name in names:
        known = {"pronouns": "gendered-pronoun"}.get(name, name)
        options = task_or_file(known, count=None, seed=seed, usual=1)
        options.check()
        options.check_file()
        name = StudyTask.named(known).name if options.task is not None else Path(known).stem
        if name in found:
            raise PromptError(f"--tasks names {name} twice")
        found[name] = options
    return found


def _seconds(text: str | None) -> float | None:
    """A time such as 10m in seconds; a bare number is seconds."""
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip().lower())
    parts = [int(part or 0) for part in found.groups()] if found else [0]
    if not any(parts):
        raise CircuitsError(f"--budget is {text!r}; expected a time of 1s or more, such as 90s, 10m or 1h30m")
    return parts[0] * 3600.0 + parts[1] * 60 + parts[2]


def run(asked: dict[str, PromptOptions], setting: Setting, *, budget: float | None, seed: int) -> None:
    """Measure, search, judge, compare; write the files, print the report."""
    from circuits.cli.reports.study import command_of, markdown, study_report
    from circuits.cli.study_folder import StudyFolder, task_of
    from circuits.search.studying.results import StudyPlan

    with setting.parts(FILES) as work:
        model = setting.load(work.progress)
        began = time.perf_counter()
        tasks, made = [task_of(name, options) for name, options in asked.items()], StudyFolder(work, asked, TASK_FILES)
        plan = made.plan(model, tasks, seed=seed, budget=budget)
        plans = [] if plan is None else [plan]
        options: dict[str, Any] = {"budget": budget, "seed": seed, "memory": setting.budget, "progress": work.progress}

        def hear(part: Any) -> None:
            """Keep the plan, write everything."""
            plans[:] = [part] if isinstance(part, StudyPlan) else plans
            made.add(part)

        found = circuits.search.study(
            model, tasks, plan=plan, known=lambda settings: made.known(model, settings), found=hear, **options
        )
        made.write(found)
        sources = {name: str(options.prompts or name) for name, options in asked.items()}
        again = {
            one.task: command_of(one.settings, sources[one.task], setting, out=made.beside(one.task)) for one in found.circuits
        }
        folders = {made.of(one.task).name: "its circuit, verdict, prompts and pictures (a folder)" for one in found.circuits}
        report = study_report(found, plans[0], again, {**FILES, **folders}, setting, time.perf_counter() - began)
        (work.staging / "study.md").write_text(markdown(report), encoding="utf-8")
    setting.answer(report)
