"""Direct logit attribution: nodes by layer, the largest rows, and where the strongest heads take theirs from."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import NonFiniteError
from circuits.files.pictures import draws
from circuits.lenses import DirectLogits
from circuits.plots.style import EMPTY, INK, NEGATIVE, POSITIVE, SIGNED, annotate, colour_bar, frame
from circuits.plots.text import shortened, shown_token, wrapped

_BARS, _HEADS = 16, 6
_ANNOTATED = 16
"""Up to so many rows and columns, each cell shows its number."""
_MOST_TOKENS = 40
"""Source positions side by side; of a longer prompt the last ones are drawn."""


@draws(DirectLogits)
def direct_logits_figure(found: DirectLogits, *, title: str | None = None, prompt: int | None = None) -> Figure:
    """Draw what each node adds to the logit (difference): a heatmap of layers, heads and MLPs, bars of the 16 largest rows, and
    where sources were computed, a map of what the six strongest heads take from each token.

    Means over prompts with bars of one standard error, or `prompt` alone. Sources are those of `prompt`, or of the first
    prompt. Blue speaks for the answer, orange against it. Raises NonFiniteError for a row that is no number.
    """
    values = (found.mean if prompt is None else found.values[:, prompt]).numpy()
    if not np.isfinite(values).all():
        raise NonFiniteError(f"the contribution of {found.rows[int((~np.isfinite(values)).argmax())]} is no finite number")
    grid, columns = _by_layer(found, values)
    width = min(max(0.36 * len(columns), 2.6), 9.0)
    height = max(min(max(0.36 * len(grid), 1.6), 7.0), 0.2 * min(len(values), _BARS) + 0.4)
    tall = 0.0 if found.sources is None else 0.26 * _HEADS + 1.5
    figure = Figure(figsize=(width + 6.0, height + tall + 1.5), layout="constrained")
    upper, lower = figure, None
    if found.sources is not None:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(height + 1.0, tall))[:, 0]
    left, right = upper.subplots(1, 2, width_ratios=(width + 1.0, 4.0))
    _heatmap(left, grid, columns)
    errors = found.standard_error.numpy() if prompt is None and len(found.total) > 1 else None
    _bars(right, found, values, errors)
    if lower is not None:
        _source_map(lower.subplots(), found, values, prompt or 0)
    figure.suptitle(wrapped(title or _heading(found, prompt), int((width + 6.0) * 10)), fontsize=10.5, parse_math=False)
    return figure


def _heading(found: DirectLogits, prompt: int | None) -> str:
    model, count = shortened(found.model, 40), len(found.total)
    if prompt is None and count > 1:
        what = "the logit difference" if found.distractors else "the answer's logit"
        where = f"mean over {count} prompts, {float(found.total.mean()):.3g}"
    else:
        row = prompt or 0
        against = f" less {shown_token(found.distractors[row])}" if found.distractors else ""
        what, where = f"the logit of {shown_token(found.answers[row])}{against}", f"{float(found.total[row]):.3g}"
    capped = " before the model's cap" if found.capped else ""
    return f"What each node of {model} adds to {what} ({where}{capped})"


def _by_layer(found: DirectLogits, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Layers by heads and MLP; NaN where there is none."""
    layers = 1 + max(int(head[1:].split(".")[0]) for head in found.heads)
    heads = len(found.heads) // layers
    grid = np.full((layers, heads + 1), np.nan)
    for row, value in zip(found.rows, values, strict=True):
        place, _, part = row.partition(".")
        if row in found.heads:
            grid[int(place[1:]), int(part[1:])] = value
        elif place[0] == "m" and place[1:].isdigit():
            cell = (int(place[1:]), heads)
            grid[cell] = value if np.isnan(grid[cell]) else grid[cell] + value  # neurons, their rest and the bias
    names = [*map(str, range(heads)), "MLP"]
    return (grid, names) if not np.isnan(grid[:, -1]).all() else (grid[:, :-1], names[:-1])


def _heatmap(axes: Axes, grid: np.ndarray, columns: list[str]) -> None:
    reach = max(float(np.nanmax(np.abs(grid))), 1e-12)
    options = {"cmap": SIGNED, "vmin": -reach, "vmax": reach, "aspect": "auto", "interpolation": "nearest"}
    image = axes.imshow(grid, origin="lower", **options)
    axes.set_facecolor(EMPTY)
    places = list(_places(len(columns) - (columns[-1] == "MLP"))) + ([len(columns) - 1] if columns[-1] == "MLP" else [])
    axes.set_xticks(places, [columns[place] for place in places])
    axes.set_yticks(_places(len(grid)))
    axes.tick_params(labelsize=7.5)
    axes.set_xlabel("head, and the layer's MLP" if columns[-1] == "MLP" else "head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    axes.set_title("by layer", fontsize=9)
    if columns[-1] == "MLP":
        axes.axvline(len(columns) - 1.5, color="white", linewidth=4)
    colour_bar(axes, image, "logits")
    if max(grid.shape) <= _ANNOTATED:
        annotate(axes, image, grid, digits=_digits(grid))


def _places(count: int) -> range:
    return range(0, count, next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, count) if count / step <= 16))


def _digits(logits: np.ndarray) -> int:
    """Digits that fit into a cell."""
    return 1 if float(np.nanmax(np.abs(logits))) >= 1 else 2


def _bars(axes: Axes, found: DirectLogits, values: np.ndarray, errors: np.ndarray | None) -> None:
    order = np.argsort(-np.abs(values), kind="stable")[:_BARS]
    places, shown = np.arange(len(order)), values[order]
    colours = [NEGATIVE if value < 0 else POSITIVE for value in shown]
    lines = {"xerr": errors[order], "error_kw": {"ecolor": INK, "elinewidth": 1.0}} if errors is not None else {}
    axes.barh(places, shown, height=0.7, color=colours, **lines)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, [found.rows[row] for row in order], fontsize=8)
    axes.set_ylim(len(order) - 0.4, -0.6)
    frame(axes, grid="x")
    axes.set_xlabel("logits" if errors is None else "logits; lines: one standard error", fontsize=9)
    more = f"the {len(order)} largest of {len(values):,}" if len(order) < len(values) else f"all {len(values)}"
    axes.set_title(f"rows: {more}", fontsize=9)


def _source_map(axes: Axes, found: DirectLogits, values: np.ndarray, prompt: int) -> None:
    rows = [found.rows.index(head) for head in found.heads]
    strongest = [found.heads[place] for place in np.argsort(-np.abs(values[rows]), kind="stable")[:_HEADS]]
    tokens = found.tokens[prompt]
    columns = [column for column, token in enumerate(tokens) if token][-_MOST_TOKENS:]
    table = np.stack([found.by_source(head)[prompt].numpy()[columns] for head in strongest])
    reach = max(float(np.abs(table).max()), 1e-12)
    image = axes.imshow(table, cmap=SIGNED, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    axes.set_xticks(
        range(len(columns)), [shown_token(tokens[column]) for column in columns], rotation=90, fontsize=7, parse_math=False
    )
    axes.set_yticks(range(len(strongest)), strongest, fontsize=7.5)
    axes.set_xlabel(f"token that the head takes it from{f' (prompt {prompt})' if len(found.tokens) > 1 else ''}", fontsize=9)
    left_out = sum(bool(token) for token in tokens) - len(columns)
    axes.set_title("strongest heads by source" + (f"; the first {left_out} tokens left out" if left_out else ""), fontsize=9)
    colour_bar(axes, image, "logits", fraction=0.02, pad=0.01)
    if max(table.shape) <= _ANNOTATED:
        annotate(axes, image, table, digits=_digits(table))
