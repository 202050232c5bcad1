"""Which pattern each head has, and what is lost without the heads of each."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from circuits.files.pictures import draws
from circuits.files.words import counted
from circuits.plots.style import BASELINE, BLUE, EMPTY, ERRORS, GREEN, INK, ORANGE, PINK, SKY, VERMILION, YELLOW, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes import HeadPatterns, HeadPruning

_COLOURS = {
    "self": SKY,
    "previous": BLUE,
    "first": EMPTY,
    "delimiter": YELLOW,
    "same": ORANGE,
    "after same": VERMILION,
    "block": GREEN,
    "mixed": PINK,
}
_MEAN = 0.55
"""How pale the bars of the second kind are."""


@draws(HeadPatterns)
def head_patterns_figure(patterns: HeadPatterns, *, title: str | None = None) -> Figure:
    """Draw a cell a head, layers from left to right, coloured by its class: the paler, the smaller the share of its maps that
    are of that class. To the right how held-out made maps were told."""
    layers, heads = patterns.pattern.shape
    side = min(0.3, 7.5 / layers)
    figure = Figure(figsize=(max(3.2, side * layers + 1.6) + 3.6, max(2.8, side * heads + 1.7)), layout="constrained")
    axes, right = figure.subplots(1, 2, width_ratios=[max(2.4, side * layers), 2.2])
    colours = np.array([to_rgb(_COLOURS[name]) for name in patterns.classes])
    strength = patterns.shares.amax(dim=2).numpy()[:, :, None]
    cells = 1 - strength * (1 - colours[patterns.pattern.numpy()])
    axes.imshow(cells.transpose(1, 0, 2), aspect="equal", interpolation="nearest")
    axes.set_xlabel("layer", fontsize=8.5)
    axes.set_ylabel("head", fontsize=8.5)
    frame(axes, grid=None)
    there = [name for number, name in enumerate(patterns.classes) if bool((patterns.pattern == number).any())]
    boxes = [Patch(color=_COLOURS[name], label=f"{name} ({len(patterns.heads(name))})") for name in there]
    axes.legend(handles=boxes, fontsize=7, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _told(right, patterns)
    heading = title or f"Patterns of the heads of {shortened(patterns.model, 40)}"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


def _told(axes: Axes, patterns: HeadPatterns) -> None:
    rows = patterns.confusion.double()
    shares = (rows / rows.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=5.5, color=colour)
    names = range(len(patterns.classes))
    axes.set_xticks(names, patterns.classes, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(names, patterns.classes, fontsize=7)
    axes.set_title(f"made maps (rows) as they were told\n{patterns.accuracy.effect:.1%} right", fontsize=8)


@draws(HeadPruning)
def head_pruning_figure(pruning: HeadPruning, *, title: str | None = None) -> Figure:
    """Draw by how much the loss rises without the heads of each class, and of the largest set that costs little, beside as many
    random heads, with 95 % intervals. Above 0 = they are missed."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(one.kind for one in pruning.classes))
    names = list(dict.fromkeys(one.pattern for one in pruning.classes))
    sizes = {one.pattern: counted(one.heads, "head") for one in pruning.classes}
    labels = [f"{name}\n{sizes[name]}" for name in names]
    width = 0.8 / max(1, 2 * len(kinds))
    for number, kind in enumerate(kinds):
        alpha = _MEAN if number else 1.0
        for place, (colour, label, which) in enumerate(((BLUE, "its heads", "rise"), (BASELINE, "random heads", "random"))):
            rows = [one for one in pruning.classes if one.kind == kind]
            at = [names.index(one.pattern) + (2 * number + place - len(kinds) + 0.5) * width for one in rows]
            _bars(axes, at, [getattr(one, which) for one in rows], width, colour, alpha, f"{label}, {kind}")
    if pruning.free is not None:
        labels.append(f"largest set\n{len(pruning.free.heads)} of {pruning.total}\n({pruning.free.kind})")
        for place, (colour, effect) in enumerate(((GREEN, pruning.free.rise), (BASELINE, pruning.free.random))):
            _bars(axes, [len(names) + (place - 0.5) * width], [effect], width, colour, 1.0, None)
    axes.set_xticks(range(len(labels)), labels, fontsize=7.5)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("rise of the loss, nats a token", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    frame(axes, labels=7.5)
    heading = title or f"{shortened(pruning.model, 40)} without heads of a pattern"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


def _bars(axes: Axes, at: list, effects: list, width: float, colour: str, alpha: float, label: str | None) -> None:
    heights = np.array([one.effect for one in effects])
    reach = np.array([[one.effect - one.low, one.high - one.effect] for one in effects]).clip(min=0).T
    axes.bar(at, heights, width=width, color=colour, alpha=alpha, label=label, yerr=reach, error_kw=ERRORS)
