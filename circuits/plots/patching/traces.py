"""What causal tracing found: heatmaps of one prompt, and averages by role over many."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.patching.tracing.results import ROLES, Trace, Traces
from circuits.plots.style import BASELINE, BLUE, CAPTION, GREEN, ORANGE, SKY, VERMILION
from circuits.plots.text import shortened, shown_token, wrapped

_COLUMNS = 3
_MAPS = {
    "states": "Purples",
    "mlp": "Greens",
    "attention": "Reds",
    "states_severed_mlp": "Greens",
    "states_severed_attention": "Reds",
}
"""Colours of the paper's figure 1; severed states as in its figure 3."""
_TITLES = {
    "states": "states (residual stream)",
    "mlp": "MLP outputs",
    "attention": "attention outputs",
    "states_severed_mlp": "states, later MLPs severed",
    "states_severed_attention": "states, later attention severed",
}
_ROLE_COLOURS = (ORANGE, SKY, VERMILION, GREEN, BASELINE, BLUE)
_STEPS, _GREY, _MARKED = 512, 0.005, 0.02
"""Colours of a scale, and the shares of it from which on a negative effect is grey, and has a minus."""


@draws(Trace)
def trace_figure(trace: Trace) -> Figure:
    """Draw one heatmap a kind of site: tokens downwards, the subject's with a star, layers to the right.

    Colour is the indirect effect in probability, palest at 0, on a scale of its own for each kind. Negative effects, where
    the clean value makes the answer less likely, are grey, from 2 % of the scale on with a minus. Raises CircuitsError for
    kinds that it does not know.
    """
    kinds = _kinds(trace)
    columns = min(_COLUMNS, len(kinds))
    rows, layers = -(-len(kinds) // columns), trace.effects(kinds[0]).shape[1]
    width = min(max(0.16 * layers, 2.3), 5.5) + 0.9
    height = min(max(0.2 * len(trace.tokens), 1.4), 14.0)
    figure = Figure(figsize=(max(columns * width + 1.0, 5.0), rows * (height + 0.75) + 1.0), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(kinds) :]:
        axes.set_axis_off()
    for place, kind in enumerate(kinds):
        axes = grid.flat[place]
        bar = _heatmap(axes, kind, trace, bar_aspect=9 * height)
        if place % columns == columns - 1 or place == len(kinds) - 1:
            bar.set_label("indirect effect (probability)", fontsize=7.5)
        axes.set_title(_TITLES[kind], fontsize=9)
        axes.set_xlabel(_layer_label(kind, trace), fontsize=8)
        _name_tokens(axes, trace, height, named=place % columns == 0)
    heading, caption = _texts(trace, int(figure.get_figwidth() * 11))
    figure.suptitle(heading, fontsize=10, parse_math=False)
    figure.supxlabel(caption, fontsize=7.5, color=CAPTION, parse_math=False)
    return figure


def _kinds(trace: Trace) -> list[str]:
    unknown = [kind for kind in trace.restored if kind not in _MAPS]
    if unknown or not trace.restored:
        raise CircuitsError(f"a trace of {', '.join(map(repr, unknown)) or 'nothing'}: expected some of {', '.join(_MAPS)}")
    return list(trace.restored)


def _texts(trace: Trace, letters: int) -> tuple[str, str]:
    """The title, and what stands below, for a picture as wide as so many letters of the title."""
    answer = shortened(" ".join(trace.answer.split()), 24) or "∅"
    chances = f"p({answer}): {trace.clean:.1%} clean, {float(trace.corrupted.mean()):.1%} corrupted"
    corruption = f"noise of sd {trace.noise:.3g} on *, {len(trace.corrupted)} draws" if trace.noise else "* replaced"
    caption = (
        f"{trace.model}; {corruption}. Colour: rise of p when the clean value is put back at one token (scales differ); "
        "grey: it falls (−: by 2 % of the scale or more)."
    )
    heading = wrapped(" ".join(trace.prompt.split()), letters, lines=2)
    return f"{heading}\n{chances}", wrapped(caption, int(letters * 1.5), lines=4)


def _layer_label(kind: str, trace: Trace) -> str:
    window = min(trace.window, trace.effects(kind).shape[1]) if kind in ("mlp", "attention") else 1
    return "restored layer" if window == 1 else f"centre of {window} restored layers"


def _heatmap(axes: Axes, kind: str, trace: Trace, *, bar_aspect: float) -> Colorbar:
    """Draw effects from their least (at most 0) to their largest (at least 2 % of the total effect); returns the bar."""
    effects = trace.effects(kind).numpy()
    low = min(0.0, float(effects.min()))
    high = max(float(effects.max()), 0.02 * abs(trace.total_effect), low + 1e-6)
    levels = low + (high - low) * (np.arange(_STEPS) + 0.5) / _STEPS
    share = np.abs(levels) / max(high, -low)
    fall = levels < -_GREY * max(high, -low)
    above, below = matplotlib.colormaps[_MAPS[kind]](share), matplotlib.colormaps["Greys"](0.08 + 0.7 * share)
    scale = ListedColormap(np.where(fall[:, None], below, above))
    image = axes.imshow(effects, aspect="auto", interpolation="nearest", cmap=scale, vmin=low, vmax=high)
    tokens, layers = np.nonzero(effects < -_MARKED * max(high, -low))
    axes.scatter(layers, tokens, marker="_", s=14, linewidths=0.9, color="black")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=bar_aspect)
    ticks = _bar_ticks(low, high)
    bar.set_ticks(ticks, labels=[f"{tick:+.2g}" if tick else "0" for tick in ticks])
    bar.ax.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.tick_params(labelsize=7)
    return bar


