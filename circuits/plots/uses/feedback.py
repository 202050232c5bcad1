"""What feedback has changed in a classifier."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, frame
from circuits.plots.text import shortened, wrapped
from circuits.statistics import Effect
from circuits.uses import FeedbackEffects


@draws(FeedbackEffects)
def feedback_figure(found: FeedbackEffects, *, title: str | None = None) -> Figure:
    """Draw the share of texts told right by split, and the share of what texts are attributed that words of the feedback have,
    both before and after, with 95 % intervals over texts."""
    words = found.words[:12]
    rows = max(len(found.splits), len(words))
    figure = Figure(figsize=(8.4, 1.7 + 0.36 * rows), layout="constrained")
    left, right = figure.subplots(1, 2)
    _pairs(left, list(found.splits), list(zip(found.before, found.after, strict=True)))
    left.set_xlim(-0.02, 1.02)
    left.set_xlabel("share of texts told right", fontsize=8.5)
    left.legend(fontsize=7.5, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    names = [f"{shortened(one.word, 18)} ({'+' if one.matters else '−'})" for one in words]
    _pairs(right, names, [(one.before, one.after) for one in words])
    right.set_xlabel("the word's share of what its text is attributed\n(−: should not matter, +: should)", fontsize=8.5)
    heading = title or f"{shortened(found.model, 40)}: {found.items} items of feedback"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


def _pairs(axes: Axes, names: list[str], pairs: list[tuple[Effect, Effect]]) -> None:
    """Before and after, one below the other."""
    for shift, colour, label, place in ((-0.14, BASELINE, "before", 0), (0.14, BLUE, "after", 1)):
        some = [pair[place] for pair in pairs]
        middle = np.array([one.effect for one in some])
        reach = np.array([[one.effect - one.low for one in some], [one.high - one.effect for one in some]]).clip(min=0)
        at = np.arange(len(some)) + shift
        axes.errorbar(middle, at, xerr=reach, fmt="o", color=colour, capsize=2, elinewidth=1, markersize=4, label=label)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set_ylim(max(0.5, len(names) - 0.5), -0.5)
    frame(axes, grid="x")
