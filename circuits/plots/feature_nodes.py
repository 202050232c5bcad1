"""Features as nodes: how much each does, where, and how sure that is."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.concepts import AttributionGraph, FeatureCircuit, FeatureScores, GraphNode
from circuits.files.pictures import draws
from circuits.plots.style import BLUE, ERRORS, GREEN, INK, NEUTRAL, ORANGE, SIGNED, VERMILION, colour_bar, frame
from circuits.plots.text import shortened, shown_token, wrapped

MOST = 20
_COLUMNS = 24
"""Tokens that are drawn, those nearest to the answer's."""


@draws(FeatureScores)
def feature_scores_figure(found: FeatureScores, *, title: str | None = None) -> Figure:
    """Draw the largest nodes: the estimated effect of each with its interval and the measured one as a mark; beside it at which
    tokens, counted from the answer's."""
    rows = found.order()[:MOST]
    figure = Figure(figsize=(10.2, 0.26 * max(len(rows), 4) + 1.7), layout="constrained")
    bars, heat = figure.subplots(1, 2, sharey=True, width_ratios=[1.15, 1])
    effects, measured = found.effects(), found.measured()
    places = np.arange(len(rows))
    values = np.array([[effects[row].effect, effects[row].low, effects[row].high] for row in rows]).reshape(-1, 3)
    reach = np.clip(np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]), 0, None)
    colours = [
        NEUTRAL if ".f" not in found.names[row] else BLUE if value > 0 else VERMILION
        for row, value in zip(rows, values[:, 0], strict=True)
    ]
    several = len(found.clean) > 1
    bars.barh(places, values[:, 0], height=0.7, color=colours, xerr=reach if several else None, error_kw=ERRORS)
    there = [(place, measured[row].effect) for place, row in enumerate(rows) if measured[row] is not None]  # type: ignore[union-attr]
    if there:
        bars.plot([x for _, x in there], [y for y, _ in there], "D", color=INK, markersize=4, label="measured")
        bars.legend(fontsize=7.5, frameon=False, loc="best")
    bars.axvline(0, color=INK, linewidth=0.8)
    bars.set_yticks(places, [shortened(found.names[row], 30) for row in rows], fontsize=8, parse_math=False)
    bars.set_ylim(len(rows) - 0.4, -0.6)
    bars.set_xlabel("share of the way from the clean to the corrupt answer\n(grey: no features)", fontsize=8.5)
    frame(bars, grid="x")
    _by_token(heat, found, rows)
    figure.suptitle(wrapped(title or found.summary, 115), fontsize=10, parse_math=False)
    return figure


