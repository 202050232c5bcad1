"""Neurons as memories: triggers in their contexts, what neurons write, agreement by layer, updates on one prompt, clamping."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.lenses.neurons.clamping import Clamp
from circuits.lenses.neurons.contexts import Context
from circuits.lenses.neurons.memories import KeyValueAgreement, Values
from circuits.lenses.neurons.places import Triggers
from circuits.lenses.neurons.report import NeuronReport
from circuits.lenses.neurons.updates import SubUpdates
from circuits.plots.style import BASELINE, BLUE, INK, SKY, VERMILION, frame
from circuits.plots.text import shortened, shown_token, wrapped

UP, DOWN, CHANCE = BLUE, VERMILION, BASELINE
_LEFT, _RIGHT, _LONGEST = 46, 26, 16
"""Characters of a context before and after its token, and of a token."""
_CHARACTER = 0.0635
"""Inches that a character of a context takes."""
_COLUMNS = 4
_LEAST = 1e-3
"""Shifts of less than this share of the largest one are not drawn."""


@draws(NeuronReport)
def neuron_figure(report: NeuronReport, *, title: str | None = None) -> Figure:
    """Draw a neuron's triggers, one above the other, tokens coloured by its activation (blue above 0, orange below), beside
    the tokens that a unit of activation raises and lowers."""
    words = max(len(report.raises), len(report.lowers))
    height = max(0.22 * len(report.triggers) + 1.1, 0.36 * words + 1.0, 2.6)
    width = (sum(_reach(report.triggers)) + 8) * _CHARACTER
    figure = Figure(figsize=(width + 3.2, height), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[width, 2.9])
    draw_contexts(figure.add_subplot(grid[:, 0]), report.triggers)
    way = f"through {report.through}" if report.through else "logits a unit of activation"
    named = ((report.raises, f"raises ({way})", UP), (report.lowers, "lowers", DOWN))
    for place, (tokens, heading, colour) in enumerate(named):
        token_bars(figure.add_subplot(grid[place, 1]), tokens, heading, colour)
    heading = title or (
        f"{report.neuron} of {report.model}: active at {report.active:.1%} of {report.places:,} tokens, "
        f"mean {report.mean:.2f}, largest {report.largest:.2f}"
    )
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 11)), fontsize=10.5, parse_math=False)
    return figure


def draw_contexts(axes: Axes, contexts: Sequence[Context]) -> None:
    """Contexts below each other, the place of each in one column, every token on the colour of its activation."""
    if not contexts:
        raise CircuitsError("there are no triggers to draw")
    left, right = _reach(contexts)
    most = max(1e-9, *(abs(value) for one in contexts for value in one.activations))
    colours, scale = matplotlib.colormaps["RdBu"], TwoSlopeNorm(0.0, -1.6 * most, 1.6 * most)
    for row, one in enumerate(contexts):
        words = [shown_token(token, longest=_LONGEST) for token in one.tokens]
        starts = np.cumsum([0, *map(len, words)]) - sum(map(len, words[: one.at]))
        for place, (word, start, value) in enumerate(zip(words, starts[:-1], one.activations, strict=True)):
            if start < -left or start + len(word) > right:
                continue
            here = place == one.at
            box = Rectangle((start, row - 0.42), len(word), 0.84, facecolor=colours(scale(value)), linewidth=1.0 if here else 0)
            box.set_edgecolor("black" if here else "none")
            box.set_zorder(3 if here else 1)
            axes.add_patch(box)
            style = {"family": "monospace", "fontsize": 7, "ha": "center", "va": "center_baseline", "zorder": 4}
            axes.text(start + len(word) / 2, row, word, parse_math=False, **style)
        axes.text(right + 6.5, row, f"{one.activation:.2f}", fontsize=7.5, ha="right", va="center_baseline")
    axes.set_xlim(-left, right + 7)
    axes.set_ylim(len(contexts) - 0.4, -0.6)
    axes.set_title("strongest triggers (colour and right column: activation)", fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _reach(contexts: Sequence[Context]) -> tuple[int, int]:
    """Characters that contexts take before and from their places on, as many as are drawn."""
    sizes = [[len(shown_token(token, longest=_LONGEST)) for token in one.tokens] for one in contexts]
    left = max(sum(size[: one.at]) for size, one in zip(sizes, contexts, strict=True))
    right = max(sum(size[one.at :]) for size, one in zip(sizes, contexts, strict=True))
    return min(max(left, 24), _LEFT), min(max(right, 16), _RIGHT)


def token_bars(axes: Axes, tokens: Sequence[tuple[str, float]], heading: str, colour: str) -> None:
    names = [shown_token(token, longest=14) for token, _ in tokens]
    axes.barh(range(len(tokens)), [value for _, value in tokens], height=0.72, color=colour)
    axes.set_yticks(range(len(tokens)), names, fontsize=7.5, parse_math=False)
    axes.set_ylim(len(tokens) - 0.4, -0.6)
    axes.set_title(shortened(heading, 44), fontsize=9, loc="left", parse_math=False)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7.5, length=2)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    frame(axes, grid="x", labels=7.5)


@draws(Values)
def values_figure(values: Values, *, most: int = 4, tokens: int = 10) -> Figure:
    """Draw the tokens that the first `most` neurons raise and lower most, in logits a unit of activation, a row a neuron."""
    shown, count = min(most, len(values.layers)), min(tokens, values.raised.shape[1])
    figure = Figure(figsize=(7.4, shown * (0.19 * count + 0.55) + 0.7), layout="constrained")
    grid = figure.subplots(shown, 2, squeeze=False)
    for row in range(shown):
        name = f"m{int(values.layers[row])}.n{int(values.indices[row])}"
        ends = (("raises", UP, values.raised, values.raised_by), ("lowers", DOWN, values.lowered, values.lowered_by))
        for axes, (does, colour, ids, by) in zip(grid[row], ends, strict=True):
            pairs = zip(ids[row, :count].tolist(), by[row, :count].tolist(), strict=True)
            token_bars(axes, [(values.tokens[token], value) for token, value in pairs], f"{name} {does}", colour)
    more = f", {shown} of {len(values.layers):,}" if len(values.layers) > shown else ""
    through = f" through {values.through}" if values.through else ""
    heading = f"What neurons of {shortened(values.model, 40)} write{through}, logits a unit of activation{more}"
    figure.suptitle(wrapped(heading, 74, lines=2), fontsize=10.5, parse_math=False)
    return figure


@draws(Triggers)
def triggers_figure(triggers: Triggers, *, title: str | None = None) -> Figure:
    """Draw every neuron as a point, a panel a layer: the share of the text's tokens where it is active to the right, its
    largest activation upwards."""
    layers = triggers.layers.unique().tolist()
    columns = min(_COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(2.3 * columns + 0.9, 2.2 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(layers) :]:
        axes.set_axis_off()
    for axes, layer in zip(grid.flat, layers, strict=False):
        here = triggers.layers == layer
        axes.scatter(triggers.active[here].numpy(), triggers.largest[here].numpy(), s=5, alpha=0.4, color=UP, linewidths=0)
        axes.set_title(f"m{layer}: {int(here.sum()):,} neurons", fontsize=9)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        frame(axes, grid="both", labels=7.5)
    figure.supxlabel("share of tokens with an activation above 0", fontsize=9)
    figure.supylabel("largest activation", fontsize=9)
    heading = title or f"Neurons of {triggers.model} over {triggers.count:,} tokens"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10)), fontsize=10.5, parse_math=False)
    return figure


@draws(KeyValueAgreement)
def agreement_figure(agreement: KeyValueAgreement, *, title: str | None = None) -> Figure:
    """Draw, by layer, the share of neurons whose value names the token after their top trigger, as the value's first token and
    among its first k; grey: the same with triggers dealt out at random, the bar over 95 % of the deals."""
    figure = Figure(figsize=(min(max(0.5 * len(agreement.layers) + 2.0, 3.2), 7.0) * 2, 3.3), layout="constrained")
    titles = {"": "first token of the value", "_within": f"among its first {agreement.k} tokens"}
    for axes, (suffix, heading) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        share, chance, low, high = (
            np.array(getattr(agreement, f"{name}{suffix}")) for name in ("share", "chance", "low", "high")
        )
        places = np.arange(len(agreement.layers))
        axes.bar(places - 0.2, share, 0.38, color=UP, label="its own trigger")
        reach = np.stack([chance - low, high - chance]).clip(0)
        errors = {"elinewidth": 0.8, "ecolor": INK, "capsize": 2}
        axes.bar(places + 0.2, chance, 0.38, color=CHANCE, yerr=reach, error_kw=errors, label="another neuron's trigger")
        axes.set_xticks(places, [f"m{layer}" for layer in agreement.layers], rotation=90 if len(places) > 16 else 0)
        axes.set_title(heading, fontsize=9)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        frame(axes)
    figure.axes[0].set_ylabel("neurons that agree", fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    heading = title or f"{agreement.model}: does a neuron's value name what follows its top trigger?"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10)), fontsize=10.5, parse_math=False)
    return figure


@draws(SubUpdates)
def sub_updates_figure(found: SubUpdates, *, title: str | None = None) -> Figure:
    """Draw the strongest updates: their length, and what each adds to the logit of the predicted token; beside each, the
    tokens that it raises. Raises CircuitsError without updates."""
    if not found.updates:
        raise CircuitsError("there are no updates to draw")
    names = [
        f"{one.neuron}  ({shortened(' '.join(shown_token(token, longest=9) for token in one.raises), 40)})"
        for one in found.updates
    ]
    places = range(len(names))
    figure = Figure(figsize=(8.6, 0.26 * len(names) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(places, [one.strength for one in found.updates], height=0.7, color=SKY)
    left.set_yticks(places, names, parse_math=False)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_title("length of the update", fontsize=9)
    logits = [one.logit for one in found.updates]
    right.barh(places, logits, height=0.7, color=[UP if value >= 0 else DOWN for value in logits])
    right.set_title(
        shortened(f"adds to the logit of {shown_token(found.predicted, longest=14)}", 40), fontsize=9, parse_math=False
    )
    right.tick_params(axis="y", left=False)
    for axes in (left, right):
        _plain(axes)
    heading = title or f"{found.model}, at {shown_token(found.token)} of “{shortened(' '.join(found.prompt.split()), 90)}”"
    figure.suptitle(wrapped(heading, 86), fontsize=10.5, parse_math=False)
    return figure


@draws(Clamp)
def clamp_figure(found: Clamp, *, title: str | None = None) -> Figure:
    """Draw next-token probabilities of the model as it is and with the neurons held: tokens that rise most above, those that
    fall most below."""
    least = _LEAST * max((abs(shift.change) for shift in (*found.rising, *found.falling)), default=0.0)
    falling = [shift for shift in found.falling if shift.change < -least][:8]
    shifts = [*(shift for shift in found.rising if shift.change > least)][:8] + falling[::-1]
    if not shifts:
        raise CircuitsError("the neurons change nothing: there is no shift to draw")
    places = np.arange(len(shifts))
    before, after = (np.array([getattr(shift, name) for shift in shifts]).clip(1e-12) for name in ("before", "after"))
    figure = Figure(figsize=(6.4, 0.26 * len(shifts) + 1.6), layout="constrained")
    axes = figure.subplots()
    colours = [UP if shift.change > 0 else DOWN for shift in shifts]
    axes.hlines(places, before, after, color=colours, linewidth=2)
    axes.scatter(before, places, s=26, color=CHANCE, zorder=3, label="the model as it is")
    axes.scatter(after, places, s=34, color=colours, zorder=4)
    axes.scatter([], [], s=34, color=UP, label="neurons held: more probable")
    axes.scatter([], [], s=34, color=DOWN, label="neurons held: less probable")
    axes.set_yticks(places, [shown_token(shift.token, longest=14) for shift in shifts], parse_math=False)
    axes.set_ylim(len(shifts) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlabel("probability of the next token (log scale)", fontsize=9)
    frame(axes, grid="both")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    held = ", ".join(f"{name} at {value:g}" for name, value in found.clamped.items())
    heading = title or f"{shortened(held, 60)}: “{shortened(' '.join(found.prompt.split()), 70)} …” (KL {found.kl:.2f} nats)"
    figure.suptitle(wrapped(heading, 66), fontsize=10.5, parse_math=False)
    return figure
