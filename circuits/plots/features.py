"""Features packed into fewer dimensions, and features of a dictionary."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from circuits.concepts import DictionaryReport, FeatureReport, Superposition
from circuits.files.pictures import draws
from circuits.plots.lenses.memories import draw_contexts, token_bars
from circuits.plots.style import BASELINE, BLUE, GRID, INK, ORANGE, SIGNED, VERMILION, frame
from circuits.plots.text import shown_token, wrapped

_NAMED = 8
"""Features of a dictionary whose triggers are written beside them."""
_PANELS = 4
"""Sparsities whose weights are drawn."""
_COLOURS = {"relu": BLUE, "linear": ORANGE}
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": INK}
_SHARES = ((1.0, "its own"), (0.5, "pair"), (0.4, "pentagon"))


@draws(Superposition)
def superposition_figure(found: Superposition, *, title: str | None = None) -> Figure:
    """Draw how many features are packed by sparsity, and the dimensionality of each; above, for a few sparsities, the features
    of the first kind of model as arrows where there are two dimensions, else the products of each with each."""
    order = found.sparsity.argsort().tolist()
    chosen = [order[round(place)] for place in np.linspace(0, len(order) - 1, min(_PANELS, len(order)))]
    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    above, below = halves
    for axes, place in zip(above.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        _weights(axes, found.best[0, place].numpy())
        axes.set_title(f"{float(found.sparsity[place]):.0%} zero", fontsize=8.5)
    above.suptitle(f"with {found.kinds[0]}: {_said(found)}", fontsize=8.5)
    left, right = below.subplots(1, 2)
    at = 1 / (1 - found.sparsity[order].numpy())
    for kind, name in enumerate(found.kinds):
        left.plot(at, found.packed[kind, order].numpy(), "o-", color=_COLOURS[name], markersize=4, linewidth=1.3, label=name)
        drift = 1.03 if kind else 1 / 1.03
        for feature in range(len(found.importance)):
            shares = found.dimensionality[kind, order, feature].numpy()
            right.plot(at * drift, shares, "o", color=_COLOURS[name], markersize=4, alpha=0.6, markeredgewidth=0)
    hidden, features = found.W.shape[-2:]
    for height, said in ((hidden, f"{hidden} dimensions"), (features, f"{features} features")):
        left.axhline(height, color=BASELINE, linewidth=0.9, linestyle="--")
        left.annotate(said, (at[0], height), xytext=(0, 2 if height == features else -9), **_SMALL)
    for height, said in _SHARES:
        right.axhline(height, color=GRID, linewidth=0.9)
        right.annotate(said, (1, height), xycoords=("axes fraction", "data"), xytext=(2, -2), **_SMALL)
    left.set_ylabel("features packed, |W|²", fontsize=8.5)
    right.set_ylabel("dimensionality of a feature", fontsize=8.5)
    right.set_ylim(-0.05, 1.1)
    left.set_ylim(bottom=0)
    left.legend(fontsize=7.5, frameon=False, loc="lower right")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(at, [f"{chance:.0%}" for chance in found.sparsity[order].tolist()], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel("how often a feature is zero", fontsize=8.5)
        frame(axes, grid=None)
    figure.suptitle(wrapped(title or found.summary, 100), fontsize=10.5, parse_math=False)
    return figure


def _said(found: Superposition) -> str:
    return "features as arrows" if found.W.shape[-2] == 2 else "products of features, |W_i|² on the diagonal"


def _weights(axes: Axes, W: np.ndarray) -> None:
    """Features as arrows in two dimensions, or the product of each with each."""
    if len(W) != 2:
        axes.imshow(W.T @ W, cmap=SIGNED, vmin=-1.2, vmax=1.2)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    reach = 1.45
    for x, y in W.T:
        axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": VERMILION, "linewidth": 1.3})
    axes.add_patch(_circle())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _circle() -> Circle:
    return Circle((0, 0), 1.0, fill=False, color=GRID, linewidth=0.9)


@draws(DictionaryReport)
def dictionary_figure(found: DictionaryReport, *, title: str | None = None) -> Figure:
    """Draw how often each feature is active beside what the loss would be without it; and the model's loss, with the
    dictionary's output in place of what stands there, and with the mean."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    grid = figure.subplot_mosaic("ab", width_ratios=[2, 1])
    active, effect = found.active.numpy(), 1000 * found.effect.numpy()
    there = active > 0
    grid["a"].plot(100 * active[there], effect[there], "o", color=BLUE, markersize=3.5, alpha=0.5, markeredgewidth=0)
    grid["a"].axhline(0, color=INK, linewidth=0.8)
    if there.any():
        grid["a"].set_xscale("log")
        for feature in np.argsort(-np.abs(effect))[:_NAMED]:
            said = f"{feature} {shown_token(found.triggers[feature])}"
            at = (100 * active[feature], effect[feature])
            grid["a"].annotate(said, at, xytext=(4, 3), parse_math=False, **_SMALL)
    grid["a"].set_xlabel(f"active at % of {found.places:,} tokens (never: {found.dead:,} of {len(active):,})", fontsize=8.5)
    grid["a"].set_ylabel("loss without it, first order (10⁻³ nats a token)", fontsize=8.5)
    frame(grid["a"], grid="both")
    names, losses = ("the model", "dictionary", "mean there"), (found.loss, found.loss_kept, found.loss_removed)
    bars = grid["b"].bar(names, losses, color=[BASELINE, BLUE, VERMILION], width=0.6)
    grid["b"].bar_label(bars, fmt="%.3f", fontsize=8)
    grid["b"].set_ylim(
        min(losses) - 0.35 * (max(losses) - min(losses) or 1), max(losses) + 0.1 * (max(losses) - min(losses) or 1)
    )
    grid["b"].set_ylabel("loss (nats a token)", fontsize=8.5)
    frame(grid["b"])
    figure.suptitle(wrapped(title or found.summary, 110), fontsize=10, parse_math=False)
    return figure


@draws(FeatureReport)
def feature_figure(found: FeatureReport, *, title: str | None = None) -> Figure:
    """Draw a feature's triggers, one above the other, tokens coloured by its activation, beside the tokens that a unit of
    activation raises and lowers."""
    words = max(len(found.raises), len(found.lowers), 1)
    height = max(0.22 * len(found.triggers) + 1.1, 0.36 * words + 1.0, 2.6)
    figure = Figure(figsize=(9.6, height), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[2.2, 1])
    where = figure.add_subplot(grid[:, 0])
    if found.triggers:
        draw_contexts(where, found.triggers)
    else:
        where.text(0.5, 0.5, "never active", ha="center", va="center", color=INK)
        where.set_axis_off()
    named = ((found.raises, "raises (logits a unit of activation)", BLUE), (found.lowers, "lowers", VERMILION))
    for place, (tokens, heading, colour) in enumerate(named):
        token_bars(figure.add_subplot(grid[place, 1]), tokens, heading, colour)
    figure.suptitle(wrapped(title or found.summary, 110), fontsize=10, parse_math=False)
    return figure
