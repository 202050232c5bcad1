"""How often a classifier is right, beside what takes no model."""

import numpy as np
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, INK, ORANGE, frame
from circuits.plots.text import shortened, wrapped
from circuits.uses import ClassifierScores


@draws(ClassifierScores)
def classifier_scores_figure(found: ClassifierScores, *, title: str | None = None) -> Figure:
    """Draw the share of texts told right in each set with its 95 % interval, beside the majority class and a bag of words."""
    figure = Figure(figsize=(6.8, 1.5 + 0.5 * len(found.splits)), layout="constrained")
    axes, at = figure.subplots(), np.arange(len(found.splits))
    right, low, high = (getattr(found, name).numpy() for name in ("accuracy", "low", "high"))
    reach = np.clip([right - low, high - right], 0, None)  # at 0 and at 1 rounding may leave less than nothing
    axes.errorbar(right, at, xerr=reach, fmt="o", color=BLUE, capsize=2, elinewidth=1, label="classifier")
    axes.plot(found.bag_of_words.numpy(), at, "D", color=ORANGE, markersize=4, label="bag of words")
    axes.plot(found.majority.numpy(), at, "|", color=BASELINE, markersize=14, markeredgewidth=2, label="majority class")
    names = [f"{shortened(name, 30)} ({int(count):,})" for name, count in zip(found.splits, found.texts, strict=True)]
    axes.set_yticks(at, names, fontsize=8.5, parse_math=False)
    axes.set_ylim(len(at) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.axvline(1 / len(found.classes), color=INK, linewidth=0.6, linestyle=":")
    axes.set_xlabel("share of texts told right (dotted: one in as many as there are classes)", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    frame(axes)
    heading = title or f"{shortened(found.model, 40)}, {found.trained}"
    figure.suptitle(wrapped(heading, 80), fontsize=10.5, parse_math=False)
    return figure
