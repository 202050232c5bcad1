"""Heads that answer by a letter: three measures side by side, and how few dimensions they keep."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BLUE, GREEN, INK, NEUTRAL, ORANGE, VERMILION, frame
from circuits.plots.text import wrapped
from circuits.search import LetterHeads

_MOST = 12
"""Heads that are drawn: those that write most, either sign."""
_PARTS = (("queries", BLUE), ("keys", ORANGE), ("values", GREEN))


@draws(LetterHeads)
def letter_heads_figure(found: LetterHeads, *, title: str | None = None) -> Figure:
    """Draw for the heads that write most what each writes, what patching it brings back, and where it looks, with 95 %
    intervals, letter heads in bold; below, how few dimensions of letter heads' queries, keys and values leave the answers' loss
    as it was, and what these tell apart."""
    heads = sorted(found.heads, key=lambda one: -abs(one.direct.effect))[:_MOST]
    figure = Figure(figsize=(10.5, 1.7 + 0.32 * len(heads) + (2.6 if found.kept else 0)), layout="constrained")
    rows = 2 if found.kept else 1
    grid = figure.add_gridspec(rows, 1, height_ratios=[0.32 * len(heads) + 0.6, 2.3][:rows])
    upper: Any = grid[0].subgridspec(1, 3).subplots(sharey=True)
    for axes, name, words in zip(upper, ("direct", "patched"), _words(found), strict=False):
        _bars(axes, [getattr(one, name) for one in heads], BLUE, words)
    _looks(upper[2], found, heads)
    names = [one.head for one in heads]
    upper[0].set_yticks(range(len(heads)), names, fontsize=8)
    for label, one in zip(upper[0].get_yticklabels(), heads, strict=True):
        label.set_fontweight("bold" if found.is_letter_head(one) else "normal")
    upper[0].set_ylim(len(heads) - 0.4, -0.6)
    if found.kept:
        lower: Any = grid[1].subgridspec(1, 2, width_ratios=(1, 1.6)).subplots()
        _dimensions(lower[0], found)
        _told(lower[1], found)
    figure.suptitle(wrapped(title or found.summary, 130, lines=4), fontsize=9.5, parse_math=False)
    return figure


def _words(found: LetterHeads) -> tuple[str, str]:
    return f"written to the right letter, less another (of {found.difference.effect:.2f} nats)", "gap brought back by patching"


def _bars(axes: Axes, effects: list, colour: str, words: str) -> None:
    values = np.array([one.effect for one in effects])
    reach = np.array([[max(0.0, one.effect - one.low), max(0.0, one.high - one.effect)] for one in effects]).T
    colours = [colour if value >= 0 else VERMILION for value in values]
    axes.barh(range(len(values)), values, xerr=reach, color=colours, height=0.6, error_kw={"ecolor": INK, "elinewidth": 0.9})
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel(words, fontsize=8)
    frame(axes, grid="x")


def _looks(axes: Axes, found: LetterHeads, heads: list) -> None:
    looks = (("item", BLUE, "the right item"), ("label", ORANGE, "its label"), ("choice", GREEN, "its choice"))
    looks = (*looks, ("others", NEUTRAL, "another item"))
    for at, (name, colour, words) in enumerate(looks):
        rows = np.arange(len(heads)) + 0.2 * (at - 1.5)
        axes.barh(rows, [getattr(one, name).effect for one in heads], color=colour, height=0.18, label=words)
    axes.set_xlim(0, 1)
    axes.set_xlabel("attention from the last token", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    frame(axes, grid="x")


def _dimensions(axes: Axes, found: LetterHeads) -> None:
    names = list(dict.fromkeys(one.head for one in found.kept))
    for at, (part, colour) in enumerate(_PARTS):
        own = [one for one in found.kept if one.part == part]
        places = [names.index(one.head) + 0.27 * (at - 1) for one in own]
        bars = axes.bar(places, [one.dimensions for one in own], width=0.25, color=colour, label=part)
        axes.bar_label(bars, fontsize=7)
    axes.set_xticks(range(len(names)), names, fontsize=7.5, rotation=30 if len(names) > 4 else 0)
    axes.set_ylabel(f"dimensions, of {found.kept[0].d_head}", fontsize=8)
    axes.set_title(f"kept at constant loss (to {found.tolerance:g} nats)", fontsize=8.5)
    axes.margins(y=0.15)
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    frame(axes)


def _told(axes: Axes, found: LetterHeads) -> None:
    """What the kept dimensions tell apart."""
    kept = [one for one in found.kept if one.dimensions]
    for at, (name, colour, words) in enumerate(
        (("letter", BLUE, "which letter it is"), ("place", ORANGE, "its place"), ("right", GREEN, "whether it is right"))
    ):
        places = np.arange(len(kept)) + 0.27 * (at - 1)
        axes.bar(places, [max(0.0, getattr(one, name)) for one in kept], width=0.25, color=colour, label=words)
    axes.set_xticks(range(len(kept)), [f"{one.head}\n{one.part}" for one in kept], fontsize=6.5)
    axes.set_ylim(0, 1.02)
    axes.set_title("share of the variance kept that it tells", fontsize=8.5)
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    frame(axes)
