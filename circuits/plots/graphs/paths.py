"""Patched edges and paths, drawn through the layers: input at the bottom, logits at the top."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from circuits.errors import GraphError
from circuits.graph import Circuit, Edge, Graph, Node, Reader
from circuits.patching import Effects
from circuits.plots.graphs.layout import BOX_HEIGHT, BOX_WIDTH, PORTS, CircuitLayout, Point, lay_out
from circuits.plots.patching.effects import LEAST, heading_of, largest, without_slots
from circuits.plots.style import CAPTION, NEGATIVE, POSITIVE, ROW
from circuits.plots.text import shortened, wrapped
from circuits.statistics import Effect

MOST_PATHS = 30
_LISTED = 12
_LEFT, _RIGHT, _MARGIN, _LINE = 1.1, 0.25, 0.15, 0.19
_NARROWEST = 6.2
_SHAPE = ("n_layers", "n_heads", "n_key_value_heads")
_Listed = list[tuple[str, Effect]]


def path_figure(effects: Effects, *, title: str | None = None) -> Figure:
    """Draw patched paths or edges as arrows between nodes: blue where the patch bridges a share of the gap, orange where it
    widens it, as wide as the effect is large. Of more than `MOST_PATHS` the largest are drawn; an arrow that several paths
    share shows the largest effect among them; the largest are listed below with their 95 % intervals.

    `effects.metadata["graph"]` may give the shape of the model (`n_layers`, `n_heads`, `n_key_value_heads`, `parallel`), which
    is needed where heads share keys. Raises GraphError for names that are no paths.
    """
    chosen = largest(effects, MOST_PATHS)
    if not len(chosen):
        raise GraphError("there are no paths to draw")
    steps = {name: [step.split("+") for step in name.partition("@")[0].split("->")] for name in chosen.names}
    graph = _graph(steps.values(), effects.metadata.get("graph"))
    found = dict(zip(chosen.names, chosen.intervals(), strict=True))
    shown: dict[Edge, float] = {}
    for name, effect in found.items():  # from the largest effect on
        for edge in _edges(graph, name, steps[name]):
            shown.setdefault(edge, effect.effect)
    heading = title or heading_of(effects)
    if len(chosen) < len(effects):
        heading += f"; {len(chosen)} of {len(effects):,}, the largest"
    return _figure(lay_out(Circuit(graph, shown)), shown, list(found.items())[:_LISTED], heading)


def _edges(graph: Graph, name: str, steps: Sequence[Sequence[str]]) -> list[Edge]:
    """The arrows of a path: from each node to each of the inputs that it reaches next."""
    if len(steps) < 2:
        raise GraphError(f"{name!r} is no path: draw nodes with effects_figure")
    writers, edges = [graph.node(steps[0][0])], []
    for names in steps[1:]:
        readers = [graph.reader(one) for one in names]
        edges += [graph.edge(Edge(writer, reader.node, reader.slot)) for writer in writers for reader in readers]
        writers = sorted({target for reader in readers for target in graph.targets(reader)})
    return edges


def _graph(paths: Any, known: Mapping[str, Any] | None) -> Graph:
    """The model's graph where its shape is known, else the smallest one that has these nodes."""
    ends = {end.partition("<")[0] for path in paths for step in path for end in step}
    nodes = [Node.parse(end) for end in ends]
    neurons = any(node.kind == "neuron" for node in nodes)
    width = 1 + max((node.index or 0 for node in nodes if node.kind == "neuron"), default=0)
    if isinstance(known, Mapping) and known.keys() >= set(_SHAPE):
        shape = {name: known[name] for name in _SHAPE}
        return Graph(**shape, d_mlp=known.get("d_mlp", width), parallel=bool(known.get("parallel")), neurons=neurons)
    layers = 1 + max((node.layer for node in nodes if node.layer is not None), default=0)
    heads = 1 + max((node.index or 0 for node in nodes if node.kind == "head"), default=0)
    return Graph(n_layers=layers, n_heads=heads, n_key_value_heads=heads, d_mlp=width, neurons=neurons)


