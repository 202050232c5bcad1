"""Which edges return when a search is repeated, and what the circuit of those keeps."""

import itertools
from typing import get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, GREEN, INK, NEUTRAL, ORANGE, PINK, SKY, VERMILION, frame
from circuits.plots.text import wrapped
from circuits.search.stability.results import BETWEEN, RULES, Between, Recurrence
from circuits.statistics import Effect

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PINK, SKY)
_CHANCE = (("size", "|", "by chance: as many edges"), ("layers", "x", "… between each two layers"))
_CHANCE = (*_CHANCE, ("readers", "D", "… into each reader"), ("writers", "+", "… out of each writer"))


@draws(Recurrence)
def recurrence_figure(found: Recurrence, *, title: str | None = None) -> Figure:
    """Draw how far circuits meet, beside chance; how many edges are found how often, beside chance; and what circuits keep by
    themselves, the single ones and those of edges that return. Bars are 95 % intervals."""
    kinds = _kinds(found)
    kept = sum(len([one for one in found.consensus if one.model == model]) + 1 for model in found.models)
    height = 1.9 + 0.34 * max(len(kinds), kept, 6)
    figure = Figure(figsize=(12.0, height), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1.15, 1, 1.15))
    _draw_overlaps(axes[0], found, kinds)
    _draw_returning(axes[1], found)
    _draw_kept(axes[2], found)
    figure.suptitle(wrapped(title or found.summary, 150, lines=4), fontsize=9.5, parse_math=False)
    return figure


def _kinds(found: Recurrence) -> list[tuple[Between, tuple[str, str]]]:
    """The kinds of pairs that there are, by models."""
    pairs = itertools.combinations_with_replacement(found.models, 2)
    return [(what, pair) for pair in pairs for what in get_args(Between) if found.between(what, pair)]


def _draw_overlaps(axes: Axes, found: Recurrence, kinds: list[tuple[Between, tuple[str, str]]]) -> None:
    names = []
    for row, (what, pair) in enumerate(kinds):
        values = [one.overlap for one in found.between(what, pair)]
        axes.plot(values, [row] * len(values), "o", color=BLUE, markersize=3, alpha=0.4, linewidth=0)
        _bar(axes, found.overlap(what, pair), row, INK)
        for null, marker, words in _CHANCE:
            label = words if row == 0 else None
            chance = [found.expected(null, what, pair)]  # type: ignore[arg-type]
            axes.plot(chance, [row + 0.22], marker, color=NEUTRAL, markersize=5, linewidth=0, label=label)
        own = "" if len(found.models) == 1 else f"{pair[0] if pair[0] == pair[1] else ' and '.join(pair)}:\n"
        names.append(f"{own}{wrapped(BETWEEN[what], 26)}")
    _rows(axes, names)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(len(names) - 0.4, -1.1)  # room for the legend
    axes.set_xlabel("edges in both over edges in either", fontsize=8.5)
    axes.legend(fontsize=7, frameon=False, loc="upper right")


def _draw_returning(axes: Axes, found: Recurrence) -> None:
    for model, colour in zip(found.models, itertools.cycle(_COLOURS), strict=False):
        often, count, chance = zip(*found.returning(model), strict=True)
        axes.plot(often, count, "o-", color=colour, markersize=3.5, linewidth=1.3, label=model)
        axes.plot(often, chance, "--", color=colour if len(found.models) > 1 else BASELINE, linewidth=1.1)
    axes.plot([], [], "--", color=BASELINE, linewidth=1.1, label="by chance, as many into each reader")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("found in at least so many circuits", fontsize=8.5)
    axes.set_ylabel("edges", fontsize=8.5)
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    frame(axes)


def _draw_kept(axes: Axes, found: Recurrence) -> None:
    names = []
    for model, colour in zip(found.models, itertools.cycle(_COLOURS), strict=False):
        own = "" if len(found.models) == 1 else f"{model}: "
        single = [found.runs[row].faithfulness for row in found.rows(model)]
        values = [one.effect for one in single if one is not None]
        axes.plot(values, [len(names)] * len(values), "o", color=colour, markersize=3.5, alpha=0.5, linewidth=0)
        names.append(f"{own}single circuits")
        for one in found.consensus:
            if one.model == model:
                _bar(axes, one.faithfulness, len(names), colour)
                names.append(f"{own}{wrapped(RULES[one.rule], 26)} ({one.edges:,})")
    _rows(axes, names)
    for place in (0.0, 1.0):
        axes.axvline(place, color=BASELINE, linewidth=0.8)
    axes.set_xlabel("kept on held-out prompts (1: as the model)", fontsize=8.5)


def _bar(axes: Axes, effect: Effect | None, row: int, colour: str) -> None:
    if effect is not None:
        reach = [[max(0.0, effect.effect - effect.low)], [max(0.0, effect.high - effect.effect)]]
        axes.errorbar([effect.effect], [row], xerr=reach, fmt="D", color=colour, markersize=5, capsize=3, elinewidth=1.2)


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    frame(axes, grid="x")
