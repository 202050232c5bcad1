"""Explanations of neurons: simulated beside real activations, and how well many explanations do."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.files.pictures import draws
from circuits.lenses.explaining.excerpts import LEVELS, Excerpt
from circuits.lenses.explaining.explanations import Explanations, NeuronExplanation
from circuits.lenses.explaining.module_explanations import ModuleExplanation
from circuits.lenses.explaining.scores import Correlation
from circuits.plots.style import BASELINE, BLUE, ERRORS, FAINT, GREEN, ORANGE, frame
from circuits.plots.text import shortened, shown_token, wrapped

_WIDE, _LONGEST = 82, 14
"""Characters of an excerpt, and of a token."""
_CHARACTER = 0.0635
"""Inches that a character takes."""


@draws(NeuronExplanation)
def explanation_figure(found: NeuronExplanation, *, most: int = 6) -> Figure:
    """Draw what a neuron does on held-out excerpts, and below each token what is expected of it by the explanation alone:
    up to `most` excerpts with its largest activations and as many random ones, blue above 0, orange below."""
    pairs = list(zip(found.held, found.simulated, strict=True))
    rows = [pair for kind in ("top", "random") for pair in [pair for pair in pairs if pair[0].kind == kind][:most]]
    figure = Figure(figsize=(_WIDE * _CHARACTER + 1.9, 0.5 * len(rows) + 1.35), layout="constrained")
    axes = figure.subplots()
    scale = found.scale if found.scale > 0 else max(1e-9, *(abs(v) for one in found.held for v in one.activations))
    for row, (excerpt, simulated) in enumerate(rows):
        _draw_pair(axes, row, excerpt, simulated, scale)
    axes.set_xlim(-9, _WIDE + 12)
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_axis_off()
    score = found.score
    heading = f"{found.neuron} of {shortened(found.model, 40)}: {found.explanation}"
    numbers = f"correlation {score.together}; top {score.top}; random {score.random}"
    lines = [wrapped(heading, 92, lines=2), wrapped(numbers, 92, lines=2)]
    axes.set_title("\n".join(lines), fontsize=9.5, loc="left", parse_math=False)
    return figure


def _draw_pair(axes: Axes, row: int, excerpt: Excerpt, simulated: Sequence[float], scale: float) -> None:
    """One excerpt, cut around its largest activation: the real row above, the simulated row below."""
    words = [shown_token(token, longest=_LONGEST) for token in excerpt.tokens]
    first, last = _window([len(word) for word in words], int(np.argmax(excerpt.activations)))
    starts = np.cumsum([0, *map(len, words[first : last + 1])])
    colours, norm = matplotlib.colormaps["RdBu"], TwoSlopeNorm(0.0, -1.6, 1.6)
    sides = ((-0.42, [value / scale for value in excerpt.activations]), (0.0, [value / LEVELS for value in simulated]))
    for top, values in sides:
        for place in range(first, last + 1):
            word, start = words[place], starts[place - first]
            value = float(np.clip(values[place], -1, 1))
            axes.add_patch(Rectangle((start, row + top), len(word), 0.38, facecolor=colours(norm(value)), linewidth=0))
            style = {"family": "monospace", "fontsize": 6.5, "ha": "center", "va": "center_baseline", "parse_math": False}
            axes.text(start + len(word) / 2, row + top + 0.19, word, **style)
        said = "real" if top < 0 else "simulated"
        axes.text(-0.8, row + top + 0.19, said, fontsize=6.5, ha="right", va="center_baseline", color=FAINT)
    largest = max(excerpt.activations)
    label = f"{excerpt.kind} {round(largest, 2) + 0.0:.2f}"
    axes.text(_WIDE + 12, row - 0.23, label, fontsize=6.5, ha="right", va="center_baseline", color=FAINT)


def _window(sizes: Sequence[int], at: int) -> tuple[int, int]:
    """The first and the last token that are drawn: as many around a place as there is room for."""
    first = last = at
    used = sizes[at]
    while True:
        left = sizes[first - 1] if first else None
        right = sizes[last + 1] if last + 1 < len(sizes) else None
        if left is not None and used + left <= _WIDE and (right is None or at - first <= 2 * (last - at)):
            first, used = first - 1, used + left
        elif right is not None and used + right <= _WIDE:
            last, used = last + 1, used + right
        elif left is not None and used + left <= _WIDE:
            first, used = first - 1, used + left
        else:
            return first, last


@draws(Explanations)
def explanations_figure(found: Explanations, *, most: int = 60) -> Figure:
    """Draw the correlation of each explained neuron, best first, with its interval, on all held-out excerpts, and as smaller
    marks those on top and random ones; at most `most` neurons, the best."""
    chosen = sorted(
        (one for one in found.neurons if one.score.together.value is not None),
        key=lambda one: -(one.score.together.value or 0.0),
    )[:most]
    figure = Figure(figsize=(7.4, 0.19 * max(len(chosen), 3) + 1.3), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=BASELINE, linewidth=0.8)
    for row, one in enumerate(chosen):
        _draw_score(axes, row, one.score.together, BLUE, size=5.0, whiskers=True)
        _draw_score(axes, row, one.score.top, GREEN, size=2.8)
        _draw_score(axes, row, one.score.random, ORANGE, size=2.8)
    for name, colour in (("all held-out excerpts, 95 %", BLUE), ("top", GREEN), ("random", ORANGE)):
        axes.plot([], [], "o", color=colour, markersize=4, label=name)
    names = [f"{one.neuron}  {shortened(' '.join(one.explanation.split()), 46)}" for one in chosen]
    axes.set_yticks(range(len(chosen)), names, fontsize=6.5, parse_math=False)
    axes.set_ylim(max(len(chosen), 1) - 0.4, -0.6)
    axes.set_xlabel("correlation of simulated and real activations", fontsize=8)
    axes.legend(fontsize=7, loc="lower right", frameon=False)
    frame(axes, grid="x", labels=7.5)
    figure.suptitle(wrapped(found.summary, 88, lines=2), fontsize=9.5, parse_math=False)
    return figure


def _draw_score(axes: Axes, row: int, score: Correlation, colour: str, *, size: float, whiskers: bool = False) -> None:
    if score.value is None:
        return
    if whiskers and score.low is not None and score.high is not None:
        around = [[max(score.value - score.low, 0.0)], [max(score.high - score.value, 0.0)]]
        axes.errorbar([score.value], [row], xerr=around, fmt="none", **ERRORS)
    axes.plot([score.value], [row], "o", color=colour, markersize=size)


@draws(ModuleExplanation)
def module_figure(found: ModuleExplanation, *, most: int = 20) -> Figure:
    """Draw what a module does on the groups of words on which it does most, with its mean over all of them as a line, beside
    the scores of the explanations with their intervals."""
    tops, candidates = found.ngrams[:most], found.candidates[:most]
    height = 0.2 * max(len(tops), 2 * len(candidates), 6) + 1.2
    figure = Figure(figsize=(9.2, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    names = ["".join(shown_token(text, longest=24)) for text, _ in tops]
    left.barh(range(len(tops)), [value for _, value in tops], height=0.72, color=BLUE)
    left.axvline(found.mean, color=BASELINE, linewidth=1.0, linestyle="--")
    left.set_yticks(range(len(tops)), names, fontsize=7, parse_math=False)
    left.set_ylim(len(tops) - 0.4, -0.6)
    left.set_title(f"{found.reads} (dashed: mean of {found.counted:,})", fontsize=8.5, loc="left", parse_math=False)
    for row, one in enumerate(candidates):
        around = [[max(one.score - one.low, 0.0)], [max(one.high - one.score, 0.0)]]
        right.errorbar([one.score], [row], xerr=around, fmt="o", color=BLUE, markersize=4.5, **ERRORS)
        style = {"fontsize": 7, "ha": "left", "va": "bottom", "parse_math": False, "zorder": 3}
        style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # the line at 0 does not cross words
        right.text(0.012, row - 0.16, shortened(one.explanation, 62), transform=right.get_yaxis_transform(), **style)
    right.axvline(0, color=BASELINE, linewidth=0.8)
    right.set_yticks([])
    right.set_ylim(max(len(candidates), 1) - 0.4, -0.8)
    right.set_title(f"texts with less texts without, sigma ({found.texts} each)", fontsize=8.5, loc="left")
    for axes in (left, right):
        frame(axes, grid="x", labels=7.5)
    figure.suptitle(wrapped(f"{found.module} of {found.model}", 90, lines=2), fontsize=10, parse_math=False)
    return figure
