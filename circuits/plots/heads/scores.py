"""Scores of every head, as heatmaps of layers and heads."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import GraphError, NonFiniteError
from circuits.files.pictures import draws
from circuits.heads import HeadScores
from circuits.plots.style import SIGNED, annotate, colour_bar
from circuits.plots.text import wrapped

_COLUMNS = 3
_ANNOTATED = 16
"""Up to so many layers and heads, each cell shows its number."""


@draws(HeadScores)
def head_scores_figure(scores: HeadScores, *, names: Sequence[str] | None = None, title: str | None = None) -> Figure:
    """Draw one heatmap a score, layers upwards and heads to the right.

    Scores that are shares of attention have one scale from 0 to 1, scores that can be negative one from -1 to 1.
    `names`: which scores, in this order (default: all). Raises GraphError for a score that there is not.
    """
    chosen = list(scores.scores) if names is None else list(names)
    for name in chosen:
        if name not in scores.scores:
            raise GraphError(f"no score {name!r}: there are {', '.join(scores.scores)}")
    if not chosen:
        raise GraphError(f"no scores to draw: name at least one of {', '.join(scores.scores)}")
    values = {name: scores.scores[name].detach().double().cpu().numpy() for name in chosen}
    layers, heads = values[chosen[0]].shape
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    width, height = _extent(heads), _extent(layers)
    figure = Figure(figsize=(columns * (width + 1.3), rows * (height + 1.0) + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place < len(chosen):
            _heatmap(axes, chosen[place], values[chosen[place]])
        else:
            axes.set_axis_off()
    figure.suptitle(
        wrapped(title or f"Head scores of {scores.model}", int(columns * (width + 1.3) * 9)), fontsize=12, parse_math=False
    )
    return figure


def _extent(count: int) -> float:
    """Inches for so many cells side by side."""
    return min(max(0.34 * count, 1.5), 5.5)


def _heatmap(axes: Axes, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        layer, head = np.argwhere(~np.isfinite(values))[0]
        raise NonFiniteError(f"the score {name} of a{layer}.h{head} is no finite number")
    layers, heads = values.shape
    signed = name == "copying" or bool(values.min() < 0)
    largest = max(1.0, float(np.abs(values).max()))
    colours = {"cmap": SIGNED, "vmin": -largest} if signed else {"cmap": "viridis", "vmin": 0.0}
    image = axes.imshow(values, origin="lower", aspect="auto", interpolation="nearest", vmax=largest, **colours)
    axes.set_title(name.replace("_", " "), fontsize=10, parse_math=False)
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_xticks(_ticks(heads))
    axes.set_yticks(_ticks(layers))
    axes.tick_params(labelsize=7)
    colour_bar(axes, image, "score (−1 to 1)" if signed else "share of attention")
    if max(layers, heads) <= _ANNOTATED:
        annotate(axes, image, values, size=5.5)


def _ticks(count: int) -> range:
    return range(0, count, next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, count) if count / step <= 16))
