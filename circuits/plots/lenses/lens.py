"""What lenses read: the table of layers by tokens, curves of entropy and divergence, and two lenses side by side."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.lenses.comparison import LensComparison
from circuits.lenses.lens import Lens
from circuits.lenses.tuned_lens import TunedLens
from circuits.plots.style import BLUE, VERMILION, colour_bar, contrast, frame
from circuits.plots.text import shortened, shown_token, wrapped

COLOURS = {
    "top": ("viridis", "probability of the top token"),
    "probability": ("viridis", "probability of the target"),
    "rank": ("magma_r", "log10 (1 + rank of the target)"),
    "entropy": ("viridis_r", "entropy (nats)"),
    "divergence": ("viridis_r", "KL from the model's output (nats)"),
}
"""What a cell's colour can say: colour map and label."""
_CURVES = {
    "entropy": "entropy (nats)",
    "divergence": "KL(final ‖ lens) (nats)",
    "cross_entropy": "loss on the next token (nats)",
}
_MOST = 16
"""Columns of a table, at most: the last ones are drawn."""
_QUOTED = 48
"""Letters of a prompt in a title, at most."""


@draws(Lens)
def lens_figure(
    lens: Lens, *, prompt: int = 0, colour: str = "top", positions: Sequence[int] | None = None, title: str | None = None
) -> Figure:
    """Draw the table of one prompt: rows upwards, tokens to the right; a cell names the top token there.

    `colour`: "top" (probability of that token), "probability", "rank" (of the target), "entropy" or "divergence".
    `positions`: which tokens, counted from 0 in the prompt (default: the last 16). Orange: the row from which on
    the prediction does not change any more. Rows of nodes stand above a line. Raises CircuitsError for what there is not.
    """
    if colour not in COLOURS:
        raise CircuitsError(f"no colour {colour!r}: expected one of {', '.join(COLOURS)}")
    own = lens.columns(prompt)
    chosen = list(range(len(own)))[-_MOST:] if positions is None else list(positions)
    if not chosen or not all(0 <= place < len(own) for place in chosen):
        raise CircuitsError(f"the prompt has positions 0 to {len(own) - 1}; asked for {chosen or 'none'}")
    columns = [own[place] for place in chosen]
    values = _values(lens, colour, prompt, columns)
    figure = Figure(figsize=(max(0.72 * len(columns) + 2.3, 5.0), max(0.27 * len(lens.rows) + 1.9, 3.6)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=COLOURS[colour][0], vmin=0.0, vmax=_highest(colour, values))
    colour_bar(axes, image, COLOURS[colour][1], fraction=0.04)
    _cells(axes, lens, prompt, columns, image)
    _frames(axes, lens, prompt, columns)
    _labels(axes, lens, prompt, chosen, columns)
    kind = "Tuned lens" if lens.tuned else "Logit lens"
    heading = title or f"{kind}: {lens.model}, {_quoted(lens, prompt)}" + (f", prompt {prompt}" if len(lens.ids) > 1 else "")
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10), lines=2), fontsize=10.5, parse_math=False)
    return figure


def _quoted(lens: Lens, prompt: int) -> str:
    """What the model read, its end."""
    text = " ".join("".join(lens.word(int(lens.ids[prompt, column])) for column in lens.columns(prompt)).split())
    return f"“{text}”" if len(text) <= _QUOTED else f"“…{text[1 - _QUOTED :]}”"


def _values(lens: Lens, colour: str, prompt: int, columns: list[int]) -> np.ndarray:
    if colour == "top":
        return lens.top_probabilities[:, prompt, columns, 0].numpy()
    values = getattr(lens, colour)[:, prompt, columns].double().numpy()
    return np.log10(1 + values) if colour == "rank" else values


def _highest(colour: str, values: np.ndarray) -> float:
    return 1.0 if colour in ("top", "probability") else max(float(values.max()), 1e-6)


def _cells(axes: Axes, lens: Lens, prompt: int, columns: list[int], image) -> None:
    """Write the top token into each cell, dark on light and light on dark."""
    values = image.get_array()
    for row in range(len(lens.rows)):
        for place, column in enumerate(columns):
            word = shown_token(lens.word(int(lens.top_ids[row, prompt, column, 0])), longest=9)
            style = {"fontsize": 7, "color": contrast(image, values[row, place]), "parse_math": False}
            axes.text(place, row, word, ha="center", va="center", **style)


def _frames(axes: Axes, lens: Lens, prompt: int, columns: list[int]) -> None:
    """A line below the first residual row from which on the top token is the last one's; one below the nodes."""
    named = {name: row for row, name in enumerate(lens.rows)}
    for place, column in enumerate(columns):
        row = named.get(f"resid{int(lens.depths[prompt, column])}")
        if row is not None:
            axes.plot([place - 0.46, place + 0.46], [row - 0.46] * 2, color=VERMILION, linewidth=2.2, solid_capstyle="butt")
    streams = sum(kind != "nodes" for kind in lens.kinds)
    if 0 < streams < len(lens.rows):
        axes.axhline(streams - 0.5, color="black", linewidth=1.6)


