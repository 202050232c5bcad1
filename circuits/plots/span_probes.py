"""Edge probes by place, and what a mix of layers weighs and gains."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BAND, BLUE, ERRORS, FAINT, GREEN, INK, ORANGE, SKY, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes import ScalarMix, SpanProbes
from circuits.probes.results import SURE

_LINES = {"majority": "--", "same words": ":"}
_MOST_NAMES = 16


@draws(SpanProbes)
def span_probes_figure(probes: SpanProbes, *, title: str | None = None) -> Figure:
    """Draw the F1 at each place with 95 % intervals, beside random weights and what needs no model; to the right, where streams
    were mixed, the weight of each and what F1 gains when the probe sees one layer more."""
    figure = Figure(figsize=(8.6 if probes.mix else 5.6, 3.8), layout="constrained")
    grid = np.atleast_1d(figure.subplots(1, 2 if probes.mix else 1))
    axes, at = grid[0], np.arange(len(probes.sites))
    _curve(axes, at, probes.f1.numpy(), probes.errors.numpy(), BLUE, "o", "probe")
    if probes.random:
        _curve(axes, at, np.array(probes.random), np.array(probes.random_errors), ORANGE, "s", "random weights")
    for name, (share, _) in probes.baselines.items():
        axes.axhline(share, color=FAINT, linestyle=_LINES.get(name, "-."), linewidth=1.2, label=name)
    axes.set_ylabel("micro F1, spans of held-out sentences", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False)
    frame(axes)
    step = -(-len(probes.sites) // _MOST_NAMES)
    axes.set_xticks(at[::step], probes.sites[::step], rotation=45, ha="right", fontsize=7, parse_math=False)
    if probes.mix:
        _mix(grid[1], probes.mix)
    heading = title or f"Spans ({shortened(probes.asked, 30)}) read off {shortened(probes.model, 40)}"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


def _mix(axes: Axes, mix: ScalarMix) -> None:
    layers = np.array(mix.layers)
    gains = np.diff(np.array(mix.cumulative), prepend=np.nan)
    width = 0.4 * float(np.diff(np.sort(layers)).min())
    axes.bar(layers - width / 2, mix.weights, width=width, color=BLUE, label="weight in the mix")
    axes.bar(layers + width / 2, gains, width=width, color=GREEN, label="F1 gained by seeing it too")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axvline(mix.centre, color=SKY, linestyle="--", linewidth=1.2, label=f"centre of gravity {mix.centre:.1f}")
    if mix.expected is not None:
        axes.axvspan(mix.expected.low, mix.expected.high, color=BAND, alpha=0.5, linewidth=0)
        axes.axvline(mix.expected.effect, color=INK, linestyle=":", label=f"expected layer {mix.expected.effect:.1f}")
    axes.set_xlabel("residual stream before layer", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    frame(axes)


def _curve(axes: Axes, at: np.ndarray, means: np.ndarray, errors: np.ndarray, colour: str, marker: str, label: str) -> None:
    style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.3, **ERRORS, "ecolor": colour}
    axes.errorbar(at, means, yerr=SURE * errors, label=label, **style)
