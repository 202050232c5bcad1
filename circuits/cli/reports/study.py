"""A study as it is printed, and as a page of text."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.report import Part, Report, Table
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line
from circuits.files.words import counted, duration
from circuits.search.judging.verdict import HALF, SIGNIFICANT
from circuits.search.studying.results import (
    MeasuredBehaviour,
    Overlap,
    StudiedCircuit,
    Study,
    StudyPlan,
    StudySettings,
)
from circuits.statistics import Effect

LIMITS = (
    "What this does not show. A behaviour is asked for in the words of its prompts alone: another wording may give another "
    "answer. A circuit says which edges suffice on such prompts when all others carry what the corrupt prompts say; other "
    "edges may do as well, and edges that both prompts need alike are not seen. Circuits that share heads use the same parts, "
    "which need not do the same there. Intervals are over prompts: of another model they say nothing."
)
"""What stands below every study."""


def planned_table(plan: StudyPlan) -> list[Part]:
    """What was measured, what is going to be done, and how long that should take."""
    parts: list[Part] = [behaviour_table(plan.behaviours)]
    rows = []
    for step in plan.steps:
        one = step.settings
        rows.append((one.task, f"{one.count}", f"{one.edges:,}", f"{one.random_circuits}", duration(step.estimate)))
    if rows:
        parts.append(Table(("to find", "prompts", "edges", "random circuits", "about"), rows))
    within = "" if plan.budget is None else f", within {duration(plan.budget)}"
    left = [filled(f"left out: {task} ({one_line(why)})") for task, why in plan.left_out.items()]
    parts.append("\n".join([f"All of it should take about {duration(plan.announced)}{within}.", *left]))
    return parts


def behaviour_table(behaviours: Sequence[MeasuredBehaviour]) -> Table:
    """Which behaviours the model has, and what decided it."""
    rows = []
    for one in behaviours:
        gap = "-" if one.gap is None else _interval(one.gap)
        rows.append(
            (one.task, one.state, str(one.prompts or "-"), _share(one.right), _share(one.preferred), _interval(one.clean), gap)
        )
    lines = [f"{one.task}: {one_line(one.why)}." for one in behaviours if not one.had]
    units = "; ".join(dict.fromkeys(one.metric.replace("_", " ") for one in behaviours if one.metric))
    said = (
        "Top token, preferred: prompts whose answer is the model's first choice, and is preferred to the distractor. Metric "
        f"({units}): mean over clean prompts, and how much less it is on corrupt ones. Brackets: 95 % intervals."
    )
    header = ("behaviour", "the model", "prompts", "top token", "preferred", "metric", "less on corrupt")
    return Table(header, rows, below="\n".join(map(filled, [*([said] if units else []), *lines])))


def circuit_line(one: StudiedCircuit) -> str:
    """What was found of a task, in a line or a few."""
    lines = [one.summary, *([f"{one.task}, heads by what they do: {one.mechanism}"] if one.mechanism else [])]
    return "\n".join(map(filled, lines))


def circuit_table(study: Study) -> Table:
    """How each circuit stands."""
    rows = []
    for one in study.circuits:
        verdict = one.verdict
        if verdict is None:
            rows.append((one.task, one.standing, *["-"] * 6))
            continue
        gap = "-" if verdict.incompleteness is None else f"{verdict.incompleteness:.2f}"
        prompts = f"{one.prompts_searched} + {one.prompts_held_out}"
        chance = "-" if verdict.p_value is None else f"{verdict.p_value:.2g}"
        kept = _interval(verdict.faithfulness)
        rows.append((one.task, one.standing, prompts, f"{one.edges:,}", f"{len(one.nodes)}", kept, chance, gap))
    said = (
        "Prompts: searched on + held out. Keeps: share of the behaviour on prompts held out (proven: p at most "
        f"{SIGNIFICANT}, at least {HALF} with the whole interval). Misses: largest gap to the model when nodes go from both."
    )
    lines = [said, *(f"{one.task}: {one_line(one.why)}." for one in study.circuits if one.verdict is None)]
    lines += [f"{task}: left out, {one_line(why)}." for task, why in study.left_out.items()]
    header = ("circuit", "standing", "prompts", "edges", "nodes", "keeps", "p", "misses")
    return Table(header, rows, below="\n".join(map(filled, lines)))


def overlap_table(overlaps: Sequence[Overlap]) -> Table:
    """What each two circuits share."""
    by_pair: dict[tuple[str, str], dict[str, Overlap]] = {}
    for one in overlaps:
        by_pair.setdefault((one.first, one.second), {})[one.kind] = one
    rows = []
    for (first, second), kinds in by_pair.items():
        cells = [cell for kind in ("edges", "heads") for cell in _overlap(kinds[kind])]
        rows.append((f"{first}, {second}", *cells))
    header = ("shared by", "edges", "by chance", "p", "heads", "by chance", "p")
    return Table(header, rows)


def _overlap(one: Overlap) -> tuple[str, str, str]:
    return f"{one.shared:,}", f"{one.expected:.1f}", f"{one.p_value:.2g}"


def study_report(
    study: Study, plan: StudyPlan, again: Mapping[str, str], files: Mapping[str, str], setting: Setting, taken: float
) -> Report:
    """The whole; `again`: for each task the command line that finds its circuit once more; `taken`: seconds."""
    proven = sum(one.standing == "proven" for one in study.circuits)
    asked = counted(len(study.behaviours), "behaviour")
    heading = f"A study of {one_line(study.model)}: {asked} asked for, {counted(proven, 'circuit')} proven"
    parts: list[Part] = [filled(study.summary), behaviour_table(study.behaviours)]
    if study.circuits:
        parts.append(circuit_table(study))
    parts += [filled(f"{one.task}, heads by what they do: {one.mechanism}") for one in study.circuits if one.mechanism]
    if study.overlaps:
        parts.append(overlap_table(study.overlaps))
    if study.heads:
        rows = [(head, str(len(tasks)), ", ".join(tasks)) for head, tasks in list(study.heads.items())[:12]]
        more = f"... and {len(study.heads) - 12} more in study.json" if len(study.heads) > 12 else ""
        parts.append(Table(("heads in several circuits", "in", "of these tasks"), rows, below=more))
    parts.append(filled(LIMITS))
    parts.append(f"Announced: about {duration(plan.announced)}; taken: {duration(taken)}.")
    data: dict[str, Any] = {"study": study.as_json(), "summary": study.summary, "again": dict(again)}
    data |= {"announced": plan.announced, "taken": taken}
    return Report(heading=heading, parts=parts, data=data, files=files, next=_next(again, setting))


def _next(again: Mapping[str, str], setting: Setting) -> list[tuple[str, str]]:
    """The page of it all, and the circuits once more."""
    named = ["--model", setting.model] if setting.edits and setting.model == Setting.model else []  # what edits are put on
    without = dataclasses.replace(setting, bos=None)  # the circuits tell how prompts opened
    page = without.command("report", str(setting.folder), *named)
    steps = [(page, "all of it as one page: circuits to walk through, what each node does, verdicts")]
    steps += [(line, f"the circuit of {task} again") for task, line in again.items()]
    return steps


def command_of(settings: StudySettings, source: str, setting: Setting, *, out: Path | None = None) -> str:
    """The command line that finds a task's circuit once more; `source`: the task, or the file; `out`: a folder for it, else the
    one that `circuits discover` takes."""
    words = ["discover", "--task", source, "--edges", str(settings.edges)]
    words += [] if settings.method is None else ["--method", settings.method]
    words += [] if setting.memory == Setting.memory else ["--memory", str(setting.memory)]
    words += ["--count", str(settings.count), "--random-circuits", str(settings.random_circuits), "--seed", str(settings.seed)]
    words += [] if settings.minimality else ["--no-minimality"]
    return setting.command(*words, *([] if out is None else ["--out", str(out)]))


def markdown(report: Report) -> str:
    """A report as a page of Markdown; what stands in cells and notes is text, whatever it holds."""
    blocks = [f"# {_text(report.heading)}"]
    for part in report.parts:
        if isinstance(part, Table):
            lines = ["| " + " | ".join(map(_text, row)) + " |" for row in (part.header, *part.rows)]
            lines.insert(1, "|" + "---|" * len(part.header))
            blocks += [_text(part.title), "\n".join(lines), "\n".join(map(_text, part.below.split("\n")))]
        else:
            blocks.append(_text(part if isinstance(part, str) else part.text()))
    if report.files:
        blocks += ["## Files", "\n".join(f"- {_code(name)}: {_text(what)}" for name, what in report.files.items())]
    if report.next:
        blocks += [
            "## The page, and every number again",
            "\n".join(f"- {_text(told)}:\n\n      {one_line(line)}" for line, told in report.next),
        ]
    return "\n\n".join(block for block in blocks if block) + "\n"


_MARKUP = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|#!~$&"})


def _text(text: str) -> str:
    """A text as Markdown that says just this."""
    return one_line(text).translate(_MARKUP)


def _code(text: str) -> str:
    """A text as code: between more backticks than stand in it one after another, and apart from those at its ends."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def _share(effect: Effect | None) -> str:
    return "-" if effect is None else f"{effect.effect:.0%} [{effect.low:.0%}, {effect.high:.0%}]"


def _interval(effect: Effect | None) -> str:
    return "-" if effect is None else f"{effect.effect:.2f} [{effect.low:.2f}, {effect.high:.2f}]"