def _labels(axes: Axes, lens: Lens, prompt: int, chosen: list[int], columns: list[int]) -> None:
    tokens = [shown_token(lens.word(int(lens.ids[prompt, column])), longest=9) for column in columns]
    axes.set_xticks(range(len(columns)), tokens, fontsize=7.5, rotation=40, ha="right", parse_math=False)
    axes.set_yticks(range(len(lens.rows)), [shortened(name, 22) for name in lens.rows], fontsize=7.5)
    goals = [shown_token(lens.word(int(lens.targets[prompt, column])), longest=9) for column in columns]
    above = axes.secondary_xaxis("top")
    above.set_xticks(range(len(columns)), goals, fontsize=7.5, rotation=40, ha="left", parse_math=False)
    above.set_xlabel("target" + (" (the answer)" if lens.answered else " (next token; at the end the model's own)"), fontsize=8)
    axes.set_xlabel(
        "token" + ("; orange: from here up the top token of resid rows stays" if "residual" in lens.kinds else ""), fontsize=8
    )
    axes.tick_params(length=2)


def lens_curves_figure(*lenses: Lens, title: str | None = None) -> Figure:
    """Draw entropy, KL(final ‖ lens) and loss on the next token by residual row, averaged over all tokens; a curve a lens.

    Raises CircuitsError without a lens, and for one without residual rows.
    """
    if len(lenses) < 1:
        raise CircuitsError("there is no lens to draw")
    figure = Figure(figsize=(8.6, 3.0), layout="constrained")
    panels = figure.subplots(1, len(_CURVES))
    for lens in lenses:
        rows = [row for row, kind in enumerate(lens.kinds) if kind != "nodes"]
        if not rows:
            raise CircuitsError("a lens that read only nodes has no layers to draw")
        for axes, number in zip(panels, _CURVES, strict=True):
            if number == "cross_entropy" and not bool(lens.followed.any()):
                continue
            name = f"{'tuned' if lens.tuned else 'logit'} lens"
            axes.plot(lens.mean(number)[rows].numpy(), marker="o", markersize=3.5, label=name)
    first = lenses[0]
    names = [name for name, kind in zip(first.rows, first.kinds, strict=True) if kind != "nodes"]
    step = -(-len(names) // 10)
    for axes, said in zip(panels, _CURVES.values(), strict=True):
        axes.set_title(said, fontsize=9)
        axes.set_xticks(range(0, len(names), step), names[::step], rotation=50, ha="right", fontsize=7.5)
        axes.set_ylim(bottom=0)
        _plain(axes)
    if len(lenses) > 1:
        panels[-1].legend(fontsize=8, frameon=False)
    over = f"mean over {int(first.mask.sum()):,} tokens" + (f" of {_quoted(first, 0)}" if len(first.ids) == 1 else "")
    figure.suptitle(wrapped(title or f"{first.model}, {over}", 90), fontsize=10.5, parse_math=False)
    return figure


@draws(LensComparison)
def lens_comparison_figure(comparison: LensComparison, *, title: str | None = None) -> Figure:
    """Draw the divergence of the logit lens and of the tuned lens from the model's output, in bits a token by layer, on a
    logarithmic scale; bars: one standard error over prompts."""
    figure = Figure(figsize=(5.4, 3.5), layout="constrained")
    axes = figure.subplots()
    for column, colour, marker in (("logit", BLUE, "o"), ("tuned", VERMILION, "s")):
        mean, error = (part.numpy() for part in comparison.by_layer(column))
        style = {"color": colour, "marker": marker, "markersize": 4.5, "capsize": 2.5, "linewidth": 1.5}
        axes.errorbar(range(len(mean)), mean, yerr=error, label=f"{column} lens", **style)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("residual stream before layer", fontsize=9)
    axes.set_ylabel("KL(final ‖ lens), bits a token", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.legend(fontsize=8.5, frameon=False)
    _plain(axes)
    heading = title or f"{comparison.model}: {comparison.logit.shape[1]:,} prompts, {comparison.tokens:,} tokens"
    figure.suptitle(wrapped(heading, 52, lines=2), fontsize=10.5, parse_math=False)
    return figure


@draws(TunedLens)
def tuned_lens_figure(lens: TunedLens) -> Figure:
    """Draw KL(final ‖ lens) in nats on each step's batch through the training, a curve a layer, on a logarithmic scale. Raises
    CircuitsError for a lens that was not trained."""
    steps, layers = lens.losses.shape
    if not steps:
        raise CircuitsError("this tuned lens was not trained: there is nothing to draw")
    figure = Figure(figsize=(5.4, 3.5), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, layers))
    for layer, colour in enumerate(colours):
        name = f"layer {layer}" if layers <= 12 or layer in (0, layers - 1) else None
        axes.plot(range(steps), lens.losses[:, layer].numpy(), color=colour, linewidth=1.2, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("KL(final ‖ lens), nats a token", fontsize=9)
    axes.legend(fontsize=7.5, frameon=False, title="before", title_fontsize=7.5)
    _plain(axes)
    figure.suptitle(wrapped(f"Tuned lens of {lens.model}: its training", 52, lines=2), fontsize=10.5, parse_math=False)
    return figure


def _plain(axes: Axes) -> None:
    frame(axes, labels=7.5)
