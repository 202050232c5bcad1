"""Attention patterns of chosen heads on one prompt."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import GraphError, NonFiniteError
from circuits.graph import Node
from circuits.graph.named import parsed
from circuits.models import Run
from circuits.plots.style import VERMILION
from circuits.plots.text import shortened, shown_token, wrapped

_COLUMNS = 4


def patterns_figure(
    run: Run,
    heads: Sequence[Node | str],
    tokens: Sequence[str],
    *,
    prompt: int = 0,
    roles: dict[str, str] | None = None,
    copies: Sequence[int] = (),
    title: str = "Attention patterns",
) -> Figure:
    """Draw where each of these heads looks: one panel a head, query tokens downwards, key tokens to the right.

    `tokens`: the prompt's tokens as text, one a column of the run. `roles`: what a head does, by its name. `copies`:
    positions before which thin lines are drawn, such as where a repeated segment starts again. Raises GraphError for a
    head that the run lacks, no head at all, or a number of tokens other than the run's.
    """
    width = run.tokens.ids.shape[1]
    if len(tokens) != width:
        raise GraphError(f"{len(tokens)} token labels were given for a run over {width} tokens; expected one a token")
    if not heads:
        raise GraphError("no heads to draw patterns of: name at least one, such as a0.h1")
    patterns = [(node, _pattern(run, node, prompt)) for node in map(_head, heads)]
    labels = [shown_token(token) for token in tokens]
    columns = min(_COLUMNS, len(patterns))
    figure, grid, side = _panels(len(patterns), columns, width)
    image = None
    for place, (node, pattern) in enumerate(patterns):
        axes = grid[place // columns][place % columns]
        image = axes.imshow(pattern, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        role = (roles or {}).get(str(node))
        axes.set_title(shortened(f"{node} · {role}" if role else str(node), 34), fontsize=9, parse_math=False)
        left, below = place % columns == 0, place + columns >= len(patterns)
        _label(axes, labels, copies, side)
        # The panels show the same tokens: named once a row and a column, or most of the time goes into placing names.
        axes.tick_params(labelleft=left, labelbottom=below)
        axes.set_ylabel("query token (looks)" if left else "", fontsize=8)
        axes.set_xlabel("key token (looked at)" if below else "", fontsize=8)
    assert image is not None
    figure.colorbar(image, ax=grid, shrink=min(1.0, 3.0 / (len(grid) * side) + 0.2), label="attention", aspect=25)
    figure.suptitle(wrapped(title, 34 * columns), fontsize=11, parse_math=False)
    return figure


def _panels(count: int, columns: int, tokens: int) -> tuple[Figure, np.ndarray, float]:
    """A figure with `count` square panels, those panels row by row, and their side in inches."""
    side = min(max(1.3 + 0.12 * tokens, 2.6), 5.0)
    rows = -(-count // columns)
    size = (max(columns * side + 0.9, 4.5), rows * (side - 0.05) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid, side


def _head(name: Node | str) -> Node:
    node = parsed(name)
    if node.kind != "head":
        raise GraphError(f"{node} has no attention pattern, only heads do: name one, such as a0.h1")
    return node


def _pattern(run: Run, node: Node, prompt: int) -> np.ndarray:
    layers, heads = len(run.weights.blocks), run.weights.blocks[0].attention.n_heads
    layer, index = node.layer or 0, node.index or 0
    if layer >= layers or index >= heads:
        raise GraphError(f"no head {node}: the run has {layers} layers of {heads} heads, numbered from 0")
    pattern = run.pattern(layer)[prompt, index].detach().float().cpu().numpy()
    if not np.isfinite(pattern).all():
        raise NonFiniteError(f"the attention pattern of {node} holds NaN or infinity")
    return pattern


def _label(axes: Axes, labels: list[str], copies: Sequence[int], side: float) -> None:
    """Name as many tokens as fit beside each other, and draw the lines before copies."""
    step = -(-len(labels) * 7 // int(72 * (side - 0.9)))
    places = range(0, len(labels), step)
    axes.set_xticks(places, [labels[place] for place in places], rotation=90, fontsize=6, parse_math=False)
    axes.set_yticks(places, [labels[place] for place in places], fontsize=6, parse_math=False)
    axes.tick_params(length=1.5, pad=1)
    for copy in copies:
        axes.axhline(copy - 0.5, color=VERMILION, linewidth=0.6)
        axes.axvline(copy - 0.5, color=VERMILION, linewidth=0.6)
