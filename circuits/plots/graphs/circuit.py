"""A circuit drawn by layer: input at the bottom, logits at the top, every edge running upwards."""

import itertools
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path

from circuits.attribution import EdgeScores
from circuits.errors import GraphError
from circuits.files.pictures import draws, draws_small
from circuits.graph import Circuit, Node, Reader
from circuits.graph.nodes import Slot
from circuits.plots.graphs.layout import BOX_HEIGHT, BOX_WIDTH, PORTS, CircuitLayout, Point, lay_out
from circuits.plots.style import BASELINE, BLUE, CAPTION, FAINT, GREEN, NEUTRAL, ORANGE, PINK, ROW, SKY, VERMILION, YELLOW
from circuits.plots.text import shortened, wrapped
from circuits.search.discover import Discovery
from circuits.search.judging.compare import supporting_sign
from circuits.search.screening import Screening

MOST_NODES = 250
"""More than this and the picture would be too large to read."""
MOST_EDGES = 200
"""Of more edges the strongest that make whole paths are drawn, where edges have scores."""
_SMALL_NODES = 60
"""Nodes of a circuit that is drawn whole in a notebook's cell, and edges of one that is not."""

_ROLES = (SKY, ORANGE, GREEN, PINK, YELLOW, BLUE, VERMILION)
_NO_ROLE, _OTHER_ROLES = "#d9d9d9", BASELINE
_SUPPORTS, _OPPOSES, _UNSCORED = BLUE, VERMILION, NEUTRAL
_LEFT, _RIGHT, _MARGIN = 1.15, 0.25, 0.15
_NARROWEST = 6.0
ROLE_TOKENS = "role_tokens"
"""Under which a circuit's metadata hold tokens of each role in one of the prompts, as texts."""
_LINE = 0.21


