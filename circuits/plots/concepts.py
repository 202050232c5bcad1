"""Whether what a model says hangs on a concept, by layer, and what moving the concept's direction does."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from circuits.concepts import ConceptCurve, ConceptTest
from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, FAINT, INK, ORANGE, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.probes.results import SURE

_MOST_NAMES = 32
MOST = 48
"""Places that are drawn."""


@draws(ConceptTest)
def concept_figure(found: ConceptTest, *, title: str | None = None) -> Figure:
    """Draw the slope along the concept's direction at each place with its 95 % interval over prompts, filled where the concept
    counts; below, the share of prompts with a positive slope beside that of random directions, and how well examples are told
    apart. To the right the metric when the direction is moved at the place where the concept counts most."""
    curve = found.curves[0] if found.curves else None
    found, left = _strongest(found)
    figure = Figure(figsize=(9.6 if curve else 6.4, 4.8), layout="constrained")
    grid = figure.subplot_mosaic("ac;bc" if curve else "a;b", width_ratios=[1.5, 1] if curve else None)
    at = np.arange(len(found.sites))
    slope, low, high = (getattr(found, name).numpy() for name in ("slope", "low", "high"))
    bars: dict[str, Any] = {"color": BLUE, "linestyle": "none", "elinewidth": 0.8, "capsize": 1.5}
    grid["a"].errorbar(at, slope, yerr=[slope - low, high - slope], **bars)
    runs = _runs(found.sites)
    for run in runs:
        grid["a"].plot(at[run], slope[run], color=BLUE, linewidth=1.2)
    sure = np.array([site in found.significant for site in found.sites])
    for there, face in ((sure, BLUE), (~sure, "white")):
        grid["a"].plot(at[there], slope[there], "o", color=BLUE, markerfacecolor=face, markersize=4)
    grid["a"].axhline(0, color=INK, linewidth=0.8)
    grid["a"].set_ylabel("change of the metric\na step (filled: it counts)", fontsize=8.5)
    columns = (("score", "spread", VERMILION, "score"), ("null", "null_spread", BASELINE, "score of random directions"))
    for name, spread, colour, label in columns:
        middle, width = getattr(found, name).numpy(), getattr(found, spread).numpy()
        for number, run in enumerate(runs):
            named: dict[str, Any] = {} if number else {"label": label}
            grid["b"].plot(at[run], middle[run], color=colour, linewidth=1.2, marker="o", markersize=3, **named)
            ends = ((middle + sign * width).clip(0, 1)[run] for sign in (-1, 1))
            grid["b"].fill_between(at[run], *ends, color=colour, alpha=0.15, linewidth=0)
    for number, run in enumerate(runs):
        named = {} if number else {"label": "examples told right"}
        grid["b"].plot(at[run], found.accuracy.numpy()[run], color=ORANGE, linewidth=1.2, linestyle="--", **named)
    grid["b"].set_ylim(-0.05, 1.05)
    grid["b"].set_ylabel("share", fontsize=8.5)
    grid["b"].legend(fontsize=7, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    step = -(-len(found.sites) // _MOST_NAMES)
    for axes in (grid["a"], grid["b"]):
        axes.set_xticks(at[::step], found.sites[::step], rotation=45, ha="right", fontsize=7, parse_math=False)
        frame(axes)
    if curve:
        _curve(grid["c"], curve)
    heading = title or f"{shortened(found.concept, 30)} in {shortened(found.model, 30)}: {shortened(found.target, 50)}"
    heading += f" ({len(found.sites)} of {len(found.sites) + left} places, by slope)" if left else ""
    figure.suptitle(wrapped(heading, 90), fontsize=10.5, parse_math=False)
    return figure


def _runs(sites: tuple[str, ...]) -> list[slice]:
    """Places of one kind that stand next to each other: a line goes through them."""
    kinds = [site.partition(".")[0] if "." in site else site.rstrip("0123456789") for site in sites]
    starts = [at for at, kind in enumerate(kinds) if at == 0 or kind != kinds[at - 1]]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(sites)], strict=True)]


def _strongest(found: ConceptTest) -> tuple[ConceptTest, int]:
    """The places of the largest slopes, in their order, as many as can be told apart in a picture; and how many were left."""
    if len(found.sites) <= MOST:
        return found, 0
    at = found.slope.abs().argsort(descending=True)[:MOST].sort().values
    columns = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    some = {name: value[at] for name, value in columns.items() if isinstance(value, Tensor)}
    sites = tuple(found.sites[place] for place in at.tolist())
    return dataclasses.replace(found, sites=sites, curves=(), **some), len(found.sites) - MOST


def _curve(axes: Axes, curve: ConceptCurve) -> None:
    """The metric by steps along the direction, and where it is erased."""
    reach = SURE * np.array(curve.errors)
    axes.errorbar(curve.steps, curve.values, yerr=reach, color=BLUE, marker="o", markersize=4, linewidth=1.3, label="concept")
    axes.plot(curve.steps, curve.random, color=BASELINE, marker="s", markersize=3, linewidth=1.1, label="random directions")
    if curve.random_spread:
        middle, width = np.array(curve.random), np.array(curve.random_spread)
        axes.fill_between(curve.steps, middle - width, middle + width, color=BASELINE, alpha=0.2, linewidth=0)
    axes.axhline(curve.erased, color=VERMILION, linestyle="--", linewidth=1.1, label="concept erased")
    axes.axhline(curve.random_erased, color=FAINT, linestyle=":", linewidth=1.1, label="random erased")
    axes.set_xlabel(f"steps along the direction at {curve.site}", fontsize=8.5)
    axes.set_ylabel("metric", fontsize=8.5)
    axes.legend(fontsize=7, frameon=False)
    frame(axes)
