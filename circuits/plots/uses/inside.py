"""Which nodes and neurons of a classifier carry a shortcut and which the meaning, before and after it was mended."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, INK, frame
from circuits.plots.text import shortened, shown_token, wrapped
from circuits.uses import InsideChange
from circuits.uses.inside import InsideNeurons

_MOST = 12


@draws(InsideChange)
def inside_change_figure(found: InsideChange, *, title: str | None = None) -> Figure:
    """Draw, for the nodes that carry most before or after, by how much the margin falls when they take what they say of the
    swapped text, before and after; the bar between them is the 95 % interval of the change, filled where that is sure. Below
    the same of single neurons, as attribution estimates it, with the words at which they are most active."""
    kinds, few = range(len(found.kinds)), 0 if found.neurons is None else min(_MOST, len(found.neurons.names))
    heights = [min(_MOST, len(found.nodes)), *([few] if few else [])]
    size = (4.4 * len(found.kinds), 1.9 + 0.3 * heights[0] + (1.0 + 0.3 * few if few else 0))
    figure = Figure(figsize=size, layout="constrained")
    rows = len(heights)
    grid = figure.subplots(rows, len(found.kinds), squeeze=False, height_ratios=[1 + height for height in heights])
    for kind in kinds:
        _nodes(grid[0, kind], found, kind)
        if found.neurons is not None and few:
            _neurons(grid[1, kind], found.neurons, kind)
    grid[0, 0].legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.1))
    heading = title or f"{shortened(found.model, 30)}: what carries {' and '.join(found.kinds)}"
    figure.suptitle(wrapped(heading, 44 * len(found.kinds)), fontsize=10.5, parse_math=False)
    return figure


def _nodes(axes: Axes, found: InsideChange, kind: int) -> None:
    before, after = found.before[kind].numpy(), found.after[kind].numpy()
    order = np.sort(np.argsort(-np.maximum(np.abs(before), np.abs(after)), kind="stable")[:_MOST])
    _pairs(axes, found, kind, order, [found.nodes[place] for place in order])
    axes.set_xlabel("fall of the margin (logits) when the node\nsays what it says of the swapped text", fontsize=8.5)
    whole = f"{found.whole_before[kind].effect:+.2f} → {found.whole_after[kind].effect:+.2f}"
    axes.set_title(f"{found.kinds[kind]} (all nodes {whole})", fontsize=9)


def _neurons(axes: Axes, found: InsideNeurons, kind: int) -> None:
    order = np.sort(found.order(kind)[:_MOST])
    words = [" ".join(map(shown_token, found.active_before[place][:2])) for place in order]
    _pairs(axes, found, kind, order, [f"{found.names[place]}  {said}" for place, said in zip(order, words, strict=True)])
    axes.set_xlabel("the same of single neurons, to first order,\nbeside words at which they are most active", fontsize=8.5)
    held = f"{found.held_before[kind]:.0%} → {found.held_after[kind]:.0%}"
    axes.set_title(f"{len(found.names)} of {found.scored:,} neurons ({held} of all)", fontsize=9)


def _pairs(axes: Axes, found: InsideChange | InsideNeurons, kind: int, order: np.ndarray, names: list[str]) -> None:
    """A row each: before, after, and the interval of the change."""
    before, after = found.before[kind].numpy(), found.after[kind].numpy()
    at = np.arange(len(order))
    low, high, sure = (getattr(found, name)[kind].numpy()[order] for name in ("low", "high", "sure"))
    for row, place in enumerate(order):
        ends = (before[place] + low[row], before[place] + high[row])
        axes.hlines(row, *ends, color=BLUE, linewidth=5, alpha=0.25 if sure[row] else 0.1)
    axes.plot(before[order], at, "o", color=BASELINE, markersize=5, label="before")
    for there, face in ((sure, BLUE), (~sure, "white")):
        label = "after (filled: surely changed)" if face == BLUE else None
        axes.plot(after[order][there], at[there], "o", color=BLUE, markerfacecolor=face, markersize=5, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(at, names, fontsize=8, parse_math=False)
    axes.set_ylim(len(at) - 0.5, -0.5)
    frame(axes, grid="x")