def _figure(layout: CircuitLayout, shown: dict[Edge, float], listed: _Listed, heading: str) -> Figure:
    width = max(layout.width, _NARROWEST - _LEFT - _RIGHT)
    heading = wrapped(heading, int((width + _LEFT) * 10), lines=3)
    top, bottom = _LINE * (heading.count("\n") + 1) + 2 * _MARGIN, 0.148 * len(listed) + 0.45
    size = (width + _LEFT + _RIGHT, layout.height + top + bottom)
    figure = Figure(figsize=size)
    place = (_LEFT / size[0], bottom / size[1], width / size[0], layout.height / size[1])
    axes = figure.add_axes(place, xlim=(-width / 2, width / 2), ylim=(-BOX_HEIGHT / 4, layout.height - BOX_HEIGHT / 4))
    _draw_rows(axes, layout, width)
    widest = max(LEAST, *map(abs, shown.values()))
    for (edge, _), points in layout.paths.items():
        axes.add_patch(_arrow(edge, points, shown[edge], widest))
    _draw_boxes(axes, layout)
    figure.text(0.5, 1 - _MARGIN / size[1], heading, ha="center", va="top", fontsize=10.5, parse_math=False)
    _list(figure, listed, widest, size)
    return figure


def _draw_rows(axes: Axes, layout: CircuitLayout, width: float) -> None:
    axes.set_xticks([])
    axes.set_yticks([row.y for row in layout.rows], [row.label for row in layout.rows], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row in layout.rows:
        axes.fill_between([-width / 2, width / 2], row.y - 0.33, row.y + 0.33, color=ROW, zorder=0, linewidth=0)


def _arrow(edge: Edge, points: tuple[Point, ...], effect: float, widest: float) -> FancyArrowPatch:
    """An arrow that leaves its writer and enters its reader vertically."""
    corners, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        corners += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    width = _width(effect, widest)
    arrow = FancyArrowPatch(path=Path(corners, codes), arrowstyle="-|>", mutation_scale=5 + 2 * width, linewidth=width)
    arrow.set(color=_colour(effect), alpha=0.85, capstyle="butt", zorder=2, gid=str(edge))
    return arrow


def _draw_boxes(axes: Axes, layout: CircuitLayout) -> None:
    slots: dict[Node | Reader, set] = {}
    for edge, end in layout.paths:
        if edge.slot is not None and not isinstance(end, Reader):
            slots.setdefault(end, set()).add(edge.slot)
    for item, (x, y) in layout.centres.items():
        shared = isinstance(item, Reader)
        rounding = 0.12 if not shared and item.kind == "head" else 0.02
        corner, style = (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2), f"round,pad=0,rounding_size={rounding}"
        box = FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, boxstyle=style, facecolor="white", edgecolor=CAPTION, zorder=3)
        box.set(linestyle="dashed" if shared else "solid", gid=str(item))
        axes.add_patch(box)
        name, entered = shortened(str(item), 13), sorted(slots.get(item, set()))
        lift = 0.06 if entered else 0.0
        axes.text(x, y + lift, name, ha="center", va="center", fontsize=8.5 if len(name) < 10 else 6.5, zorder=4)
        for slot in entered:
            axes.text(x + PORTS[slot], y - 0.175, slot, ha="center", va="center", fontsize=7, style="italic", zorder=4)


def _list(figure: Figure, listed: _Listed, widest: float, size: tuple[float, float]) -> None:
    """The paths by name with their effects, one below the other."""
    handles = [Line2D([], [], color=_colour(e.effect), linewidth=_width(e.effect, widest)) for _, e in listed]
    room = max(20, int(size[0] * 11) - 24)
    texts = [f"{e.effect:+.3f} [{e.low:.3f}, {e.high:.3f}]  {shortened(without_slots(name), room)}" for name, e in listed]
    below = {"loc": "lower center", "ncols": 1, "fontsize": 7.5, "frameon": False, "labelspacing": 0.35}
    legend = figure.legend(handles, texts, title="share of the gap bridged, with 95 % interval", title_fontsize=8, **below)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _colour(effect: float) -> str:
    return NEGATIVE if effect < 0 else POSITIVE


def _width(effect: float, widest: float) -> float:
    return 0.6 + 3.4 * abs(effect) / widest
