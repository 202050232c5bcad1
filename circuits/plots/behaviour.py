"""Behaviour scores by group, the model beside its baselines."""

import numpy as np
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.plots.style import GREEN, INK, ORANGE, SKY, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.tasks.behavioural.scores import BehaviourScores

_BASELINES = {"bigram": ("s", VERMILION), "unigram": ("^", ORANGE), "length": ("D", GREEN)}
_FACTS = {"bigram_top1": ("s", VERMILION), "majority_top1": ("^", GREEN)}
_NAMES = {"bigram_top1": "bigram", "majority_top1": "majority", "top1": "top-1 accuracy", "accuracy": "accuracy"}
_MOST = 40


@draws(BehaviourScores)
def behaviour_figure(scores: BehaviourScores, *, title: str | None = None) -> Figure:
    """Draw the accuracy in each group as a bar with one standard error, and what each baseline gets as a mark on it; all items
    together below. Of more than 40 groups those with the most items are drawn."""
    main, marks = ("accuracy", _BASELINES) if scores.kind == "minimal pairs" else ("top1", _FACTS)
    if main not in scores.values:
        raise CircuitsError(f"there is no column {main} to draw")
    records = scores.to_dataframe().to_dict("records")
    *groups, everything = records
    least = sorted((row["items"] for row in groups), reverse=True)[:_MOST][-1]
    groups = [row for row in groups if row["items"] >= least][:_MOST]
    rows = [*groups, everything] if len(groups) > 1 else [everything]
    names = [shortened(f"{row['group'] or 'no relation'} ({row['items']:,})", 52) for row in rows]
    left = 0.5 + 0.075 * max(map(len, names))
    figure = Figure(figsize=(left + 4.8, 0.3 * len(rows) + 1.7), layout="constrained")
    axes, places = figure.subplots(), np.arange(len(rows), dtype=float)
    places[-1] += 0.5 * (len(rows) > 1)
    values = [row[main] for row in rows]
    errors = np.nan_to_num([row[f"{main}_se"] for row in rows])
    axes.barh(places, values, 0.66, xerr=errors, color=SKY, error_kw={"ecolor": INK}, label=scores.model)
    for column, (marker, colour) in marks.items():
        if column in scores.values:
            style = {
                "marker": marker,
                "color": colour,
                "edgecolors": "white",
                "linewidths": 0.6,
                "s": 34,
                "zorder": 3,
                "clip_on": False,
            }
            axes.scatter([row[column] for row in rows], places, label=_NAMES.get(column, column), **style)
    if scores.kind == "minimal pairs":
        axes.axvline(0.5, color=INK, linewidth=0.9, linestyle="--", label="chance")
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel(f"{_NAMES[main]}; lines: one standard error", fontsize=9)
    frame(axes, grid="x")
    handles, labels = axes.get_legend_handles_labels()
    labels = [shortened(label, 24) for label in labels]
    for text in figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    heading = title or f"{shortened(scores.model, 40)} on {len(scores.items):,} {scores.kind}"
    figure.suptitle(wrapped(heading, int((left + 4.8) * 10)), fontsize=10.5, parse_math=False)
    return figure
