"""Probes by place, beside their baselines, and what erasing what they read costs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, FAINT, GREEN, INK, ORANGE, PINK, SKY, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes import CoreferenceProbes, Probes, PropertyUse, TreeProbes
from circuits.probes.results import KINDS, PARTS, SURE

_WORDS = {"majority": "majority by word", "neighbours": "window of words"}
_CHANGES = {"erased": (VERMILION, "o"), "moved": (BLUE, "s"), "kept": (SKY, "^"), "random": (BASELINE, "D")}
_TOKENS = {"needed": "tokens after words that have it", "others": "all other tokens"}
_MOST_NAMES = 16


@draws(Probes)
def probes_figure(probes: Probes, *, title: str | None = None) -> Figure:
    """Draw the accuracy at each place with 95 % intervals, with random weights, the control task and the baselines that need no
    model; below, the bits of the online code a word."""
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    at = np.arange(len(probes.sites))
    _curve(above, at, probes.accuracy.numpy(), probes.errors.numpy(), BLUE, "o", "probe")
    if probes.random:
        _curve(above, at, np.array(probes.random), np.array(probes.random_errors), ORANGE, "s", "random weights")
    above.plot(at, probes.control.numpy(), color=PINK, marker="^", markersize=4, linewidth=1.2, label="control task")
    for (name, (share, _)), style in zip(probes.baselines.items(), ("--", ":"), strict=False):
        above.axhline(share, color=FAINT, linestyle=style, linewidth=1.2, label=_WORDS.get(name, name))
    for linear, marker, label in ((False, "*", "so many hidden units"), (True, "_", "linear, of this rank")):
        tried = [(probes.sites.index(one.site), one) for one in probes.hidden if one.linear == linear]
        if tried:
            style = {"color": GREEN, "marker": marker, "markersize": 9, "linestyle": "none"}
            above.plot([place for place, _ in tried], [one.accuracy for _, one in tried], label=label, **style)
        for place, one in tried:
            how = {"xytext": (-7, 0) if linear else (7, 0), "ha": "right" if linear else "left", "va": "center"}
            above.annotate(f"{one.hidden}", (place, one.accuracy), textcoords="offset points", fontsize=7, color=GREEN, **how)
    above.set_ylabel("accuracy, words of held-out sentences", fontsize=8.5)
    above.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    below.plot(at, probes.bits.numpy(), color=BLUE, marker="o", markersize=3.5, linewidth=1.2)
    below.axhline(np.log2(len(probes.classes)), color=FAINT, linestyle="--", linewidth=1.0)
    below.set_ylabel("bits a word to tell\nlabels (online code)", fontsize=8.5)
    for axes in (above, below):
        frame(axes)
    _names(below, probes.sites)
    heading = title or f"{shortened(probes.column, 30)} read off {shortened(probes.model, 40)}"
    figure.suptitle(wrapped(heading, 80), fontsize=10.5, parse_math=False)
    return figure


@draws(PropertyUse)
def property_use_figure(use: PropertyUse, *, title: str | None = None) -> Figure:
    """Draw how much the loss of the next token rises at each place when what a probe reads is erased, moved to another class or
    kept at the word's own, and when as many random directions are erased, with 95 % intervals. Above 0 = it was used."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    grid = figure.subplots(1, len(PARTS), sharey=True)
    at = np.arange(len(use.sites))
    for part, (axes, name) in enumerate(zip(grid, PARTS, strict=True)):
        for kind, label in enumerate(KINDS):
            colour, marker = _CHANGES[label]
            _curve(axes, at, use.lost[:, kind, part].numpy(), use.errors[:, kind, part].numpy(), colour, marker, label)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(f"{_TOKENS[name]} ({int(use.counts[part]):,})", fontsize=9)
        frame(axes)
        _names(axes, use.sites)
    grid[0].set_ylabel("rise of the loss, nats a token", fontsize=8.5)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    heading = title or f"{shortened(use.model, 40)} without what probes of {shortened(use.column, 30)} read"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


@draws(TreeProbes)
def tree_probes_figure(probes: TreeProbes, *, title: str | None = None) -> Figure:
    """Draw the share of relations that structural probes find at each place with 95 % intervals, beside random weights and each
    word attached to the next one; to the right the rank correlations of distances and of depths, and how often the root is."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = np.arange(len(probes.sites))
    _curve(left, at, probes.uuas.numpy(), probes.errors.numpy(), BLUE, "o", "probe")
    if probes.random:
        _curve(left, at, np.array(probes.random), np.array(probes.random_errors), ORANGE, "s", "random weights")
    left.axhline(probes.chain["uuas"], color=FAINT, linestyle="--", linewidth=1.2, label="next word")
    left.set_ylabel("UUAS, relations of held-out sentences", fontsize=8.5)
    _curve(right, at, probes.root.numpy(), probes.root_errors.numpy(), GREEN, "^", "root found")
    for values, colour, label in ((probes.distance, BLUE, "DSpr, distances"), (probes.depth, PINK, "NSpr, depths")):
        right.plot(at, values.numpy(), color=colour, marker="o", markersize=3.5, linewidth=1.3, label=label)
    right.axhline(probes.chain["distance"], color=BLUE, linestyle=":", linewidth=1.0, label="DSpr, order of words")
    for axes in (left, right):
        frame(axes)
        _names(axes, probes.sites)
        axes.legend(fontsize=7.5, frameon=False)
    heading = title or f"Dependency trees read off {shortened(probes.model, 40)}"
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


@draws(CoreferenceProbes)
def coreference_figure(probes: CoreferenceProbes, *, title: str | None = None) -> Figure:
    """Draw how often a pronoun points to an antecedent at each place with 95 % intervals, beside random weights, the nearest
    noun and a candidate drawn at random."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes, at = figure.subplots(), np.arange(len(probes.sites))
    _curve(axes, at, probes.accuracy.numpy(), probes.errors.numpy(), BLUE, "o", "pointer")
    if probes.random:
        _curve(axes, at, np.array(probes.random), np.array(probes.random_errors), ORANGE, "s", "random weights")
    for (name, (share, error)), style in zip(probes.baselines.items(), ("--", ":"), strict=False):
        axes.axhline(share, color=FAINT, linestyle=style, linewidth=1.2, label=name)
        axes.axhspan(share - SURE * error, share + SURE * error, color=FAINT, alpha=0.12, linewidth=0)
    axes.set_ylabel("pronouns that point to an antecedent", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False)
    frame(axes)
    _names(axes, probes.sites)
    heading = title or f"What pronouns refer to, read off {shortened(probes.model, 40)}"
    figure.suptitle(wrapped(heading, 70), fontsize=10.5, parse_math=False)
    return figure


def _curve(axes: Axes, at: np.ndarray, means: np.ndarray, errors: np.ndarray, colour: str, marker: str, label: str) -> None:
    style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.3, "elinewidth": 0.8, "capsize": 1.5}
    axes.errorbar(at, means, yerr=SURE * errors, label=label, **style)


def _names(axes: Axes, names: tuple[str, ...]) -> None:
    """Names of places below, as many as can be read."""
    step = -(-len(names) // _MOST_NAMES)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=45, ha="right", fontsize=7, parse_math=False)
