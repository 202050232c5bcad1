"""Pictures of results, as matplotlib figures: `figure.savefig("heads.png")` writes one. No pyplot, no global state."""

from circuits.plots.circuit import circuit_figure
from circuits.plots.effects import effects_figure
from circuits.plots.heads import head_scores_figure
from circuits.plots.judged import curve_figure, roc_figure, verdict_figure
from circuits.plots.losses import ablation_figure, knockout_figure, self_repair_figure
from circuits.plots.paths import path_figure
from circuits.plots.patterns import patterns_figure
from circuits.plots.traces import role_curves_figure, trace_figure

__all__ = [
    "ablation_figure",
    "circuit_figure",
    "curve_figure",
    "effects_figure",
    "head_scores_figure",
    "knockout_figure",
    "path_figure",
    "patterns_figure",
    "roc_figure",
    "role_curves_figure",
    "self_repair_figure",
    "trace_figure",
    "verdict_figure",
]
