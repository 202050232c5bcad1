"""Circuits that were judged: faithfulness over sizes, scores against a known circuit, verdicts."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.plots.patching.effects import MOST_BARS
from circuits.plots.style import BAND, BLUE, GREEN, GRID, INK, NEGATIVE, NEUTRAL, ORANGE, PINK, POSITIVE, SKY, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.search.judging.curves import Curve
from circuits.search.judging.roc import Roc
from circuits.search.judging.verdict import Verdict
from circuits.statistics import Effect

_STYLES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PINK, "D"), (ORANGE, "v"), (SKY, "P"))
"""Colours that are told apart by colour-blind eyes, each with a marker of its own."""
_GREY, _DARK = NEUTRAL, INK
_LEAST = 0.01
"""Changes of faithfulness below this are drawn in grey: the node is not needed."""
_LINES = ("-", "--", ":")


def curve_figure(curves: Mapping[str, Curve], title: str | None = None) -> Figure:
    """Draw faithfulness over the share of edges (logarithmic) with 95 % intervals, a line a curve.

    Grey: random circuits, their range and their mean. The legend gives the area under each curve (CPR, higher is
    better) and that between it and 1 (CMD, lower is better). Raises CircuitsError without a curve.
    """
    if not curves:
        raise CircuitsError("there is no curve to draw")
    figure = Figure(figsize=(7.0, 3.5 + 0.19 * (len(curves) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color=_DARK, linewidth=0.9, linestyle="--")
    axes.axhline(0, color=_DARK, linewidth=0.6)
    _random_bands(axes, list(curves.values()))
    for place, (name, curve) in enumerate(curves.items()):
        label = f"{shortened(name, 40)}: CPR {curve.cpr:.3f}, CMD {curve.cmd:.3f}"
        style = {**_style(place), "markersize": 4.5, "linewidth": 1.6, "elinewidth": 1.0, "capsize": 2.5, "zorder": 3}
        means, reach = _with_reach(curve.faithfulness)
        axes.errorbar(curve.shares, means, yerr=reach, label=_plain(label), **style)
    first = next(iter(curves.values()))
    _share_axis(axes, first)
    _frame(axes, grid="both")
    axes.set_ylabel("faithfulness\n(1 = as the whole model)", fontsize=9)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    prompts = first.metadata.get("prompts")
    about = f", {prompts} prompts" if isinstance(prompts, int) else ""
    model = first.metadata.get("model")
    of = f" of {shortened(str(model), 40)}" if model else ""
    _head(figure, title or f"Faithfulness of circuits{of} by size{about}; bars: 95\N{NO-BREAK SPACE}% intervals")
    return figure


@draws(Curve)
def _curve(curve: Curve) -> Figure:
    return curve_figure({"circuit": curve})


def _random_bands(axes: Axes, curves: list[Curve]) -> None:
    """The range and mean of random circuits, those of curves over the same sizes together."""
    pools: dict[tuple[float, ...], list[torch.Tensor]] = {}
    for curve in curves:
        if len(curve.null):
            pools.setdefault(curve.shares, []).append(curve.null)
    for place, (shares, nulls) in enumerate(pools.items()):
        null = torch.cat(nulls).numpy()
        first = place == 0
        few = {curve.metadata.get("random_prompts") for curve in curves}
        (number,) = few if len(few) == 1 else (None,)
        where = f" on {number} prompts" if isinstance(number, int) else ""
        names = {curve.random_name for curve in curves}
        name = names.pop() if len(names) == 1 else "random circuits"
        words = f"{len(null)} {name} of each size{where}: " if len(pools) == 1 else f"{name}: "
        band = axes.fill_between(shares, null.min(axis=0), null.max(axis=0), color=BAND, linewidth=0.8, zorder=1)
        band.set_edgecolor("#b0b0b0")
        (line,) = axes.plot(shares, null.mean(axis=0), color=_GREY, linewidth=1.2, zorder=2)
        if first:
            band.set_label(f"{words}range")
            line.set_label(f"{words}mean")


def _share_axis(axes: Axes, curve: Curve) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    total = round(curve.edges[-1] / curve.shares[-1])
    axes.set_xlabel(f"share of the graph's {total:,} edges", fontsize=9)


def roc_figure(rocs: Mapping[str, Roc], title: str | None = None) -> Figure:
    """Draw how well scores tell the members of a known circuit from the rest: true over false positives, a line a set of
    scores; the diagonal is chance. Raises CircuitsError without any."""
    if not rocs:
        raise CircuitsError("there is no ROC curve to draw")
    figure = Figure(figsize=(4.9, 4.7 + 0.19 * len(rocs)), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1.0, linestyle="--", label="chance")
    for place, (name, one) in enumerate(rocs.items()):
        label = f"{shortened(name, 26)}: AUROC {one.auroc:.3f}, precision {one.precision:.2f} at {one.members}"
        style = {"color": _style(place)["color"], "linestyle": _LINES[place % len(_LINES)], "linewidth": 1.8}
        axes.plot(one.false_positives.numpy(), one.true_positives.numpy(), label=_plain(label), **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    first = next(iter(rocs.values()))
    same = all((one.members, one.others) == (first.members, first.others) for one in rocs.values())
    members, others = (f"{first.members:,} ", f"{first.others:,} ") if same else ("", "")
    axes.set_xlabel(f"share of the {others}others taken", fontsize=9)
    axes.set_ylabel(f"share of the {members}members found", fontsize=9)
    _frame(axes, grid="both")
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    _head(figure, title or "Scores against the known circuit")
    return figure


@draws(Roc)
def _roc(roc: Roc) -> Figure:
    return roc_figure({"scores": roc})


@draws(Verdict)
def verdict_figure(verdict: Verdict, title: str | None = None) -> Figure:
    """Draw a verdict in three panels: faithfulness with its 95 % interval beside random circuits of as many edges; circuit
    against model where sets of nodes are taken out of both (complete: on the diagonal); the need of each node, the 20
    largest (negative = faithfulness falls when the node goes). What was not measured has no panel."""
    panels = [(_faithfulness_panel, 1.0)]
    panels += [(_completeness_panel, 1.15)] if verdict.completeness else []
    panels += [(_minimality_panel, 1.25)] if verdict.minimality else []
    bars = min(len(verdict.minimality), MOST_BARS)
    widths = [width for _, width in panels]
    figure = Figure(figsize=(1.0 + 3.2 * sum(widths), max(3.8, 0.19 * bars + 1.7)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)  # type: ignore[union-attr]
    for (draw, _), axes in zip(panels, figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0], strict=True):
        draw(axes, verdict)
    model = verdict.metadata.get("model")
    of = f" of {shortened(str(model), 40)}" if model else ""
    share = f"{100 * verdict.share:.2g} % of all"
    _head(figure, title or f"Verdict on {verdict.edges:,} edges{of} ({share}), {verdict.prompts} prompts")
    return figure


def _faithfulness_panel(axes: Axes, verdict: Verdict) -> None:
    axes.axhline(1, color=_DARK, linewidth=0.9, linestyle="--")
    axes.axhline(0, color=_DARK, linewidth=0.6)
    labels = ["circuit"]
    _point(axes, 0, verdict.faithfulness, POSITIVE, "o")
    if verdict.searched_on is not None:
        labels = ["circuit,\nheld out", "circuit,\nsearched on"]
        _point(axes, 1, verdict.searched_on, SKY, "s")
    if verdict.null:
        null, place = np.array(verdict.null), len(labels)
        spread = 0.5 * ((np.arange(len(null)) * 0.618) % 1 - 0.5)
        axes.scatter(place + spread, null, s=9, color=_GREY, alpha=0.7, linewidth=0, zorder=3)
        few = verdict.metadata.get("random_prompts")
        where = f",\n{few} prompts" if isinstance(few, int) else ""
        labels.append(f"{len(null)} random\ncircuit{'s' if len(null) > 1 else ''}{where}")
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    chance = f" (p = {verdict.p_value:.2g})" if verdict.p_value is not None else ""
    _frame(axes, grid="y", title=f"faithful: {verdict.faithfulness.effect:.2f}{chance}")
    axes.set_ylabel("faithfulness (1 = as the whole model)", fontsize=8.5)


def _point(axes: Axes, place: int, effect: Effect, colour: str, marker: str) -> None:
    means, reach = _with_reach([effect])
    axes.errorbar([place], means, yerr=reach, color=colour, marker=marker, markersize=6, elinewidth=1.6, capsize=4, zorder=4)


def _completeness_panel(axes: Axes, verdict: Verdict) -> None:
    kinds = {"random": (SKY, "o", "random halves"), "greedy": (VERMILION, "^", "grown greedily")}
    for how, (colour, marker, words) in kinds.items():
        found = [one for one in verdict.completeness if one.how == how]
        if found:
            xs, ys = [one.model for one in found], [one.circuit for one in found]
            axes.scatter(xs, ys, s=24, color=colour, marker=marker, edgecolor=_DARK, linewidth=0.5, label=words, zorder=3)
    ends = [value for one in verdict.completeness for value in (one.model, one.circuit)]
    low, high = min(0.0, *ends), max(1.0, *ends)
    room = 0.06 * (high - low)
    axes.plot([low, high], [low, high], color=_GREY, linewidth=1.0, linestyle="--", zorder=1)
    axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
    _frame(axes, grid="both", title=f"complete: largest gap {verdict.incompleteness:.2f}")
    axes.set_xlabel("model without the set", fontsize=8.5)
    axes.set_ylabel("circuit without the set", fontsize=8.5)
    axes.legend(fontsize=7.5, framealpha=0.9, edgecolor=GRID, title="sets of nodes", title_fontsize=7.5)


def _minimality_panel(axes: Axes, verdict: Verdict) -> None:
    ordered = sorted(verdict.minimality, key=lambda need: -abs(need.change))
    needs = ordered[:MOST_BARS]
    changes = [need.change for need in needs]
    colours = [_GREY if abs(change) < _LEAST else POSITIVE if change < 0 else NEGATIVE for change in changes]
    places = range(len(needs))
    axes.barh(places, changes, height=0.7, color=colours)
    axes.axvline(0, color=_DARK, linewidth=0.8)
    axes.set_yticks(places, [shortened(need.node, 14) for need in needs], fontsize=7.5, parse_math=False)
    axes.set_ylim(max(len(needs), 6) - 0.4, -0.6)
    spare, count = len(verdict.unneeded(_LEAST)), len(verdict.minimality)
    nodes = f"{count} nodes" if verdict.drawn_from is None else f"{count} nodes drawn from {verdict.drawn_from}"
    words = f"{spare} of {nodes} not needed (grey)" if spare else f"all {nodes} needed"
    _frame(axes, grid="x", title=f"minimal: {words}")
    shown = f"; {len(needs)} of {count} nodes" if len(needs) < count else ""
    axes.set_xlabel(f"largest change of faithfulness when it goes{shown}", fontsize=8.5)


def _style(place: int) -> dict[str, str]:
    colour, marker = _STYLES[place % len(_STYLES)]
    return {"color": colour, "marker": marker, "linestyle": _LINES[place // len(_STYLES) % len(_LINES)]}


def _with_reach(effects: tuple[Effect, ...] | list[Effect]) -> tuple[np.ndarray, np.ndarray]:
    """Means, and how far their intervals reach down and up."""
    rows = np.array([[one.effect, one.low, one.high] for one in effects])
    return rows[:, 0], np.clip(np.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]), 0, None)


def _plain(label: str) -> str:
    """Text that a legend does not take for a formula."""
    return label.replace("$", r"\$")


def _head(figure: Figure, title: str) -> None:
    figure.suptitle(wrapped(title, int(figure.get_figwidth() * 10.5)), fontsize=10.5, parse_math=False)


def _frame(axes: Axes, *, grid: Literal["x", "y", "both"], title: str = "") -> None:
    if title:
        axes.set_title(title, fontsize=9, parse_math=False)
    axes.tick_params(axis="y", labelsize=8)
    frame(axes, grid=grid)
