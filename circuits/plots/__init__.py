"""Pictures of results, as matplotlib figures: `figure.savefig("heads.png")` writes one. No pyplot, no global state."""

from circuits.plots.circuit import circuit_figure
from circuits.plots.heads import head_scores_figure
from circuits.plots.patterns import patterns_figure

__all__ = ["circuit_figure", "head_scores_figure", "patterns_figure"]
