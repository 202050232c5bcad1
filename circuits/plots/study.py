"""A study of a model: which behaviours it has, how their circuits stand, and what these share."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.judged import verdict_figure
from circuits.plots.style import BLUE, EMPTY, ERRORS, GREEN, INK, ORANGE, VERMILION, annotate, colour_bar, frame
from circuits.plots.text import shortened, wrapped
from circuits.search.studying.results import StudiedCircuit, Study, StudyPlan

_STANDINGS = {"proven": GREEN, "partial": ORANGE, "unproven": VERMILION, "none": EMPTY}
_WIDEST = 2.0
"""How far faithfulness is drawn; what lies beyond is cut off at the frame."""


@draws(Study)
def study_figure(study: Study, *, title: str | None = None) -> Figure:
    """Draw on which share of a behaviour's prompts the answer is preferred, and its circuit's faithfulness on prompts held out,
    with 95 % intervals; beside them how many heads each two circuits share, as a multiple of what chance gives."""
    circuits = [one for one in study.circuits if one.verdict is not None]
    several = len(circuits) > 1
    height = 1.6 + 0.34 * max(1, len(study.behaviours))
    figure = Figure(figsize=(10.4 if several else 6.6, max(2.8, height)), layout="constrained")
    axes = figure.subplots(1, 3 if several else 2, width_ratios=[1.0, 1.2, 1.1] if several else [1.0, 1.2])
    _right(axes[0], study)
    _kept(axes[1], study)
    if several:
        _shared(axes[2], study, [one.task for one in circuits])
    figure.suptitle(
        wrapped(title or f"What {shortened(study.model, 40)} does, and by which circuits", 90), fontsize=10.5, parse_math=False
    )
    return figure


def _rows(axes: Axes, names: list[str], said: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(said, fontsize=8.5)
    frame(axes, grid="x", labels=8.0)


def _right(axes: Axes, study: Study) -> None:
    for place, one in enumerate(study.behaviours):
        if one.preferred is None:
            axes.text(0.02, place, "cannot be asked", fontsize=7.5, va="center", color=INK)
            continue
        share = one.preferred
        reach = [[share.effect - share.low], [share.high - share.effect]]
        axes.barh(place, share.effect, xerr=reach, color=BLUE if one.had else EMPTY, height=0.6, error_kw=ERRORS)
    axes.set_xlim(0, 1)
    _rows(
        axes, [shortened(one.task, 24) for one in study.behaviours], "prompts on which the answer\nis preferred (grey: not had)"
    )


def _kept(axes: Axes, study: Study) -> None:
    found = {one.task: one for one in study.circuits}
    axes.axvline(1, color=INK, linewidth=0.9, linestyle="--")
    axes.axvline(0, color=INK, linewidth=0.6)
    seen = dict[str, None]()
    for place, behaviour in enumerate(study.behaviours):
        one = found.get(behaviour.task)
        if one is None or one.verdict is None:
            continue
        effect, standing = one.verdict.faithfulness, one.standing
        low, high = (float(np.clip(value, -_WIDEST, _WIDEST)) for value in (effect.low, effect.high))
        middle = float(np.clip(effect.effect, -_WIDEST, _WIDEST))
        label = standing if standing not in seen else None
        axes.errorbar(
            middle,
            place,
            xerr=[[middle - low], [high - middle]],
            fmt="o",
            markersize=5,
            color=_STANDINGS[standing],
            elinewidth=1.2,
            capsize=2.5,
            label=label,
        )
        seen[standing] = None
    lowest = min([one.verdict.faithfulness.low for one in study.circuits if one.verdict is not None], default=0.0)
    axes.set_xlim(max(-_WIDEST, min(-0.1, lowest - 0.1)), _WIDEST if any(_beyond(one) for one in study.circuits) else 1.3)
    _rows(axes, [""] * len(study.behaviours), "faithfulness of the circuit\n(1 = as the whole model)")
    if seen:
        axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(seen), borderaxespad=0)


def _beyond(one: object) -> bool:
    verdict = getattr(one, "verdict", None)
    return verdict is not None and verdict.faithfulness.high > 1.3


def _shared(axes: Axes, study: Study, names: list[str]) -> None:
    ratios = np.full((len(names), len(names)), np.nan)
    for one in study.overlaps:
        if one.kind == "heads" and one.ratio is not None:
            places = names.index(one.first), names.index(one.second)
            ratios[places] = ratios[places[::-1]] = one.ratio
    image = axes.imshow(ratios, cmap="Blues", vmin=0, vmax=max(2.0, float(np.nanmax(ratios, initial=1.0))))
    annotate(axes, image, ratios, digits=1, size=7.0)
    short = [shortened(name, 14) for name in names]
    axes.set_xticks(range(len(names)), short, fontsize=7, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), short, fontsize=7.0)
    axes.set_title("heads shared, times chance", fontsize=8.5)
    colour_bar(axes, image)


@draws(StudyPlan)
def study_plan_figure(plan: StudyPlan, *, title: str | None = None) -> Figure:
    """Draw how long each circuit should take, in seconds, below the measuring of behaviours."""
    figure = Figure(figsize=(6.4, 1.8 + 0.3 * len(plan.steps)), layout="constrained")
    axes = figure.subplots()
    names = ["measuring behaviours", *(step.settings.task for step in plan.steps)]
    seconds = [plan.measuring, *(step.estimate for step in plan.steps)]
    axes.barh(range(len(names)), seconds, color=[EMPTY, *[BLUE] * len(plan.steps)], height=0.6)
    _rows(axes, [shortened(name, 24) for name in names], "seconds, estimated (grey: taken)")
    figure.suptitle(wrapped(title or plan.summary, 70), fontsize=10, parse_math=False)
    return figure


@draws(StudiedCircuit)
def studied_circuit_figure(studied: StudiedCircuit, *, title: str | None = None) -> Figure:
    """Draw the verdict on a task's circuit; where there is none, say why."""
    if studied.verdict is not None:
        return verdict_figure(studied.verdict, title or f"{studied.task}: {studied.standing}")
    figure = Figure(figsize=(6.4, 1.6), layout="constrained")
    figure.text(0.5, 0.5, wrapped(f"no circuit: {studied.why}", 70), ha="center", va="center", fontsize=9, parse_math=False)
    figure.suptitle(wrapped(title or studied.task, 70), fontsize=10, parse_math=False)
    return figure
