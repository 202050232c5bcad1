"""Effects of patches: heads by layer, sites by position, the largest ones as bars."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import CircuitsError, NonFiniteError
from circuits.files.pictures import draws
from circuits.patching import Effects
from circuits.patching.effects import WORDS
from circuits.plots.style import CAPTION, EMPTY, INK, NEGATIVE, POSITIVE, SIGNED, annotate, colour_bar, frame
from circuits.plots.text import shortened, shown_token, wrapped
from circuits.statistics import Effect

MOST_BARS = 20
_MOST_ROWS = 150
"""Sites one above the other, before bars are easier to read."""
_ANNOTATED = 16
"""Up to so many rows and columns, each cell shows its number."""
_HEAD = re.compile(r"a(\d+)\.h(\d+)(<\w+>)?", re.ASCII)
_MLP = re.compile(r"m(\d+)", re.ASCII)
LEAST = 0.05
"""The least effect that is drawn in full colour, so that noise does not look like a finding."""
_SHARE = "share of the gap bridged (0 = nothing, 1 = all of it)"
_SLOTS = {"<q>": "queries", "<k>": "keys", "<v>": "values", "<pattern>": "patterns"}


@draws(Effects)
def effects_figure(effects: Effects, *, title: str | None = None) -> Figure:
    """Draw effects in the form that their names allow.

    Heads (with or without MLPs, or one slot of heads): a heatmap of layers and heads. Sites at several positions: a heatmap
    of sites and positions, labelled by `effects.metadata["tokens"]` where there are as many. Anything else: bars of the 20
    largest by size, with 95 % intervals. Colours are centred at 0: blue moves the metric from
    the run that is patched towards the other one, orange away from it. Raises NonFiniteError for effects
    that are no numbers.
    """
    values = effects.effect().double().cpu().numpy()
    if not len(values):
        raise CircuitsError("there are no effects to draw")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"the effect of {effects.names[int((~np.isfinite(values)).argmax())]} is no finite number")
    heading = title or heading_of(effects)
    sites, place = _at_one_place(effects.names)
    by_head = _head_grid(sites)
    if by_head:
        return _head_figure(by_head, dict(zip(sites, values, strict=True)), heading + (f", at {place}" if place else ""))
    grid = _position_grid(effects.names)
    if grid:
        return _position_figure(*grid, values, _tokens(effects, grid[1]), heading)
    top = largest(effects, MOST_BARS)
    more = f"; {len(top)} of {len(effects):,}, the largest" if len(top) < len(effects) else ""
    return bars(list(zip(top.names, top.intervals(), strict=True)), f"{heading}{more}", _SHARE, len(effects.clean))


def largest(effects: Effects, k: int) -> Effects:
    """The k effects of largest size, from the largest on, so that intervals of others need not be drawn."""
    rows = effects.effect().abs().argsort(descending=True, stable=True)[:k].tolist()
    return effects.chosen(rows)


def bars(rows: Sequence[tuple[str, Effect]], heading: str, label: str, prompts: int) -> Figure:
    """Horizontal bars, the first one on top, with their intervals and their numbers at the right."""
    names = [shortened(without_slots(name), 44) for name, _ in rows]
    effects = np.array([[found.effect, found.low, found.high] for _, found in rows])
    left = 0.4 + 0.075 * max(map(len, names))
    figure = Figure(figsize=(left + 5.6, 0.25 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    colours = [NEGATIVE if value < 0 else POSITIVE for value in effects[:, 0]]
    reach = np.clip(np.stack([effects[:, 0] - effects[:, 1], effects[:, 2] - effects[:, 0]]), 0, None)
    errors = {"ecolor": INK, "elinewidth": 1.0, "capsize": 2.0} if prompts > 1 else {}
    axes.barh(places, effects[:, 0], height=0.7, color=colours, xerr=reach if prompts > 1 else None, error_kw=errors)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(places, [f"{value:+#.3g}" for value in effects[:, 0]], fontsize=7)
    numbers.tick_params(length=0)
    frame(axes, grid="x")
    numbers.spines[:].set_visible(False)
    how = f"{prompts} prompts; lines: 95 % intervals" if prompts > 1 else "1 prompt, so no intervals"
    axes.set_xlabel(f"{label}\n{how}", fontsize=8.5, parse_math=False)
    figure.suptitle(wrapped(heading, int((left + 5.6) * 11)), fontsize=10.5, parse_math=False)
    return figure


def without_slots(name: str) -> str:
    """A path's name, with a head that is entered by all three slots written as the head alone."""
    return re.sub(r"(a\d+\.h\d+)<q>\+\1<k>\+\1<v>", r"\1", name, flags=re.ASCII)


def heading_of(effects: Effects) -> str:
    """What was patched, in which model, and how it was measured."""
    about = effects.metadata
    metric = str(about.get("metric", "the metric")).replace("_", " ")
    how = WORDS[effects.direction]
    model, count = about.get("model"), len(effects.clean)
    of = f" of {shortened(str(model), 40)}" if model else ""
    return f"Patching {about.get('patched', 'nodes')}{of}: {metric}, {how}, {count} prompt{'s' if count > 1 else ''}"


def _tokens(effects: Effects, labels: list[str]) -> list[str]:
    """What stands at each position: its token where the effects know it, else its number or name."""
    tokens: Any = effects.metadata.get("tokens")
    if not isinstance(tokens, list | tuple) or not all(label.isdigit() and int(label) < len(tokens) for label in labels):
        return [shortened(label, 16) for label in labels]
    return [f"{shown_token(str(tokens[int(label)]))} {label}" for label in labels]


