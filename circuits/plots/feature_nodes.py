"""Features as nodes: how much each does, where, and how sure that is."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.concepts import FeatureCircuit, FeatureScores
from circuits.files.pictures import draws
from circuits.plots.style import BLUE, ERRORS, GREEN, INK, NEUTRAL, SIGNED, VERMILION, colour_bar, frame
from circuits.plots.text import shortened, wrapped

MOST = 20
_COLUMNS = 24
"""Tokens that are drawn, those nearest to the answer's."""


@draws(FeatureScores)
def feature_scores_figure(found: FeatureScores, *, title: str | None = None) -> Figure:
    """Draw the largest nodes: the estimated effect of each with its interval and the measured one as a mark; beside it at which
    tokens, counted from the answer's."""
    rows = found.order()[:MOST]
    figure = Figure(figsize=(10.2, 0.26 * max(len(rows), 4) + 1.7), layout="constrained")
    bars, heat = figure.subplots(1, 2, sharey=True, width_ratios=[1.15, 1])
    effects, measured = found.effects(), found.measured()
    places = np.arange(len(rows))
    values = np.array([[effects[row].effect, effects[row].low, effects[row].high] for row in rows]).reshape(-1, 3)
    reach = np.clip(np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]), 0, None)
    colours = [
        NEUTRAL if ".f" not in found.names[row] else BLUE if value > 0 else VERMILION
        for row, value in zip(rows, values[:, 0], strict=True)
    ]
    several = len(found.clean) > 1
    bars.barh(places, values[:, 0], height=0.7, color=colours, xerr=reach if several else None, error_kw=ERRORS)
    there = [(place, measured[row].effect) for place, row in enumerate(rows) if measured[row] is not None]  # type: ignore[union-attr]
    if there:
        bars.plot([x for _, x in there], [y for y, _ in there], "D", color=INK, markersize=4, label="measured")
        bars.legend(fontsize=7.5, frameon=False, loc="best")
    bars.axvline(0, color=INK, linewidth=0.8)
    bars.set_yticks(places, [shortened(found.names[row], 30) for row in rows], fontsize=8, parse_math=False)
    bars.set_ylim(len(rows) - 0.4, -0.6)
    bars.set_xlabel("share of the way from the clean to the corrupt answer\n(grey: no features)", fontsize=8.5)
    frame(bars, grid="x")
    _by_token(heat, found, rows)
    figure.suptitle(wrapped(title or found.summary, 115), fontsize=10, parse_math=False)
    return figure


def _by_token(axes: Axes, found: FeatureScores, rows: list[int]) -> None:
    """The scores of nodes by token."""
    first = max(0, found.offsets.index(0) - _COLUMNS + 1) if 0 in found.offsets else 0
    shown = found.by_position[rows, first:].double().numpy()
    offsets = found.offsets[first:]
    # Errors may be far larger than any feature, whose pattern they would hide: they may run out of the scale.
    features = [place for place, row in enumerate(rows) if ".f" in found.names[row]]
    limit = float(np.abs(shown[features] if features else shown).max()) if shown.size else 0.0
    limit = limit or 1.0
    image = axes.imshow(shown, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    step = max(1, len(offsets) // 10)
    ticks = [place for place, offset in enumerate(offsets) if offset % step == 0]
    axes.set_xticks(ticks, [str(offsets[place]) for place in ticks], fontsize=8)
    axes.set_xlabel("token, counted from the answer's", fontsize=8.5)
    axes.tick_params(left=False, labelleft=False)
    axes.spines[:].set_visible(False)
    colour_bar(axes, image, "change of the metric")


@draws(FeatureCircuit)
def feature_circuit_figure(found: FeatureCircuit, *, title: str | None = None) -> Figure:
    """Draw the circuit's nodes by their attributions, and faithfulness over the number of nodes: alone, with as many random
    features, and what the model keeps without them."""
    shown = list(range(min(MOST, len(found))))
    figure = Figure(figsize=(10.2, max(3.6, 0.24 * len(shown) + 1.6)), layout="constrained")
    bars, axes = figure.subplots(1, 2, width_ratios=[1, 1.3])
    values = np.array([found.scores[row] for row in shown])
    signed = [BLUE if value > 0 else VERMILION for value in values]
    colours = [colour if ".f" in found.nodes[row] else NEUTRAL for row, colour in zip(shown, signed, strict=True)]
    bars.barh(shown, values, height=0.7, color=colours)
    bars.axvline(0, color=INK, linewidth=0.8)
    bars.set_yticks(shown, [shortened(found.nodes[row], 30) for row in shown], fontsize=8, parse_math=False)
    bars.set_ylim(max(len(shown), 4) - 0.4, -0.6)
    more = f"\n{len(shown)} of {len(found):,} nodes" if len(shown) < len(found) else ""
    bars.set_xlabel(f"attribution: change of the metric{more}", fontsize=8.5)
    frame(bars, grid="x")
    _over_sizes(axes, found)
    figure.suptitle(wrapped(title or found.summary, 115), fontsize=10, parse_math=False)
    return figure


def _over_sizes(axes: Axes, found: FeatureCircuit) -> None:
    """Faithfulness over the number of nodes."""
    sizes = np.array(found.sizes, dtype=float)
    for effects, colour, said in ((found.curve, BLUE, "these nodes alone"), (found.curve_without, GREEN, "model without them")):
        low, high = ([getattr(one, end) for one in effects] for end in ("low", "high"))
        axes.plot(sizes, [one.effect for one in effects], "o-", color=colour, markersize=3.5, linewidth=1.3, label=said)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    if len(found.random):
        drawn = found.random.double().numpy()
        axes.plot(sizes, drawn.mean(axis=0), color=NEUTRAL, linestyle="--", linewidth=1.2, label="random features")
        axes.fill_between(sizes, drawn.min(axis=0), drawn.max(axis=0), color=NEUTRAL, alpha=0.15, linewidth=0)
    axes.axvline(len(found), color=INK, linewidth=0.8, linestyle=":", label="the circuit")
    for level in (0, 1):
        axes.axhline(level, color=INK, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("nodes, the largest attributions first", fontsize=8.5)
    axes.set_ylabel("faithfulness", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False)
    frame(axes)
