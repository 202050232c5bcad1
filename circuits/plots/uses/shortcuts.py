"""Which words a classifier leans on, and how early in training."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, GREEN, INK, ORANGE, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.statistics import Effect
from circuits.uses import Shortcuts

_MOST = 14


@draws(Shortcuts)
def shortcuts_figure(found: Shortcuts, *, title: str | None = None) -> Figure:
    """Draw, for the words that tell most of the label, by how much more often predictions change when they are swapped than
    when another word is, with 95 % intervals; the accuracy on texts as they are, with the shortcuts at random, and
    flipped; and, where it was watched, the share of texts that go by such words, by step of training."""
    words = found.words[:_MOST]
    names = "wae" if found.early else "wa"
    height = 1.7 + 0.26 * max(len(words), len(found.accuracy) + 1)
    figure = Figure(figsize=(4.2 + 2.9 * (len(names) - 1), max(3.2, height)), layout="constrained")
    grid = figure.subplot_mosaic(names, width_ratios=[1.35, *[1] * (len(names) - 1)])
    _words(grid["w"], found)
    axes = grid["a"]
    _points(axes, list(found.accuracy.values()), [shortened(name, 20) for name in found.accuracy], [BLUE] * len(found.accuracy))
    axes.axvline(1 / len(found.classes), color=INK, linewidth=0.6, linestyle=":")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of texts told right", fontsize=8.5)
    if found.early:
        _early(grid["e"], found)
    heading = title or f"{shortened(found.model, 40)}: words that tell most of the label, and what hangs on them"
    figure.suptitle(wrapped(heading, 28 * len(names)), fontsize=10.5, parse_math=False)
    return figure


def _words(axes: Axes, found: Shortcuts) -> None:
    words = found.words[:_MOST]
    colours = [VERMILION if one.shortcut else ORANGE if one.leaned_on else BASELINE for one in words]
    swaps = [f"{shortened(one.word, 14)} → {shortened(one.counterpart, 14) if one.counterpart else '∅'}" for one in words]
    _points(axes, [one.flips for one in words], swaps, colours)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("predictions that change, beyond those\nwhen another word is swapped", fontsize=8.5)
    for colour, label in ((VERMILION, "shortcut"), (ORANGE, "leaned on"), (BASELINE, "neither")):
        axes.plot([], [], "o", color=colour, label=label)
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(-0.3, 1.0), handletextpad=0.1)


def _points(axes: Axes, effects: list[Effect], names: list[str], colours: list[str]) -> None:
    """One interval a row."""
    for row, (effect, colour) in enumerate(zip(effects, colours, strict=True)):
        reach = [[effect.effect - effect.low], [effect.high - effect.effect]]
        axes.errorbar(effect.effect, row, xerr=np.clip(reach, 0, None), fmt="o", color=colour, capsize=2, elinewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set_ylim(max(0.5, len(names) - 0.5), -0.5)
    frame(axes, grid="x")


def _early(axes: Axes, found: Shortcuts) -> None:
    steps = [one.step for one in found.early]
    lines = {"top word in the head": ([one.in_head for one in found.early], VERMILION)}
    colours = (BLUE, GREEN, ORANGE)
    for name, colour in zip(found.early[0].accuracy, colours, strict=False):
        lines[f"right, {name}"] = ([one.accuracy[name] for one in found.early], colour)
    for name, (effects, colour) in lines.items():
        axes.plot(steps, [one.effect for one in effects], color=colour, marker="o", markersize=3, linewidth=1.2, label=name)
        axes.fill_between(
            steps, [one.low for one in effects], [one.high for one in effects], color=colour, alpha=0.15, linewidth=0
        )
    axes.axhline(found.expected, color=BASELINE, linewidth=1, linestyle="--", label="top word, by chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(step) for step in steps], fontsize=7)
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("steps of training", fontsize=8.5)
    axes.legend(fontsize=6.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handlelength=1.2)
    frame(axes)
