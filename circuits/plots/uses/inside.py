"""Which nodes of a classifier carry a shortcut and which the meaning, before and after it was mended."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, INK, frame
from circuits.plots.text import shortened, wrapped
from circuits.uses import InsideChange

_MOST = 12


@draws(InsideChange)
def inside_change_figure(found: InsideChange, *, title: str | None = None) -> Figure:
    """Draw, for the nodes that carry most before or after, by how much the margin falls when they take what they say of the
    swapped text, before and after; the bar between them is the 95 % interval of the change, filled where that is sure."""
    kinds = range(len(found.kinds))
    figure = Figure(figsize=(4.4 * len(found.kinds), 1.9 + 0.3 * min(_MOST, len(found.nodes))), layout="constrained")
    axes = np.atleast_1d(np.array(figure.subplots(1, len(found.kinds))))
    for kind in kinds:
        _kind(axes[kind], found, kind)
    axes[0].legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.1))
    heading = title or f"{shortened(found.model, 30)}: what carries {' and '.join(found.kinds)}"
    figure.suptitle(wrapped(heading, 44 * len(found.kinds)), fontsize=10.5, parse_math=False)
    return figure


def _kind(axes: Axes, found: InsideChange, kind: int) -> None:
    before, after = found.before[kind].numpy(), found.after[kind].numpy()
    order = np.argsort(-np.maximum(np.abs(before), np.abs(after)), kind="stable")[:_MOST]
    order = order[np.lexsort((order,))]
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
    axes.set_yticks(at, [found.nodes[place] for place in order], fontsize=8)
    axes.set_ylim(len(at) - 0.5, -0.5)
    axes.set_xlabel("fall of the margin (logits) when the node\nsays what it says of the swapped text", fontsize=8.5)
    whole = f"{found.whole_before[kind].effect:+.2f} → {found.whole_after[kind].effect:+.2f}"
    axes.set_title(f"{found.kinds[kind]} (all nodes {whole})", fontsize=9)
    frame(axes, grid="x")
