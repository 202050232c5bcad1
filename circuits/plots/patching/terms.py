"""What orders of terms and layers are worth, in loss."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuits.files.pictures import draws
from circuits.patching.ablation.layers import LayerRemoval
from circuits.patching.ablation.terms import Terms
from circuits.plots.heads.tables import every
from circuits.plots.style import BLUE, FAINT, INK, ORANGE, SIGNED, SKY, VERMILION, colour_bar, frame
from circuits.plots.text import shortened, wrapped

_COLOURS = {"loss": VERMILION, "direct": BLUE, "total": SKY, "compensation": ORANGE}
_PARTS = {"attention": "attention removed", "mlp": "MLP removed", "both": "both removed"}


@draws(Terms)
def terms_figure(terms: Terms, *, title: str | None = None) -> Figure:
    """Draw the loss (nats a token) with terms up to each order, with the model's own as a line; beside it, by how much the loss
    rises without each head's term of order 1 (of all orders measured, a panel each)."""
    orders = len(terms.heads)
    width = min(max(0.4 * terms.heads.shape[2], 2.2), 5.5) if orders else 0.0
    figure = Figure(figsize=(4.6 + orders * (width + 1.2), max(3.4, 0.32 * terms.heads.shape[1] + 1.8)), layout="constrained")
    ratios = [4.2] + [width + 1.2] * orders
    grid = figure.subplots(1, 1 + orders, squeeze=False, width_ratios=ratios)[0]
    means = [terms.loss(order) for order in range(len(terms.losses))]
    axes = grid[0]
    axes.bar(range(len(means)), means, color=BLUE, width=0.7)
    axes.axhline(terms.full_loss, color=VERMILION, linewidth=1.2, label=f"the model, {terms.full_loss:.3f}")
    axes.axhline(terms.uniform, color=FAINT, linewidth=1.0, linestyle=":", label=f"knowing nothing, {terms.uniform:.2f}")
    for order, mean in enumerate(means):
        axes.text(order, 0.5 * mean, f"{mean:.2f}", ha="center", va="center", fontsize=7.5, color="white")
    axes.set_xticks(range(len(means)), ["direct\npath", *(f"order\n≤ {n}" for n in range(1, len(means)))], fontsize=8)
    axes.set_ylim(0, max(*means, terms.uniform) * 1.3)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    _frame(axes, "loss with terms up to an order", "", "loss (nats a token)")
    for order, panel in enumerate(grid[1:], 1):
        _heatmap(panel, terms.heads[order - 1].numpy(), f"rise without a head's order-{order} term")
    heading = title or f"Order of terms in {shortened(terms.model, 40)}" + _said(terms)
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10)), fontsize=11, parse_math=False)
    return figure


@draws(LayerRemoval)
def layer_removal_figure(removal: LayerRemoval, *, title: str | None = None) -> Figure:
    """Draw, a column for each removed part: above, the rise of the loss without each layer; below, the layer's direct effect on
    the true next token's logit, the total effect, and what later layers make up for."""
    count, layers = removal.loss.shape[:2]
    width = min(max(0.5 * layers + 1.0, 3.3), 7.0)
    figure = Figure(figsize=(width * count + 0.5, 5.6), layout="constrained")
    grid = figure.subplots(2, count, squeeze=False, sharex="col", sharey="row")
    means = {name: removal.mean(name).numpy() for name in _COLOURS}
    for index, part in enumerate(removal.parts):
        above, below = grid[0, index], grid[1, index]
        above.bar(range(layers), means["loss"][index], 0.7, color=_COLOURS["loss"])
        _frame(above, _PARTS[part], "", "rise of loss (nats)" if index == 0 else "")
        for place, name in enumerate(("direct", "total", "compensation")):
            offset = np.arange(layers) + 0.27 * (place - 1)
            below.bar(offset, means[name][index], 0.25, color=_COLOURS[name], label=name)
        _frame(below, "", "removed layer", "true token's logit" if index == 0 else "")
        below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    stand = "0" if removal.kind == "zero" else "its mean"
    heading = title or f"{shortened(removal.model, 40)} without each layer (replaced by {stand}); loss {removal.full_loss:.3f}"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 10)), fontsize=11, parse_math=False)
    return figure


def _said(terms: Terms) -> str:
    return {"frozen": "; MLPs as the run wrote them", "zero": "; MLPs left out", "none": ""}[terms.mlps]


def _heatmap(axes: Axes, values: np.ndarray, title: str) -> None:
    largest = max(1e-9, float(np.abs(values).max()))
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=SIGNED, vmin=-largest, vmax=largest)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    axes.set_xticks(every(values.shape[1]))
    axes.set_yticks(every(values.shape[0]))
    axes.tick_params(labelsize=8)
    colour_bar(axes, image, "nats a token", fraction=0.06, pad=0.03)


def _frame(axes: Axes, title: str, below: str, left: str) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel(below, fontsize=9)
    axes.set_ylabel(left, fontsize=9)
    frame(axes)
