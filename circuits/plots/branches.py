"""Heads and neurons as branches: which classes of words heads look at, and which unit takes whose place."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.concepts import Equivariance, Specialisation
from circuits.concepts.branches.results import BRANCHES
from circuits.files.pictures import draws
from circuits.plots.style import BAND, BASELINE, BLUE, INK, ORANGE, SIGNED, VERMILION, colour_bar, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes.results import SURE

_MOST_HEADS, _MOST_CLASSES = 32, 14


@draws(Specialisation)
def specialisation_figure(found: Specialisation, *, title: str | None = None) -> Figure:
    """Draw the profiles of the heads that differ most, as differences from the mean of all heads, marked where sure; and how
    much head and layer tell of the class, beside what they tell of shuffled classes."""
    heads = found.divergence.shape[1]
    order = found.divergence.flatten().argsort(descending=True, stable=True)[:_MOST_HEADS].tolist()
    chosen = sorted(order)
    classes = found.classes[:_MOST_CLASSES]
    profile = found.profile.flatten(0, 1)
    apart = (profile - profile.mean(dim=0))[chosen][:, : len(classes)].numpy()
    figure = Figure(figsize=(9.6, max(3.6, 0.19 * len(chosen) + 1.6)), layout="constrained")
    grid = figure.subplot_mosaic("ab", width_ratios=[2.2, 1])
    reach = float(np.abs(apart).max()) or 1.0
    image = grid["a"].imshow(apart, cmap=SIGNED, vmin=-reach, vmax=reach, aspect="auto")
    sure = set(found.specialised)
    names = [f"a{one // heads}.h{one % heads}" for one in chosen]
    grid["a"].set_yticks(range(len(names)), [f"{name} *" if name in sure else name for name in names], fontsize=7)
    grid["a"].set_xticks(
        range(len(classes)), [shortened(one, 12) for one in classes], rotation=60, fontsize=7.5, parse_math=False
    )
    colour_bar(grid["a"], image, "share of attention above that of all heads")
    grid["a"].set_title("* surely other than the rest", fontsize=8.5)
    _beside_chance(grid["b"], found)
    figure.suptitle(wrapped(title or found.summary, 110), fontsize=9.5, parse_math=False)
    return figure


def _beside_chance(axes: Axes, found: Specialisation) -> None:
    """What head and layer tell of the class, with intervals, beside the draws of the null."""
    for at in range(len(BRANCHES)):
        null = found.null[at].numpy()
        axes.plot(np.full(len(null), at) + np.linspace(-0.18, 0.18, len(null)), null, ".", color=BAND, markersize=3)
        own, error = float(found.information[at]), SURE * float(found.errors[at])
        axes.errorbar(at, own, yerr=error, fmt="o", color=BLUE, ecolor=INK, capsize=3, markersize=6)
        axes.annotate(f"p = {float(found.chance[at]):.2g}", (at, own), xytext=(7, -3), textcoords="offset points", fontsize=7.5)
    grouped = found.grouped.numpy()
    axes.plot(1 + np.linspace(-0.18, 0.18, len(grouped)), grouped, ".", color=VERMILION, alpha=0.4, markersize=3)
    axes.plot([], [], "o", color=BLUE, label="measured")
    axes.plot([], [], ".", color=BAND, label="classes shuffled")
    axes.plot([], [], ".", color=VERMILION, label="heads over layers")
    axes.set_xticks(range(len(BRANCHES)), BRANCHES)
    axes.set(xlim=(-0.5, len(BRANCHES) - 0.3), ylabel=f"information on {shortened(found.column, 20)}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    frame(axes)


@draws(Equivariance)
def equivariance_figure(found: Equivariance, *, title: str | None = None) -> Figure:
    """Draw the gap of each layer along its matching and where units stay, beside random matchings and random tokens; and the
    matching of the layer that gains most by it."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    grid = figure.subplot_mosaic("ab", width_ratios=[1.6, 1])
    at = np.arange(len(found.layers))
    low, high = np.quantile(found.random.numpy(), (0.025, 0.975), axis=1)
    grid["a"].fill_between(at, low, high, color=BAND, alpha=0.6, linewidth=0, label="random matchings, 95 %", step=None)
    if found.relabelled.shape[1]:
        middle, least = found.relabelled.mean(dim=1).numpy(), found.relabelled.min(dim=1).values.numpy()
        most = found.relabelled.max(dim=1).values.numpy()
        grid["a"].errorbar(
            at,
            middle,
            yerr=[middle - least, most - middle],
            fmt="s",
            color=ORANGE,
            markersize=4,
            capsize=2,
            label="random tokens",
        )
    grid["a"].plot(at, found.gaps.numpy(), "o-", color=BLUE, markersize=4, linewidth=1.3, label="best matching")
    grid["a"].plot(at, found.stays.numpy(), "o:", color=INK, markersize=7, markerfacecolor="none", label="units stay")
    step = -(-len(at) // 16)
    grid["a"].set_xticks(at[::step], [str(layer) for layer in found.layers[::step]])
    grid["a"].set(xlabel="layer", ylabel=f"gap of {found.units}")
    grid["a"].set_ylim(bottom=0)
    grid["a"].legend(fontsize=7.5, frameon=False)
    frame(grid["a"])
    row = int(found.gains[:, 0].argmax())
    _matching(grid["b"], found, row)
    figure.suptitle(wrapped(title or found.summary, 110), fontsize=10, parse_math=False)
    return figure


def _matching(axes: Axes, found: Equivariance, row: int) -> None:
    """Who takes whose place in a layer; those on the diagonal stay."""
    partners = found.matching[row].numpy()
    stay = partners == np.arange(len(partners))
    size = 5 if len(partners) <= 64 else 1.5
    axes.plot(np.arange(len(partners))[stay], partners[stay], "o", color=BASELINE, markersize=size, label="stays")
    axes.plot(np.arange(len(partners))[~stay], partners[~stay], "o", color=VERMILION, markersize=size, label="moves")
    axes.set(xlabel=f"{found.units[:-1]} on exchanged prompts", ylabel="its partner before", aspect="equal")
    said = ", where matching gains most" if float(found.gains[row, 0]) > 0 else ": no exchange gains"
    axes.set_title(f"layer {found.layers[row]}{said}", fontsize=8.5)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    frame(axes, grid="both")
