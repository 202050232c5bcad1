"""By how much wrong sentences surprise each layer."""

import numpy as np
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BAND, BLUE, GREEN, INK, ORANGE, PINK, SKY, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes import Anomalies
from circuits.probes.results import SURE

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PINK, SKY)
_MOST = 6
"""Groups that are drawn: those that stand out most."""
_MOST_NAMES = 16


@draws(Anomalies)
def anomalies_figure(found: Anomalies, *, title: str | None = None) -> Figure:
    """Draw the surprisal gap of each group's pairs at each place, over the standard deviation of pairs so that layers can be
    compared, with 95 % intervals; filled where it is beyond chance in all layers together. The band: 95 % of shuffled pairs.
    Below, the share of pairs whose wrong sentence surprises more."""
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    at = np.arange(len(found.sites))
    spread = found.errors / found.gaps.new_tensor(found.counts)[:, None].rsqrt()
    unit = spread.where(spread > 0, spread.new_tensor(1.0))
    order = found.effects.amax(dim=1).argsort(descending=True, stable=True).tolist()[:_MOST]
    band = (found.null / unit)[order].amax(dim=0).numpy()
    axes.fill_between(at, -band, band, color=BAND, alpha=0.6, linewidth=0, label="shuffled pairs")
    for colour, number in zip(_COLOURS, order, strict=False):
        effects, reach = found.effects[number].numpy(), SURE * (found.errors / unit)[number].numpy()
        label = f"{shortened(found.groups[number], 34)} ({found.counts[number]})"
        axes.errorbar(at, effects, yerr=reach, color=colour, linewidth=1.3, elinewidth=0.8, capsize=1.5, label=label)
        below.plot(at, found.shares[number].numpy(), "o-", color=colour, linewidth=1.2, markersize=3)
        sure = (found.p_values[number] <= 0.05).numpy()
        for there, face in ((sure, colour), (~sure, "white")):
            axes.plot(at[there], effects[there], "o", color=colour, markerfacecolor=face, markersize=4)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("surprisal gap, wrong less right,\nin standard deviations of pairs", fontsize=8.5)
    step = -(-len(found.sites) // _MOST_NAMES)
    below.axhline(0.5, color=INK, linewidth=0.8)
    below.set_ylabel("pairs whose wrong\nsentence surprises more", fontsize=8.5)
    frame(below)
    below.set_xticks(at[::step], found.sites[::step], rotation=45, ha="right", fontsize=7, parse_math=False)
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    frame(axes)
    heading = title or f"Where wrong sentences stand out in {shortened(found.model, 40)}"
    figure.suptitle(wrapped(heading, 80), fontsize=10.5, parse_math=False)
    return figure
