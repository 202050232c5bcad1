"""What is lost: ablated nodes, layers with their self-repair, blocked attention."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from circuits.errors import CircuitsError
from circuits.files.pictures import draws
from circuits.patching import Ablation, Knockout, SelfRepair
from circuits.plots.patching.effects import MOST_BARS, bars
from circuits.plots.style import BLUE, FAINT, INK, ORANGE, SKY, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.statistics import bootstrap

_REPAIR = {"direct": BLUE, "total": SKY, "compensation": ORANGE}
_CURVES = ((BLUE, "o", 4.0), (SKY, "s", 1.5), (VERMILION, "^", 1.5), (FAINT, "D", 1.0))
"""Colour, marker and width: the first curve is seen behind the second, which is often the same."""


@draws(Ablation)
def ablation_figure(ablation: Ablation, *, title: str | None = None) -> Figure:
    """Draw how far the metric moves without each set of nodes, as bars with 95 % intervals, in the sets' order; of more than
    20 sets the 20 with the largest change. Negative = the nodes were helping a metric that is better when higher."""
    if not len(ablation):
        raise CircuitsError("there is no ablation to draw")
    rows = list(zip(ablation.names, ablation.intervals(), strict=True))
    about, count = ablation.metadata, len(ablation.whole)
    frozen = ", patterns frozen" if about.get("freeze_patterns") else ""
    heading = (
        title
        or f"{shortened(str(about.get('model', 'model')), 40)} with nodes ablated ({about.get('kind', 'ablation')}{frozen})"
    )
    if len(rows) > MOST_BARS:
        heading += f"; {MOST_BARS} of {len(rows):,}, the largest"
        rows = sorted(rows, key=lambda row: -abs(row[1].effect))[:MOST_BARS]
    metric = shortened(str(about.get("metric", "the metric")).replace("_", " "), 40)
    whole = f"change of {metric} (whole model: {float(ablation.whole.mean()):.4g})"
    return bars(rows, heading, whole, count)


@draws(SelfRepair)
def self_repair_figure(*reports: SelfRepair, title: str | None = None) -> Figure:
    """Draw, for each layer and a panel a report, what it writes to the logit difference itself (direct), what is lost without
    it (total) and by how much later layers grow when it is gone (compensation), in logits, with 95 % intervals over prompts.

    A total below the direct effect, with compensation above 0, is self-repair. Raises CircuitsError without a report.
    """
    if not reports:
        raise CircuitsError("there is no self-repair report to draw")
    layers = max(len(report.direct) for report in reports)
    width = min(max(0.5 * layers + 1.2, 3.6), 9.0)
    figure = Figure(figsize=(width * len(reports) + 0.4, 3.5), layout="constrained")
    grid = figure.subplots(1, len(reports), squeeze=False, sharey=True)[0]
    for axes, report in zip(grid, reports, strict=True):
        for place, (part, colour) in enumerate(_REPAIR.items()):
            found = [bootstrap(row) for row in getattr(report, part)]
            means = np.array([one.effect for one in found])
            reach = np.array([[one.effect - one.low, one.high - one.effect] for one in found]).clip(0).T
            error = {"elinewidth": 0.8, "ecolor": INK}
            axes.bar(
                np.arange(len(means)) + 0.27 * (place - 1), means, 0.25, color=colour, yerr=reach, error_kw=error, label=part
            )
        _frame(axes, f"{'attention' if report.part == 'attention' else 'MLP'} ablated ({report.kind})", "ablated layer")
    grid[0].set_ylabel("logit difference (logits)", fontsize=9)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    count = reports[0].direct.shape[1]
    heading = title or f"Self-repair by layer, {count} prompt{'s' * (count > 1)}"
    figure.suptitle(wrapped(heading, int(figure.get_figwidth() * 11)), fontsize=10.5, parse_math=False)
    return figure


@draws(Knockout)
def knockout_figure(knockout: Knockout, *, title: str | None = None) -> Figure:
    """Draw the relative change of the answer's probability by layer, a curve a source of attention that was blocked:
    −100 % = the answer needs it there, 0 = it makes no difference."""
    figure = Figure(figsize=(6.6, 3.7), layout="constrained")
    axes = figure.subplots()
    for source, (colour, marker, width) in zip(knockout.blocked, _CURVES, strict=False):
        style = {"color": colour, "marker": marker, "linewidth": width, "markersize": 3.5 + width}
        axes.plot(100 * knockout.change(source).numpy(), label=source.replace("_", " "), **style)
    window = min(knockout.window, max(len(values) for values in knockout.blocked.values()))
    _frame(axes, shortened(knockout.prompt, 90), f"centre of {window} layers without this attention")
    axes.set_ylabel(f"change of p({shortened(knockout.answer.strip(), 16)}), %", fontsize=9, parse_math=False)
    words = {"title": "the last token may not see", "fontsize": 8, "title_fontsize": 8, "frameon": False}
    figure.legend(loc="outside right center", **words)
    heading = title or f"Attention knockout in {knockout.model}: p = {knockout.whole:.1%} with nothing blocked"
    figure.suptitle(wrapped(heading, 66), fontsize=10.5, parse_math=False)
    return figure


def _frame(axes: Axes, title: str, below: str) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_xlabel(below, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    frame(axes)
