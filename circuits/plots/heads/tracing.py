"""Attention tracing beside ablation, and which heads point along which relation."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.heads import AttentionProbe, HeadLabels
from circuits.patching.tracing.attention_trace import EFFECTS, AttentionTrace
from circuits.plots.style import BASELINE, BLUE, CAPTION, ERRORS, GREEN, INK, ORANGE, SIGNED, SKY, VERMILION, colour_bar, frame
from circuits.plots.text import shortened, shown_token, wrapped

_COLOURS = {"lat": BLUE, "rollout": SKY, "flow": GREEN, "norm": ORANGE}
_TITLES = {
    "lat": "LAT\n(attention products)",
    "rollout": "rollout\n(with residual)",
    "flow": "flow\n(max-flow)",
    "norm": "norm-weighted\n(readout's own look)",
    "embedding": "lost with its\nembedding replaced",
    "knockout": "lost when hidden\nfrom later tokens",
}
_ABLATED = {"embedding": "a token's embedding replaced", "knockout": "a token hidden from later ones"}
_LOSS, _GAIN = VERMILION, BASELINE
_MOST_ROWS = 40


@draws(AttentionTrace)
def attention_figure(trace: AttentionTrace, *, prompt: int = 0) -> Figure:
    """Draw one prompt: tokens downwards; to the left what attention points at (four tracings, shares), to the right what the
    answer loses when the token is taken away, in nats of its log-probability (grey: it gains).

    The token that is read has a star; the first column's tokens are the same for all. Raises CircuitsError for a prompt that
    there is not, or one of more than 160 tokens.
    """
    if not 0 <= prompt < len(trace):
        raise CircuitsError(f"there is no prompt {prompt}: the trace holds {len(trace)}, counted from 0")
    tokens = trace.tokens[prompt]
    if len(tokens) > 160:
        raise CircuitsError(f"a prompt of {len(tokens)} tokens is too long to draw; expected 160 at most")
    panels = {name: values[prompt] for name, values in trace.tracings.items()}
    panels |= {name: trace.effects[name][prompt] for name in EFFECTS}
    height = min(max(0.22 * len(tokens), 1.5), 16.0)
    figure = Figure(figsize=(1.45 * len(panels) + 1.3, height + 1.7), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True)
    for axes, (name, values) in zip(grid, panels.items(), strict=True):
        numbers = values[: len(tokens)].numpy()
        colours = [_COLOURS[name]] * len(tokens) if name in _COLOURS else [_LOSS if n >= 0 else _GAIN for n in numbers]
        axes.barh(range(len(tokens)), numbers, color=colours, height=0.75)
        _frame(axes, _TITLES[name], "share" if name in _COLOURS else "nats")
    star = ["*" if at == trace.positions[prompt] else "" for at in range(len(tokens))]
    labels = [shown_token(token, longest=14) + mark for token, mark in zip(tokens, star, strict=True)]
    step = -(-len(labels) * 9 // int(72 * height))
    places = range(0, len(labels), step)
    grid[0].set_yticks(places, [labels[place] for place in places], fontsize=8, parse_math=False)
    grid[0].set_ylim(len(tokens) - 0.4, -0.6)
    answer = shown_token(trace.answers[prompt], longest=16)
    chance = math.exp(float(trace.log_probabilities[prompt]))
    heading = f"{shortened(trace.model, 40)}: where does “{answer}” come from? p = {chance:.1%} with nothing taken away"
    figure.suptitle(wrapped(heading, 92, lines=2), fontsize=10.5, parse_math=False)
    below = (
        "Left: what attention points at. Right: what taking the token away costs. * is read. Attention is a hint, not a cause."
    )
    figure.supxlabel(wrapped(below, 130), fontsize=7.5, color=CAPTION)
    return figure


def disagreement_figure(trace: AttentionTrace, *, opening: bool = True) -> Figure:
    """Draw how well each tracing ranks source tokens as ablation does: Spearman's correlation, mean over prompts with its 95 %
    interval. Raises CircuitsError where no prompt has enough tokens to rank."""
    rows = [row for row in trace.disagreement(opening=opening) if row.spearman is not None]
    if not rows:
        raise CircuitsError("no prompt has three source tokens that differ: there is nothing to rank")
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    names = [name for name in trace.tracings if any(row.tracing == name for row in rows)]
    for place, (effect, colour) in enumerate(zip(EFFECTS, (BLUE, ORANGE), strict=True)):
        for row in rows:
            if row.effect == effect and row.spearman is not None:
                one, at = row.spearman, names.index(row.tracing) + 0.36 * (place - 0.5)
                label = _ABLATED[effect] if row.tracing == names[0] else None
                reach = [[one.effect - one.low], [one.high - one.effect]]
                error = {"elinewidth": 0.9, "ecolor": INK, "capsize": 2}
                axes.bar(at, one.effect, 0.34, color=colour, label=label, yerr=np.clip(reach, 0, None), error_kw=error)
    axes.set_xticks(range(len(names)), [_TITLES[name].split("\n")[0] for name in names], fontsize=9)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylim(-1, 1)
    axes.set_ylabel("rank correlation with ablation", fontsize=9)
    frame(axes)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    count = f"{len(trace)} prompts" if len(trace) > 1 else "1 prompt"
    figure.suptitle(
        f"{shortened(trace.model, 40)}: does attention rank tokens as ablation does? {count}", fontsize=10.5, parse_math=False
    )
    return figure


@draws(HeadLabels)
def head_labels_figure(labels: HeadLabels, *, most: int = _MOST_ROWS) -> Figure:
    """Draw for each relation the best head's accuracy against the position baseline (left), and every head's gain over that
    baseline (right: a heatmap of relations by heads). Of more than `most` relations, those with the largest gain.

    A star: beats the baseline, corrected p up to 0.05.
    """
    best = labels.best().head(most)
    rows = [labels.rows.index((relation, looks)) for relation, looks in zip(best["relation"], best["looks_at"], strict=True)]
    layers, heads = labels.accuracy.shape[1:]
    gain = (labels.accuracy - labels.baseline[:, None, None])[rows].flatten(1).numpy()
    names = [f"{name} → {looks}" for name, looks in zip(best["relation"], best["looks_at"], strict=True)]
    wide = min(max(0.13 * layers * heads, 2.4), 9.0)
    figure = Figure(figsize=(4.2 + wide, max(0.23 * len(rows), 1.6) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.6, wide))
    places = np.arange(len(rows))
    left.barh(
        places + 0.2, best["baseline"], 0.36, color=BASELINE, label="position alone", xerr=labels.baseline_errors[rows].numpy()
    )
    left.barh(places - 0.2, best["accuracy"], 0.36, color=BLUE, label="best head", xerr=best["standard_error"])
    for place, (p, head, value, spread) in enumerate(
        zip(best["p_value"], best["head"], best["accuracy"], best["standard_error"], strict=True)
    ):
        text = f"{head}{'*' if p <= 0.05 else ''}"
        left.text(value + spread + 0.02, place - 0.2, text, fontsize=6.5, va="center")
    left.set_xlim(0, 1.25)
    left.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    left.set_yticks(places, [shortened(name, 26) for name in names], fontsize=7.5, parse_math=False)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel("share of words", fontsize=8)
    largest = max(0.05, float(np.abs(gain).max()))
    image = right.imshow(gain, aspect="auto", cmap=SIGNED, vmin=-largest, vmax=largest, interpolation="nearest")
    right.set_xticks([heads * layer for layer in range(layers)], [f"a{layer}.h0" for layer in range(layers)], rotation=90)
    right.set_xlabel("heads, layer by layer", fontsize=8)
    for layer in range(1, layers):
        right.axvline(heads * layer - 0.5, color=INK, linewidth=0.5)
    colour_bar(right, image, "accuracy − position baseline", fraction=0.04)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    more = f", {most} of {len(labels.rows)}" if len(labels.rows) > most else ""
    heading = f"{shortened(labels.model, 40)}: heads that look at a relation's other word{more}"
    heading += f" ({labels.sentences:,} sentences; *: p ≤ 0.05, corrected)"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 11)), fontsize=10, parse_math=False)
    return figure


@draws(AttentionProbe)
def attention_probe_figure(probe: AttentionProbe) -> Figure:
    """Draw the probe's weight a head for looking at a word's head (w) and for being looked at by it (u), and the shares of
    words whose head the probe and its baselines find, with standard errors."""
    layers, heads = probe.w.shape
    width, height = min(max(0.34 * heads, 1.9), 5.0), min(max(0.34 * layers, 2.2), 6.0)
    figure = Figure(figsize=(2 * width + 5.2, height + 1.2), layout="constrained")
    *tables, bars = figure.subplots(1, 3)
    reach = max(float(probe.w.abs().max()), float(probe.u.abs().max()), 1e-9)
    both = ((probe.w, "w: looks at its head"), (probe.u, "u: looked at by its head"))
    for axes, (weights, said) in zip(tables, both, strict=True):
        options = {"cmap": SIGNED, "vmin": -reach, "vmax": reach, "aspect": "auto", "interpolation": "nearest"}
        image = axes.imshow(weights.numpy(), origin="lower", **options)
        axes.set_title(said, fontsize=9)
        axes.set_xlabel("head", fontsize=8)
        axes.set_ylabel("layer", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        axes.tick_params(labelsize=7)
    colour_bar(tables[-1], image, "weight")
    names = list(probe.scores)
    shares, errors = zip(*(probe.scores[name]["all"] for name in names), strict=True)
    bars.bar(names, shares, 0.66, yerr=errors, color=[BLUE, *[BASELINE] * (len(names) - 1)], error_kw=ERRORS)
    bars.set_ylim(0, 1)
    bars.set_title(f"share of {probe.counts['all']:,} words", fontsize=9)
    frame(bars)
    heading = f"{shortened(probe.model, 40)}: the attention-only probe, {probe.sentences:,} sentences"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10)), fontsize=10.5, parse_math=False)
    return figure


def _frame(axes: Axes, title: str, below: str) -> None:
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_title(title, fontsize=8)
    axes.set_xlabel(below, fontsize=8)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="y", labelsize=7)
    frame(axes, grid="x", labels=7.0)