def _by_token(axes: Axes, found: FeatureScores, rows: list[int]) -> None:
    """The scores of nodes by token."""
    first = max(0, found.offsets.index(0) - _COLUMNS + 1) if 0 in found.offsets else 0
    shown = found.by_position[rows, first:].double().numpy()
    offsets = found.offsets[first:]
    # Errors may be far larger than any feature, whose pattern they would hide: they may run out of the scale.
    features = [place for place, row in enumerate(rows) if ".f" in found.names[row]]
    limit = float(np.abs(shown[features] if features else shown).max()) if shown.size else 0.0
    limit = limit or 1.0
    image = axes.imshow(shown, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    step = max(1, len(offsets) // 10)
    ticks = [place for place, offset in enumerate(offsets) if offset % step == 0]
    axes.set_xticks(ticks, [str(offsets[place]) for place in ticks], fontsize=8)
    axes.set_xlabel("token, counted from the answer's", fontsize=8.5)
    axes.tick_params(left=False, labelleft=False)
    axes.spines[:].set_visible(False)
    colour_bar(axes, image, "change of the metric")


@draws(FeatureCircuit)
def feature_circuit_figure(found: FeatureCircuit, *, title: str | None = None) -> Figure:
    """Draw the circuit's nodes by their attributions, and faithfulness over the number of nodes: alone, with as many random
    features, and what the model keeps without them."""
    shown = list(range(min(MOST, len(found))))
    figure = Figure(figsize=(10.2, max(3.6, 0.24 * len(shown) + 1.6)), layout="constrained")
    bars, axes = figure.subplots(1, 2, width_ratios=[1, 1.3])
    values = np.array([found.scores[row] for row in shown])
    signed = [BLUE if value > 0 else VERMILION for value in values]
    colours = [colour if ".f" in found.nodes[row] else NEUTRAL for row, colour in zip(shown, signed, strict=True)]
    bars.barh(shown, values, height=0.7, color=colours)
    bars.axvline(0, color=INK, linewidth=0.8)
    bars.set_yticks(shown, [shortened(found.nodes[row], 30) for row in shown], fontsize=8, parse_math=False)
    bars.set_ylim(max(len(shown), 4) - 0.4, -0.6)
    more = f"\n{len(shown)} of {len(found):,} nodes" if len(shown) < len(found) else ""
    bars.set_xlabel(f"attribution: change of the metric{more}", fontsize=8.5)
    frame(bars, grid="x")
    _over_sizes(axes, found)
    figure.suptitle(wrapped(title or found.summary, 115), fontsize=10, parse_math=False)
    return figure


def _over_sizes(axes: Axes, found: FeatureCircuit) -> None:
    """Faithfulness over the number of nodes."""
    sizes = np.array(found.sizes, dtype=float)
    drawn = [(found.curve, BLUE, "these nodes alone"), (found.curve_without, GREEN, "model without them")]
    if found.curve_out != found.curve:
        drawn.insert(1, (found.curve_out, ORANGE, "with errors outside"))
    for effects, colour, said in drawn:
        low, high = ([getattr(one, end) for one in effects] for end in ("low", "high"))
        axes.plot(sizes, [one.effect for one in effects], "o-", color=colour, markersize=3.5, linewidth=1.3, label=said)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    if len(found.random):
        chance = found.random.double().numpy()
        said = "random features, same errors"
        axes.plot(sizes, chance.mean(axis=0), color=NEUTRAL, linestyle="--", linewidth=1.2, label=said)
        axes.fill_between(sizes, chance.min(axis=0), chance.max(axis=0), color=NEUTRAL, alpha=0.15, linewidth=0)
    axes.axvline(len(found), color=INK, linewidth=0.8, linestyle=":", label="the circuit")
    for level in (0, 1):
        axes.axhline(level, color=INK, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("nodes, the largest attributions first", fontsize=8.5)
    axes.set_ylabel("faithfulness", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False)
    frame(axes)


_DRAWN_NODES, _DRAWN_LINKS = 60, 150
"""Nodes and links of an attribution graph that are drawn, those of most influence and of largest weight among them."""
_MARKS = {"embedding": ("s", NEUTRAL), "feature": ("o", BLUE), "error": ("D", ORANGE), "mlp": ("^", GREEN), "logit": ("s", INK)}


@draws(AttributionGraph)
def attribution_graph_figure(found: AttributionGraph, *, title: str | None = None) -> Figure:
    """Draw an attribution graph: tokens from left to right, layers upwards, the nodes of most influence as marks of its size,
    links by the size and the sign of their weights among all that their target reads."""
    order = sorted(range(len(found.nodes)), key=lambda row: -_weight_of(found.nodes[row]))[:_DRAWN_NODES]
    figure = Figure(figsize=(max(7.0, 0.85 * len(found.tokens) + 2), 6.2), layout="constrained")
    axes = figure.subplots()
    places = _graph_places(found, sorted(order))
    _draw_links(axes, found, places)
    for kind, (mark, colour) in _MARKS.items():
        rows = [row for row in order if found.nodes[row].kind == kind]
        if rows:
            sizes = [18 + 160 * min(1.0, _weight_of(found.nodes[row])) for row in rows]
            at = np.array([places[row] for row in rows])
            axes.scatter(at[:, 0], at[:, 1], s=sizes, marker=mark, color=colour, zorder=3, label=kind, edgecolors="white")
    for row in order[:_NAMED]:
        node = found.nodes[row]
        said = f"{node.place}.f{node.index}" if node.kind == "feature" else node.label if node.kind == "logit" else ""
        if said:
            offset = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 6.5, "color": INK}
            axes.annotate(shown_token(said), places[row], parse_math=False, **offset)
    axes.set_xticks(range(len(found.tokens)), [shown_token(token) for token in found.tokens], fontsize=8, parse_math=False)
    axes.set_yticks(range(-1, found.n_layers + 1), ["embedding", *map(str, range(found.n_layers)), "logits"], fontsize=8)
    axes.set_xlim(-0.6, len(found.tokens) - 0.4)
    axes.set_ylabel("layer", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    frame(axes, grid=None)
    few = f" ({len(order)} of {len(found.nodes):,} nodes drawn)" if len(order) < len(found.nodes) else ""
    figure.suptitle(wrapped(title or f"{found.summary}{few}", 110), fontsize=10, parse_math=False)
    return figure


_NAMED = 26
"""Nodes whose names are written."""


def _weight_of(node: GraphNode) -> float:
    """How much a node counts: its influence, or a logit's probability."""
    return node.value if node.kind == "logit" else node.influence


def _graph_places(found: AttributionGraph, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Where nodes are drawn: those of one token and layer beside each other."""
    beside: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        beside.setdefault((found.nodes[row].position, found.nodes[row].layer), []).append(row)
    places = {}
    for (position, layer), some in beside.items():
        for order, row in enumerate(some):
            shift = 0.0 if len(some) == 1 else 0.7 * order / (len(some) - 1) - 0.35
            places[row] = (position + shift, layer + 0.18 * (order % 3 - 1) * (len(some) > 3))
    return places


def _draw_links(axes: Axes, found: AttributionGraph, places: dict[int, tuple[float, float]]) -> None:
    """The links between nodes that are drawn, the strongest of them."""
    ends = zip(found.sources.tolist(), found.targets.tolist(), found.weights.tolist(), strict=True)
    whole: dict[int, float] = {}
    for target, weight in zip(found.targets.tolist(), found.weights.tolist(), strict=True):
        whole[target] = whole.get(target, 0.0) + abs(weight)
    shown = [(a, b, w / (whole[b] or 1.0)) for a, b, w in ends if a in places and b in places]
    for a, b, share in sorted(shown, key=lambda one: -abs(one[2]))[:_DRAWN_LINKS]:
        (x, y), (u, v) = places[a], places[b]
        colour = BLUE if share > 0 else VERMILION
        axes.plot([x, u], [y, v], color=colour, linewidth=0.4 + 3 * abs(share), alpha=0.15 + 0.5 * abs(share), zorder=1)
