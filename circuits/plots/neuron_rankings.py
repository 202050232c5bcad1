"""Rankings of neurons: how far the first ones go, and what the model loses without them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, FAINT, GREEN, INK, ORANGE, PINK, SKY, VERMILION, annotate, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes.ranking.results import SETS, NeuronKnockout, NeuronRankings
from circuits.probes.results import SURE

_WAYS = {"lca": BLUE, "gaussian": VERMILION, "probeless": GREEN, "raw": ORANGE, "agreement": PINK}
_SETS = {"top": (VERMILION, "o"), "bottom": (SKY, "s"), "random": (BASELINE, "D")}
_KINDS = {"zero": "set to 0", "mean": "at their mean", "moved": "at another class's mean"}


@draws(NeuronRankings)
def neuron_rankings_figure(rankings: NeuronRankings, *, title: str | None = None) -> Figure:
    """Draw the accuracy of a probe on the first neurons of each ranking with 95 % intervals, its selectivity, and what share of
    their first neurons rankings have in common."""
    figure = Figure(figsize=(10.2, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 1.0, 0.9])
    sizes = rankings.sizes.numpy()
    for place, way in enumerate(rankings.ways):
        style = {"color": _WAYS[way], "marker": "o", "markersize": 3.5, "linewidth": 1.3, "elinewidth": 0.8, "capsize": 1.5}
        left.errorbar(sizes, rankings.accuracy[place].numpy(), yerr=SURE * rankings.errors[place].numpy(), label=way, **style)
        errors = SURE * rankings.selectivity_errors[place].numpy()
        middle.errorbar(sizes, rankings.selectivity[place].numpy(), yerr=errors, **style)
    for (share, _), name, line in ((rankings.whole, f"{rankings.candidates} neurons", "-"), (rankings.majority, "word", "--")):
        left.axhline(share, color=FAINT, linestyle=line, linewidth=1.1, label=name)
    middle.axhline(0, color=INK, linewidth=0.8)
    for axes, name in ((left, "accuracy, words of held-out sentences"), (middle, "accuracy less control task")):
        _by_size(axes, sizes)
        axes.set_ylabel(name, fontsize=8.5)
    left.legend(fontsize=7.5, frameon=False)
    count = int(min(50, len(rankings.layers)))
    shared = rankings.overlap(count).numpy()
    image = right.imshow(shared, cmap="Blues", vmin=0, vmax=1)
    annotate(right, image, shared, size=7.5)
    right.set_xticks(range(len(rankings.ways)), rankings.ways, fontsize=7.5, rotation=45, ha="right")
    right.set_yticks(range(len(rankings.ways)), rankings.ways, fontsize=7.5)
    right.set_title(f"share in common of the first {count}\n(by chance {count / len(rankings.layers):.2g})", fontsize=8.5)
    heading = title or f"Neurons of {shortened(rankings.model, 40)} that know {shortened(rankings.property, 30)}"
    figure.suptitle(wrapped(heading, 100), fontsize=10.5, parse_math=False)
    return figure


@draws(NeuronKnockout)
def neuron_knockout_figure(knockout: NeuronKnockout, *, title: str | None = None) -> Figure:
    """Draw how much the loss of the next token rises without the first, the last and random neurons, by ranking and by what
    takes their place, with 95 % intervals; pale: tokens that follow no word with the property. Above 0 = they were used."""
    rows, columns = len(knockout.kinds), len(knockout.ways)
    figure = Figure(figsize=(1.6 + 2.7 * columns, 1.2 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    for (kind, way), axes in np.ndenumerate(grid):
        for kept, label in enumerate(SETS):
            colour, marker = _SETS[label]
            for part, (alpha, line) in enumerate(((1.0, "-"), (0.4, ":"))):
                style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.2, "linestyle": line}
                style |= {"alpha": alpha, "elinewidth": 0.8, "capsize": 1.5, "label": None if part else label}
                values, errors = (side[way, kept, kind, :, part].numpy() for side in (knockout.lost, knockout.errors))
                axes.errorbar(knockout.sizes, values, yerr=SURE * errors, **style)
        axes.axhline(0, color=INK, linewidth=0.8)
        _by_size(axes, np.array(knockout.sizes))
        if kind == 0:
            axes.set_title(f"by {knockout.ways[way]}", fontsize=9)
        if kind < rows - 1:
            axes.set_xlabel("")
        if way == 0:
            axes.set_ylabel(f"{_KINDS[knockout.kinds[kind]]}\nrise of the loss, nats", fontsize=8)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    heading = title or f"{shortened(knockout.model, 40)} without neurons that know {shortened(knockout.property, 30)}"
    figure.suptitle(wrapped(heading, 30 + 30 * columns), fontsize=10.5, parse_math=False)
    return figure


def _by_size(axes: Axes, sizes: np.ndarray) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("neurons", fontsize=8.5)
    frame(axes)
