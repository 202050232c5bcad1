"""Pictures of heads: scores, patterns, tables, training."""

from circuits.plots.heads.scores import head_scores_figure

__all__ = ["head_scores_figure"]
