"""What edits of facts did, before and after, layer by layer, and beside causal tracing; what is added to the weights."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.models import WeightEdit
from circuits.plots.style import BASELINE, BLUE, ERRORS, GREEN, INK, ORANGE, PINK, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.statistics import Effect
from circuits.uses.editing import EditScores, EditsTogether, KeyMoments, localisation
from circuits.uses.editing.results import PUBLISHED

_SHARES = {"efficacy": BLUE, "paraphrase": GREEN, "neighbourhood": ORANGE}
_TRACED = {"states": VERMILION, "mlp": PINK}


@draws(EditScores)
def edit_scores_figure(found: EditScores, *, title: str | None = None) -> Figure:
    """Draw the three shares that edits are scored by, before (hollow) and after (filled), with 95 % intervals; of several
    layers as curves, and beside them, where facts were traced too, what tracing says of the layers. Grey diamonds: ROME on
    GPT-2 XL, another model, as its paper gives them. Raises CircuitsError without facts."""
    if not found.outcomes:
        raise CircuitsError("there is no edited fact to draw")
    several = len(found.layers) > 1
    panels = 1 + (several and bool(found.kinds))
    figure = Figure(figsize=(4.6 * panels + 0.6 * several, 3.6), layout="constrained")
    grid = figure.subplots(1, panels, squeeze=False)[0]
    if several:
        _by_layer(grid[0], found)
        if panels > 1:
            _beside_tracing(grid[1], found)
    else:
        _before_and_after(grid[0], [(name, _pair(found, name)) for name in _SHARES])
    figure.suptitle(wrapped(title or found.summary, 60 * panels), fontsize=9.5, parse_math=False)
    return figure


def _pair(found: EditScores, name: str) -> tuple[Effect | None, Effect | None]:
    layer = found.layers[0]
    return found.score(name, layer, after=False), found.score(name, layer)


def _before_and_after(axes: Axes, rows: Sequence[tuple[str, tuple[Effect | None, Effect | None]]]) -> None:
    for place, (name, pair) in enumerate(rows):
        for shift, one, fill in zip((-0.12, 0.12), pair, ("none", _SHARES[name]), strict=True):
            if one is not None:
                _mark(axes, place + shift, one, _SHARES[name], fill)
        axes.plot([place + 0.3], [PUBLISHED[name]], "D", color=BASELINE, markersize=5)
    axes.set_xticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(-0.04, 1.04)
    axes.set_ylabel("share of prompts", fontsize=8.5)
    axes.plot([], [], "o", color=INK, markerfacecolor="none", label="before")
    axes.plot([], [], "o", color=INK, label="after")
    axes.plot([], [], "D", color=BASELINE, markersize=5, label="ROME on GPT-2 XL (paper)")
    axes.legend(fontsize=7.5, frameon=False, loc="center left")
    frame(axes)


def _mark(axes: Axes, place: float, one: Effect, colour: str, fill: str) -> None:
    reach = [[max(0.0, one.effect - one.low)], [max(0.0, one.high - one.effect)]]
    axes.errorbar([place], [one.effect], yerr=reach, fmt="o", color=colour, markerfacecolor=fill, markersize=6, **ERRORS)


def _curve(axes: Axes, layers: Sequence[int], found: Sequence[Effect | None], colour: str, label: str) -> None:
    there = [(layer, one) for layer, one in zip(layers, found, strict=True) if one is not None]
    if not there:
        return
    places, means = [layer for layer, _ in there], np.array([one.effect for _, one in there])
    reach = np.array([[one.effect - one.low, one.high - one.effect] for _, one in there]).clip(0).T
    axes.errorbar(places, means, yerr=reach, fmt="o-", color=colour, markersize=4, linewidth=1.4, label=label, **ERRORS)


def _by_layer(axes: Axes, found: EditScores) -> None:
    for name, colour in _SHARES.items():
        _curve(axes, found.layers, [found.score(name, layer) for layer in found.layers], colour, name)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("edited layer", fontsize=8.5)
    axes.set_ylabel("share of prompts, after", fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    frame(axes)


def _beside_tracing(axes: Axes, found: EditScores) -> None:
    _curve(axes, found.layers, [found.success(layer) for layer in found.layers], BLUE, "edit success")
    for kind in found.kinds:
        over = localisation(found, kind).over_layers
        said = f"tracing, {kind} (correlation of means {over:+.2f})"
        _curve(axes, found.layers, [found.traced(kind, layer) for layer in found.layers], _TRACED[kind], said)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("layer", fontsize=8.5)
    axes.set_ylabel("probability gained", fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=1)  # curves are everywhere
    frame(axes)


@draws(EditsTogether)
def edits_together_figure(found: EditsTogether, *, title: str | None = None) -> Figure:
    """Draw the three shares before (hollow), alone (half) and together (filled), with 95 % intervals over facts."""
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, (name, colour) in enumerate(_SHARES.items()):
        three = [found.score(name, together=False, after=False), found.score(name, together=False)]
        three.append(found.score(name, together=True))
        for shift, one, fill in zip((-0.2, 0.0, 0.2), three, ("none", "white", colour), strict=True):
            if one is not None:
                _mark(axes, place + shift, one, INK if fill == "none" else colour, fill)
    axes.set_xticks(range(len(_SHARES)), list(_SHARES), fontsize=9)
    axes.set_xlim(-0.5, len(_SHARES) - 0.5)
    axes.set_ylim(-0.04, 1.04)
    axes.set_ylabel("share of prompts", fontsize=8.5)
    axes.plot([], [], "o", color=INK, markerfacecolor="none", label="before")
    axes.plot([], [], "o", color=BLUE, markerfacecolor="white", label="edited alone")
    axes.plot([], [], "o", color=BLUE, label="edited together")
    axes.legend(fontsize=7.5, frameon=False, loc="center left")
    frame(axes)
    figure.suptitle(wrapped(title or found.summary, 66), fontsize=9.5, parse_math=False)
    return figure


@draws(WeightEdit)
def weight_edit_figure(edit: WeightEdit, *, title: str | None = None) -> Figure:
    """Draw how strongly each neuron's output weights are changed (norm of what is added to its row), a panel a layer."""
    figure = Figure(figsize=(6.4, 1.0 + 1.7 * len(edit.layers)), layout="constrained")
    grid = figure.subplots(len(edit.layers), 1, squeeze=False)[:, 0]
    for axes, layer in zip(grid, edit.layers, strict=True):
        norms = edit.delta(layer).norm(dim=1).sort(descending=True).values.cpu().numpy()
        axes.fill_between(np.arange(1, len(norms) + 1), norms, color=BLUE, alpha=0.75, linewidth=0)
        axes.set_ylabel(f"layer {layer}", fontsize=8.5)
        axes.set_xlim(1, len(norms))
        frame(axes)
    grid[-1].set_xlabel("neurons, the most changed first", fontsize=8.5)
    figure.suptitle(wrapped(title or f"{shortened(edit.name, 70)}: change of each neuron's output weights", 80), fontsize=9.5)
    return figure


@draws(KeyMoments)
def key_moments_figure(found: KeyMoments, *, title: str | None = None) -> Figure:
    """Draw the mean squares of neurons' activations, largest first."""
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    squares = found.moments.diagonal().sort(descending=True).values.cpu().numpy()
    axes.plot(np.arange(1, len(squares) + 1), np.maximum(squares, 1e-12), color=BLUE, linewidth=1.4)
    axes.set_yscale("log")
    axes.set_xlabel("neurons, the most active first", fontsize=8.5)
    axes.set_ylabel("mean square of activation", fontsize=8.5)
    frame(axes, grid="both")
    figure.suptitle(wrapped(title or found.summary, 70), fontsize=9.5, parse_math=False)
    return figure