def _bar_ticks(low: float, high: float) -> list[float]:
    """Both ends, zero, and round numbers that are not too near to them."""
    ends = [0.0, *(end for end in (low, high) if abs(end) > 0.06 * (high - low))]
    between = [tick for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low < tick < high]
    return sorted([*ends, *(tick for tick in between if min(abs(tick - end) for end in ends) > 0.08 * (high - low))])


def _name_tokens(axes: Axes, trace: Trace, height: float, *, named: bool) -> None:
    """Label tokens, as many as fit below each other, where the panel is the first of its row."""
    first, last = trace.subject
    labels = [shown_token(token, longest=16) + "*" * (first <= at <= last) for at, token in enumerate(trace.tokens)]
    step = -(-len(labels) * 9 // int(72 * height))
    places = range(0, len(labels), step)
    shown = [labels[place] for place in places] if named else [""] * len(places)
    axes.set_yticks(places, shown, fontsize=7.5 if step == 1 else 6.5, parse_math=False)
    axes.tick_params(axis="y", length=1.5, pad=1)


@draws(Traces)
def role_curves_figure(traces: Traces) -> Figure:
    """Draw average indirect effects over layers, a panel a kind and a curve a role, shaded by the 95 % interval over facts.

    Raises CircuitsError where no fact was traced.
    """
    if not traces.traces:
        raise CircuitsError("no fact was traced, so there is nothing to average")
    kinds = _kinds(traces.traces[0])
    columns = min(_COLUMNS, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(max(3.1 * columns + 0.6, 6.5), 2.5 * rows + 1.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(kinds) :]:
        axes.set_axis_off()
    for place, kind in enumerate(kinds):
        _curves(grid.flat[place], traces, kind)
        if place % columns == 0:
            grid.flat[place].set_ylabel("average indirect effect\n(probability)", fontsize=8)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
    count, (effect, half) = len(traces.traces), traces.average_total_effect()
    sure = f" ± {half:.3f}; shaded: 95 % intervals over facts" if count > 1 else "; one fact gives no interval"
    heading = f"{traces.traces[0].model}, {count} fact{'s' * (count > 1)}: average total effect {effect:.3f}{sure}"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 11), lines=2), fontsize=10, parse_math=False)
    return figure


def _curves(axes: Axes, traces: Traces, kind: str) -> None:
    for role, (mean, half, count) in traces.average_by_role(kind).items():
        colour, layers = _ROLE_COLOURS[ROLES.index(role)], np.arange(len(mean))
        marker = "o" if len(layers) <= 12 else None
        axes.plot(layers, mean, color=colour, linewidth=1.4, marker=marker, markersize=3, label=f"{role} (n = {count})")
        axes.fill_between(layers, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color=CAPTION, linewidth=0.6)
    axes.set_title(_TITLES[kind], fontsize=9)
    axes.set_xlabel(_layer_label(kind, traces.traces[0]), fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.tick_params(labelsize=7)
