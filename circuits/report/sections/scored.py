"""Scores of every head as a section."""

from collections.abc import Mapping, Sequence

from circuits.heads import HeadScores
from circuits.report.blocks import Heatmap, Paragraphs, Section

_SAID = {
    "prefix_matching": "attention to what followed earlier copies of the current token",
    "copying": "share of the push on the prompt's tokens that falls on the token attended to, from −1 to 1",
    "previous_token": "attention to the token before",
    "duplicate_token": "attention to earlier copies of the current token",
    "first_token": "attention to the first token",
}


def head_scores_section(scores: HeadScores | Mapping[str, Sequence[Sequence[float]]], *, title: str = "Head scores") -> Section:
    """A heatmap a score, layers from the top down; `scores`: as they were measured, or by name `[layer][head]`."""
    lines = []
    if isinstance(scores, HeadScores):
        lines = [scores.summary, f"Means over {scores.sequences} sequences, seed {scores.seed}."]
        scores = {name: values.tolist() for name, values in scores.scores.items()}
    maps = [_heatmap(name, values) for name, values in scores.items()]
    return Section(title, [*([Paragraphs(lines)] if lines else []), *maps])


def _heatmap(name: str, values: Sequence[Sequence[float]]) -> Heatmap:
    rows = [f"layer {layer}" for layer in range(len(values))]
    heads = [str(head) for head in range(max(map(len, values), default=0))]
    said = f": {_SAID[name]}" if name in _SAID else ""
    return Heatmap(rows, heads, values, f"{name.replace('_', ' ').capitalize()}{said}", "layer", "head")
