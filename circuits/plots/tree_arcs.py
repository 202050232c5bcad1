"""Sentences with their trees: arcs of the annotation above the words, of what a probe tells below."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Arc

from circuits.errors import CircuitsError
from circuits.plots.style import BLUE, FAINT, INK, VERMILION
from circuits.plots.text import shortened, wrapped
from circuits.probes import TreeProbes
from circuits.probes.trees.results import ShownTree

_WIDE = 0.085
"""Inches of a letter."""
_LONGEST = 14


def tree_arcs_figure(probes: TreeProbes, *, title: str | None = None) -> Figure:
    """Draw the judged sentences that are kept: above the words the annotation's relations (dashed: the probe misses them),
    below those that the probe at the best place tells (dashed: they are wrong). Raises CircuitsError where none is kept."""
    if not probes.shown:
        raise CircuitsError(f"these probes of {probes.model} keep no sentence to draw: probe again")
    drawn = [_placed(tree) for tree in probes.shown]
    wide = max(places[-1] + 1 for _, places in drawn)
    figure = Figure(figsize=(max(5.0, wide * _WIDE + 0.6), 2.0 * len(drawn) + 0.9), layout="constrained")
    grid = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for axes, tree, (words, places) in zip(grid, probes.shown, drawn, strict=True):
        _draw(axes, tree, words, places)
        axes.set_xlim(-5, wide + 5)
    lines: list[tuple[Any, str, str]] = [("-", INK, "annotated"), ("--", FAINT, "annotated, missed")]
    lines += [("-", BLUE, "told, right"), ("--", VERMILION, "told, wrong")]
    handles = [Line2D([], [], linestyle=style, color=colour, label=label) for style, colour, label in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    heading = title or f"Trees read off {probes.sites[probes.best]} of {shortened(probes.model, 40)}"
    figure.suptitle(wrapped(heading, int(wide * _WIDE * 9) + 20), fontsize=10.5, parse_math=False)
    return figure


def _placed(tree: ShownTree) -> tuple[list[str], list[float]]:
    """The words as they are drawn, and the middle of each, in letters."""
    words, at, middles = [shortened(word, _LONGEST) for word in tree.words], 0.0, list[float]()
    for word in words:
        middles.append(at + len(word) / 2)
        at += len(word) + 2
    return words, middles


def _draw(axes: Axes, tree: ShownTree, words: list[str], places: list[float]) -> None:
    for word, place in zip(words, places, strict=True):
        axes.text(place, 0, word, ha="center", va="center", fontsize=9, parse_math=False)
    highest = 1.0
    for edges, side, (usual, other) in ((tree.gold, 1, (INK, FAINT)), (tree.told, -1, (BLUE, VERMILION))):
        for edge in edges:
            first, last = sorted(places[word] for word in edge)
            right = frozenset(edge) in tree.right
            height = 0.6 + 1.5 * np.sqrt(abs(edge[0] - edge[1]))
            start = (0, 180) if side > 0 else (180, 360)
            style = {"color": usual if right else other, "linestyle": "-" if right else "--", "linewidth": 1.1}
            box = ((first + last) / 2, side * 0.45, last - first, 2 * height)
            axes.add_patch(Arc(box[:2], *box[2:], theta1=start[0], theta2=start[1], **style))
            highest = max(highest, height)
    axes.set_ylim(-highest - 0.6, highest + 0.6)
    axes.axis("off")
    axes.set_title(f"{len(tree.right)} of {len(tree.gold)} relations", fontsize=8, loc="left", color=FAINT)