@draws(Circuit)
def circuit_figure(circuit: Circuit, *, title: str | None = None) -> Figure:
    """Draw a circuit with its roles, scores and slots.

    A box is a node with its score; letters at the foot of a head say by which slot an edge enters (q, k, v). An edge's
    width is its |score|, relative to the largest, grey without one. Where `metadata["method"]` says what the sign means
    (after attribution a negative score supports the metric, after ACDC and verification a positive one), blue edges support
    the metric and orange ones oppose it; else blue scores are positive, orange ones negative. Of more than `MOST_EDGES` edges
    with scores the strongest that lie on paths made of them are drawn, which the picture says. Raises GraphError for more
    than `MOST_NODES` nodes. With roles of tokens these are columns, named along the bottom.
    """
    whole, circuit = circuit, _readable(circuit)
    if len(circuit.nodes) > MOST_NODES:
        raise GraphError(
            f"a picture of {len(circuit.nodes):,} nodes cannot be read (at most {MOST_NODES}): "
            "keep the strongest edges with circuit.top(k), or export .graphml for a graph viewer"
        )
    layout = lay_out(circuit)
    colours = _role_colours(circuit)
    entries = _legend_entries(circuit, colours)
    width = max(layout.width, _NARROWEST - _LEFT - _RIGHT)
    heading = wrapped(title or _heading(circuit), int((width + _LEFT) * 9), lines=2)
    top = _LINE * (heading.count("\n") + 2) + 2 * _MARGIN
    columns = max(1, int((width + _LEFT) / 2.1))
    bottom = _LINE * -(-len(entries) // columns) + _MARGIN + (3 * _LINE if layout.columns else 0)
    size = (width + _LEFT + _RIGHT, layout.height + top + bottom)
    figure = Figure(figsize=size)
    place = (_LEFT / size[0], bottom / size[1], width / size[0], layout.height / size[1])
    axes = figure.add_axes(place, xlim=(-width / 2, width / 2), ylim=(-BOX_HEIGHT / 4, layout.height - BOX_HEIGHT / 4))
    _name_rows(axes, layout, width)
    _name_columns(axes, circuit, layout)
    _draw_edges(axes, circuit, layout)
    _draw_nodes(axes, circuit, layout, colours)
    figure.text(0.5, 1 - _MARGIN / size[1], heading, ha="center", va="top", fontsize=11, parse_math=False)
    below = 1 - (top - _MARGIN) / size[1]
    figure.text(0.5, below, _counts(whole, circuit), ha="center", va="bottom", fontsize=8, color=CAPTION)
    if entries:
        figure.legend(handles=entries, loc="lower center", ncols=columns, fontsize=7.5, frameon=False)
    return figure


@draws(EdgeScores)
def _strongest(scores: EdgeScores, *, edges: int = 40) -> Figure:
    """The strongest edges by layer."""
    return circuit_figure(scores.top(edges))


@draws(Discovery, Screening)
def _found(found: Discovery | Screening) -> Figure:
    """The circuit that was found or confirmed."""
    return circuit_figure(found.circuit)


@draws_small(Circuit)
def _small(circuit: Circuit) -> Figure:
    """The circuit, or of one that would not fit a notebook's cell its strongest edges."""
    if len(circuit.nodes) <= _SMALL_NODES and len(circuit) <= 2 * _SMALL_NODES:
        return circuit_figure(circuit)
    some = circuit.top(_SMALL_NODES)
    few = some if some.edges else circuit.restricted((), list(circuit.nodes)[:_SMALL_NODES])
    what = f"the strongest {len(few):,} of {len(circuit):,} edges" if few.edges else f"{len(few.nodes)} of its nodes"
    return circuit_figure(few, title=f"{_heading(circuit)}: {what}")


@draws_small(Discovery, Screening)
def _found_small(found: Discovery | Screening) -> Figure:
    """The same of the circuit that was found or confirmed."""
    return _small(found.circuit)


def _heading(circuit: Circuit) -> str:
    task, model = circuit.metadata.get("task"), circuit.metadata.get("model")
    kind = f"{str(task).capitalize()} circuit" if task else "Circuit"
    return f"{kind} of {model}" if model else kind


def _readable(circuit: Circuit) -> Circuit:
    """The circuit, or of a large one so many of the strongest edges that `MOST_EDGES` at most lie on paths made of them."""
    if len(circuit.edges) <= MOST_EDGES or any(score is None for score in circuit.edges.values()):
        return circuit
    best, low, high = circuit.top(MOST_EDGES), MOST_EDGES, len(circuit.edges)
    while low <= high:
        middle = (low + high) // 2
        trial = circuit.top(middle).connected()
        if 0 < len(trial.edges) <= MOST_EDGES:
            best = trial
        if len(trial.edges) <= MOST_EDGES:
            low = middle + 1
        else:
            high = middle - 1
    return best


def _counts(circuit: Circuit, drawn: Circuit) -> str:
    nodes, edges = len(circuit.nodes), len(circuit.edges)
    whole = f"{nodes:,} of {circuit.graph.node_count:,} nodes, {edges:,} of {circuit.graph.edge_count:,} edges"
    part = f"; the strongest {len(drawn.edges):,} edges are drawn" if drawn is not circuit else ""
    return f"{whole}{part}; every edge runs upwards" if edges else whole


def _name_rows(axes: Axes, layout: CircuitLayout, width: float) -> None:
    axes.set_xticks([])
    axes.set_yticks([row.y for row in layout.rows], [row.label for row in layout.rows], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if not layout.rows:
        axes.text(0, BOX_HEIGHT / 4, "nothing in this circuit", ha="center", va="center", fontsize=9, color=FAINT)
    for row in layout.rows:
        axes.fill_between([-width / 2, width / 2], row.y - 0.33, row.y + 0.33, color=ROW, zorder=0, linewidth=0)


def _name_columns(axes: Axes, circuit: Circuit, layout: CircuitLayout) -> None:
    """The roles of tokens along the bottom, each with its tokens in one of the prompts, where the circuit knows them."""
    known = circuit.metadata.get(ROLE_TOKENS)
    top = layout.height - BOX_HEIGHT / 4
    for place, (role, left, right) in enumerate(layout.columns):
        most = max(4, int((right - left) * 10))
        axes.text((left + right) / 2, -0.3, shortened(role, most), ha="center", va="top", fontsize=9, fontweight="bold")
        if isinstance(known, Mapping) and isinstance(known.get(role), str):
            tokens = shortened(str(known[role]), most)
            axes.text((left + right) / 2, -0.5, tokens, ha="center", va="top", fontsize=7.5, color=CAPTION, parse_math=False)
        if place:
            axes.plot([left, left], [-0.1, top], color=BASELINE, linewidth=0.8, linestyle=":", zorder=0.5)


def _draw_edges(axes: Axes, circuit: Circuit, layout: CircuitLayout) -> None:
    largest, supporting = _largest(circuit), supporting_sign(circuit) or 1
    for (edge, _), points in layout.paths.items():
        score = circuit.edges[edge]
        line = PathPatch(
            _curve(points),
            facecolor="none",
            edgecolor=_UNSCORED if score is None else _OPPOSES if score * supporting < 0 else _SUPPORTS,
            linewidth=_line_width(score, largest),
            alpha=0.85 if len(circuit.edges) <= 60 else 0.6,
            capstyle="butt",
            zorder=1 if score is None else 2,
        )
        line.set_gid(str(edge))
        axes.add_patch(line)


def _largest(circuit: Circuit) -> float:
    return max((abs(score) for score in circuit.edges.values() if score is not None), default=0.0)


def _line_width(score: float | None, largest: float) -> float:
    return 0.8 if score is None or not largest else 0.8 + 3.4 * abs(score) / largest


def _curve(points: tuple[Point, ...]) -> Path:
    """Smooth steps from point to point that leave and arrive vertically."""
    corners, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        corners += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(corners, codes)


def _draw_nodes(axes: Axes, circuit: Circuit, layout: CircuitLayout, colours: Mapping[str, str]) -> None:
    slots: dict[Node | Reader, set[Slot]] = {}
    for edge, end in layout.paths:
        if edge.slot is not None and not isinstance(end, Reader):
            slots.setdefault(end, set()).add(edge.slot)
    for item, (x, y) in layout.centres.items():
        shared = isinstance(item, Reader)
        role = None if shared else circuit.roles.get(item)
        score = None if shared else circuit.nodes[item]
        rounding = 0.12 if not shared and item.kind == "head" else 0.02
        box = FancyBboxPatch(
            (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2),
            BOX_WIDTH,
            BOX_HEIGHT,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor="white" if shared else _tint(_NO_ROLE if role is None else colours[role]),
            edgecolor=CAPTION if role is None else colours[role],
            linestyle="dashed" if shared else "solid",
            linewidth=1.2,
            zorder=3,
        )
        box.set_gid(str(item))
        axes.add_patch(box)
        lift = (0.05 if score is not None else 0.0) + (0.06 if slots.get(item, set()) else 0.0)
        plain = Reader(item.node.everywhere, item.slot) if isinstance(item, Reader) else item.everywhere
        name = shortened(str(plain), 13)
        axes.text(x, y + lift, name, ha="center", va="center", fontsize=8 if len(name) < 10 else 6.5, zorder=4)
        if score is not None:
            axes.text(x, y + lift - 0.13, f"{score:+.3g}", ha="center", va="center", fontsize=6, zorder=4)
        for slot in sorted(slots.get(item, set())):
            axes.text(x + PORTS[slot], y - 0.195, slot, ha="center", va="center", fontsize=6.5, style="italic", zorder=4)


def _tint(colour: str) -> str:
    """The colour mixed with white, so that black text on it reads well."""
    return "#" + "".join(f"{int(255 - 0.45 * (255 - int(colour[i : i + 2], 16))):02x}" for i in (1, 3, 5))


def _role_colours(circuit: Circuit) -> dict[str, str]:
    """A colour a role, in the order of their names; beyond the palette, roles share one grey."""
    roles = sorted(set(circuit.roles.values()))
    return {role: _ROLES[place] if place < len(_ROLES) else _OTHER_ROLES for place, role in enumerate(roles)}


def _legend_entries(circuit: Circuit, colours: Mapping[str, str]) -> list[Patch | Line2D]:
    entries: list[Patch | Line2D] = []
    for role, colour in list(colours.items())[: len(_ROLES)]:
        entries.append(Patch(facecolor=_tint(colour), edgecolor=colour, label=shortened(role, 24).replace("$", r"\$")))
    if len(colours) > len(_ROLES):
        entries.append(Patch(facecolor=_tint(_OTHER_ROLES), edgecolor=_OTHER_ROLES, label="other roles"))
    scores = [score for score in circuit.edges.values() if score is not None]
    largest, supporting = _largest(circuit), supporting_sign(circuit)
    for sign, colour, word in ((supporting or 1, _SUPPORTS, "supports"), (-supporting or -1, _OPPOSES, "opposes")):
        strongest = max((sign * score for score in scores), default=0.0)
        if strongest > 0:
            reach = f"up to {sign * strongest:+.3g}"
            label = f"{word}, score {reach}" if supporting else f"edge score {reach}"
            entries.append(Line2D([], [], color=colour, linewidth=_line_width(strongest, largest), label=label))
    if len(scores) < len(circuit.edges):
        entries.append(Line2D([], [], color=_UNSCORED, linewidth=0.8, label="edge without score"))
    return entries
