"""How far the words that count stay the same when words are replaced, where the class is kept and where it turns."""

import numpy as np
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BLUE, INK, VERMILION, frame
from circuits.plots.text import wrapped
from circuits.uses import Stability


@draws(Stability)
def stability_figure(found: Stability, *, title: str | None = None) -> Figure:
    """Draw Kendall's tau of every pair, in rows: class kept or turned, words searched for or drawn; a diamond is the mean of a
    row with its 95 % interval."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes, names = figure.subplots(), []
    kinds = [(kept, searched) for searched in (True, False) for kept in (True, False)]
    taus, draw = found.kendall.numpy(), np.random.default_rng(0)
    for row, (kept, searched) in enumerate(kinds):
        own = np.array([one == kept and other == searched for one, other in zip(found.kept, found.searched, strict=True)])
        values = taus[own]
        values = values[np.isfinite(values)]
        colour = BLUE if kept else VERMILION
        axes.plot(
            values, row + draw.uniform(-0.22, 0.22, len(values)), "o", color=colour, markersize=3, alpha=0.45, linewidth=0
        )
        mean = found.agreement(kept=kept, searched=searched)
        if mean is not None:
            reach = [[max(0.0, mean.effect - mean.low)], [max(0.0, mean.high - mean.effect)]]
            axes.errorbar([mean.effect], [row], xerr=reach, fmt="D", color=INK, markersize=5, capsize=3, elinewidth=1.2)
        words = f"class {'kept' if kept else 'turned'}, words {'searched' if searched else 'drawn'}"
        names.append(f"{words} ({len(values)})")
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("Kendall's tau of the words' numbers, text and other text", fontsize=8.5)
    frame(axes, grid="x")
    figure.suptitle(wrapped(title or found.summary, 90), fontsize=9.5, parse_math=False)
    return figure
