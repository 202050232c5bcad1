"""What a head does, from its attention pattern and from its weights."""

from circuits.heads.composition import (
    Composition,
    composition_scores,
    copying_eigenvalue_scores,
    matching_eigenvalue_scores,
)
from circuits.heads.scores import HeadScores, score_heads

__all__ = [
    "Composition",
    "HeadScores",
    "composition_scores",
    "copying_eigenvalue_scores",
    "matching_eigenvalue_scores",
    "score_heads",
]
