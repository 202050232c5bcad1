"""How a model does on pairs of prompts, one mark a pair."""

import numpy as np
from matplotlib.figure import Figure

from circuits.files.pictures import draws
from circuits.plots.style import BASELINE, BLUE, INK, VERMILION, frame
from circuits.plots.text import shortened, wrapped
from circuits.tasks.look import PromptReport


@draws(PromptReport)
def prompts_figure(report: PromptReport, *, title: str | None = None) -> Figure:
    """Draw the metric on each corrupt prompt (across) and clean prompt (up): blue where the model is right, above the dashed
    line where the corruption lowers the metric."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    right = (report.ranks == 0).numpy()
    across, up = report.corrupt.numpy(), report.clean.numpy()
    for chosen, colour, name in ((right, BLUE, "the answer is the top token"), (~right, VERMILION, "another token is")):
        if chosen.any():
            axes.scatter(across[chosen], up[chosen], s=16, color=colour, alpha=0.7, linewidths=0, label=name)
    ends = np.array([min(across.min(), up.min(), 0.0), max(across.max(), up.max(), 0.0)])
    axes.plot(ends, ends, color=BASELINE, linewidth=0.9, linestyle="--", label="no difference")
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    metric = report.metric.replace("_", " ")
    axes.set_xlabel(f"{metric}, corrupt prompt", fontsize=9)
    axes.set_ylabel(f"{metric}, clean prompt", fontsize=9)
    frame(axes, grid="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    heading = title or f"{shortened(report.model, 40)} on {len(report):,} pairs: {len(report.right)} right"
    figure.suptitle(wrapped(heading, 46), fontsize=10.5, parse_math=False)
    return figure
