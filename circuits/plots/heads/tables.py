"""Weight tables as pictures: the strongest entries as bars, ranks of heads as heatmaps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.graph import Node
from circuits.heads.compression import PARTS, Compression
from circuits.heads.weight_tables.all_tables import Tables
from circuits.heads.weight_tables.bugs import SkipTrigramBug
from circuits.plots.style import BLUE, FAINT, GREEN, SIGNED, VERMILION, frame
from circuits.plots.text import shortened, shown_token, wrapped

_MOST = 15
_TITLES = {"qk": "what it attends to (W_QK)", "ov": "what it moves (W_OV)"}


@draws(Tables)
def tables_figure(tables: Tables, *, most: int = _MOST, title: str | None = None) -> Figure:
    """Draw the `most` likeliest bigrams, the strongest skip-trigrams and the worst bugs as bars, best on top, and the copying
    scores of heads. Raises CircuitsError for tables without an entry."""
    if not tables.bigrams and not tables.skip_trigrams:
        raise CircuitsError(f"{tables.model} has no table to draw: its heads raise nothing and it has no bigrams")
    count = max(1, min(most, max(len(tables.bigrams), len(tables.skip_trigrams), 1)))
    figure = Figure(figsize=(12.5, 0.25 * count + (0.25 * count if tables.bugs else 0) + 3.0), layout="constrained")
    grid = figure.subplots(2, 2, squeeze=False)
    trigrams, bigrams = tables.skip_trigrams[:most], tables.bigrams[:most]
    names = [f"{_token(tables, one.token)} → {_token(tables, one.next)}" for one in bigrams]
    chances = [float(np.exp(one.log_probability)) for one in bigrams]
    _bars(grid[0, 0], names, chances, BLUE, "Bigrams by the direct path alone", "probability")
    grid[0, 0].set_xlim(0, 1.05)
    phrases = [_phrase(tables, one.source, one.destination, one.output) for one in trigrams]
    scores = [one.score for one in trigrams]
    labels = [f"{phrase}  {one.head}" for phrase, one in zip(phrases, trigrams, strict=True)]
    _bars(grid[0, 1], labels, scores, GREEN, "Skip-trigrams  source … destination → output", "score (logits)")
    _bugs(grid[1, 1], tables, tables.bugs[:most])
    _copying(grid[1, 0], tables)
    partial = "; a part of what the model does" if tables.partial else ""
    heading = title or f"Weight tables of {shortened(tables.model, 40)}{partial}"
    figure.suptitle(wrapped(heading, 110), fontsize=12, parse_math=False)
    return figure


@draws(Compression)
def compression_figure(compression: Compression, *, title: str | None = None) -> Figure:
    """Draw the smallest rank of every head's W_QK and W_OV, layers upwards and heads to the right; darker = needs more."""
    if not compression.parts:
        raise CircuitsError("no head was compressed: there is nothing to draw")
    nodes = [Node.parse(part.head) for part in compression.parts]
    layers, heads = 1 + max(node.layer or 0 for node in nodes), 1 + max(node.index or 0 for node in nodes)
    width, height = min(max(0.42 * heads, 1.9), 6.0), min(max(0.42 * layers, 1.2), 6.0)
    figure = Figure(figsize=(2 * width + 2.4, height + 1.5), layout="constrained")
    grid = figure.subplots(1, 2, squeeze=False)[0]
    image = None
    for axes, kind in zip(grid, PARTS, strict=True):
        values = np.full((layers, heads), np.nan)
        for node, part in zip(nodes, compression.parts, strict=True):
            if part.part == kind:
                values[node.layer or 0, node.index or 0] = part.rank
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=compression.d_head)
        axes.set_title(_TITLES[kind], fontsize=9)
        axes.set_xlabel("head", fontsize=9)
        axes.set_ylabel("layer", fontsize=9)
        axes.set_xticks(every(heads))
        axes.set_yticks(every(layers))
        axes.tick_params(labelsize=8)
        if max(layers, heads) <= 16:
            for (layer, head), rank in np.ndenumerate(values):
                if np.isfinite(rank):
                    colour = "white" if rank > 0.6 * compression.d_head else "black"
                    axes.text(head, layer, f"{rank:.0f}", ha="center", va="center", fontsize=7, color=colour)
    assert image is not None
    figure.colorbar(image, ax=list(grid), label=f"rank (of {compression.d_head})", shrink=0.9)
    share = compression.parameters / compression.whole_parameters
    heading = title or (
        f"Ranks of {shortened(compression.model, 40)} at {compression.tolerance:g} nats each: {share:.0%} of the numbers, "
        f"loss {compression.loss:.3f} → {compression.joint_loss:.3f} with all at once"
    )
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10.5)), fontsize=10.5, parse_math=False)
    return figure


def every(count: int) -> range:
    """Ticks for so many rows or columns, at most 16."""
    return range(0, count, -(-count // 16))


def _token(tables: Tables, token: int) -> str:
    return shown_token(tables.word(token), longest=12)


def _phrase(tables: Tables, source: int, destination: int, output: int) -> str:
    return f"{_token(tables, source)} … {_token(tables, destination)} → {_token(tables, output)}"


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colour: str, title: str, label: str) -> None:
    places = np.arange(len(names))[::-1]
    axes.set_title(title, fontsize=10)
    if not len(names):
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, color=FAINT)
        axes.set_axis_off()
        return
    axes.barh(places, values, color=colour, height=0.7)
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label, fontsize=9)
    frame(axes, grid="x")


def _bugs(axes: Axes, tables: Tables, bugs: Sequence[SkipTrigramBug]) -> None:
    names = []
    for bug in bugs:
        first, second = (f"{_token(tables, one.destination)} → {_token(tables, one.output)}" for one in bug.forced)
        names.append(f"{_token(tables, bug.wanted[0].source)} … {first} and {second}  {bug.wanted[0].head}")
    values = [bug.severity for bug in bugs]
    _bars(axes, names, values, VERMILION, "Bugs: crossings that the factors force", "severity (nats)")


def _copying(axes: Axes, tables: Tables) -> None:
    """Copying scores: a heatmap of layers by heads."""
    nodes = [Node.parse(one.head) for one in tables.heads]
    layers, heads = 1 + max(node.layer or 0 for node in nodes), 1 + max(node.index or 0 for node in nodes)
    values = np.full((layers, heads), np.nan)
    for node, one in zip(nodes, tables.heads, strict=True):
        values[node.layer or 0, node.index or 0] = one.copying
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=SIGNED, vmin=-1, vmax=1)
    axes.set_title("Copying: sum of eigenvalues / sum of |eigenvalues|, W_E W_OV W_U", fontsize=10)
    axes.set_xlabel("head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    axes.set_xticks(every(heads))
    axes.set_yticks(every(layers))
    axes.tick_params(labelsize=8)
    axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=8)