# Heads by layer


def _at_one_place(names: Sequence[str]) -> tuple[list[str], str]:
    """Sites and the position that all names share; "" where they name none, or several."""
    places = {name.partition("@")[2] for name in names}
    return ([name.partition("@")[0] for name in names], places.pop()) if len(places) == 1 else (list(names), "")


def _head_grid(names: Sequence[str]) -> dict[tuple[int, str], str]:
    """Name of each cell (layer, column), the columns head indices and "MLP"; empty where the names are no such grid."""
    cells: dict[tuple[int, str], str] = {}
    slots = set()
    for name in names:
        if head := _HEAD.fullmatch(name):
            cells[int(head[1]), head[2]] = name
            slots.add(head[3])
        elif mlp := _MLP.fullmatch(name):
            cells[int(mlp[1]), "MLP"] = name
        elif name == "input":
            cells[-1, "MLP"] = name
        else:
            return {}
    heads = [cell for cell in cells if cell[1] != "MLP"]
    size = len({layer for layer, _ in heads}) * len({column for _, column in heads})
    whole = len(slots) == 1 and len(cells) == len(names) and 4 <= size <= 2 * len(heads)
    return cells if whole and (slots == {None} or len(heads) == len(cells)) else {}


def _head_figure(cells: dict[tuple[int, str], str], values: dict[str, float], heading: str) -> Figure:
    layers = sorted({layer for layer, _ in cells if layer >= 0})
    heads = sorted({int(column) for _, column in cells if column != "MLP"})
    columns = [*map(str, heads), *(["MLP"] if any(column == "MLP" and layer >= 0 for layer, column in cells) else [])]
    table = np.full((len(layers), len(columns)), np.nan)
    for (layer, column), name in cells.items():
        if layer >= 0:
            table[layers.index(layer), columns.index(column)] = values[name]
    slot = next((word for ending, word in _SLOTS.items() if next(iter(values)).endswith(ending)), "")
    note = f"the input (all embeddings): {values['input']:+.2f}" if "input" in values else ""
    figure, axes = _heatmap(table, [str(layer) for layer in layers], columns, heading, note)
    axes.set_xlabel(f"head ({slot})" if slot else "head, and the layer's MLP" if "MLP" in columns else "head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    if "MLP" in columns:
        axes.axvline(len(heads) - 0.5, color="white", linewidth=4)
    return figure


# Sites by position


def _position_grid(names: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Sites and positions, where the names are every one of the former at every one of several of the latter."""
    parts = [name.rpartition("@") for name in names]
    sites = list(dict.fromkeys(site for site, _, _ in parts))
    positions = list(dict.fromkeys(position for _, _, position in parts))
    expected = [f"{site}@{position}" for site in sites for position in positions]
    edges = any("->" in site for site in sites)
    fits = len(positions) >= 2 and len(sites) <= _MOST_ROWS and not edges
    return (sites, positions) if fits and expected == list(names) else None


def _position_figure(sites: list[str], positions: list[str], values: np.ndarray, labels: list[str], heading: str) -> Figure:
    table = values.reshape(len(sites), len(positions))
    figure, axes = _heatmap(table, [shortened(site, 24) for site in sites], labels, heading)
    axes.set_xlabel("position", fontsize=9)
    axes.set_ylabel("patched site", fontsize=9)
    return figure


# Both


def _heatmap(table: np.ndarray, rows: list[str], columns: list[str], heading: str, note: str = "") -> tuple[Figure, Axes]:
    """A heatmap with its first row at the bottom, cells without a value in grey, colours centred at 0."""
    few = max(table.shape) <= _ANNOTATED
    cell = 0.36 if few else 0.2
    height, width = (min(max(cell * count, 1.6), most) for count, most in zip(table.shape, (14.0, 12.0), strict=True))
    size = (width + 0.075 * max(map(len, rows)) + 1.6, height + 0.07 * max(map(len, columns)) + 1.3)
    figure = Figure(figsize=(max(size[0], 5.0), size[1]), layout="constrained")
    axes = figure.subplots()
    reach = max(float(np.nanmax(np.abs(table))), LEAST)
    scale = {"cmap": SIGNED, "vmin": -reach, "vmax": reach}
    image = axes.imshow(table, origin="lower", aspect="auto", interpolation="nearest", **scale)
    axes.set_facecolor(EMPTY)
    long = max(map(len, columns)) > 3
    shown = _ticks(len(columns), width), _ticks(len(rows), height)
    turn = 90 if long else 0
    axes.set_xticks(shown[0], [columns[place] for place in shown[0]], fontsize=7.5, parse_math=False, rotation=turn)
    axes.set_yticks(shown[1], [rows[place] for place in shown[1]], fontsize=7.5, parse_math=False)
    colour_bar(axes, image, "share of the gap bridged")
    if few:
        annotate(axes, image, table)
    if note:
        axes.set_title(note, fontsize=8.5, color=CAPTION, parse_math=False)
    figure.suptitle(wrapped(heading, int(max(size[0], 5.0) * 11)), fontsize=10.5, parse_math=False)
    return figure, axes


def _ticks(count: int, inches: float) -> range:
    """As many places as have room for a label."""
    return range(0, count, max(1, -(-count * 12 // int(72 * inches))))
