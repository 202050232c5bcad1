"""What `circuits probe spans` asks."""

from pathlib import Path

import circuits
from circuits.cli.questions.probe import sentences_of
from circuits.errors import PromptError

LINES = (".jsonl", ".json")
"""Endings of files that hold spans and labels themselves."""


def spans_of(data: Path | None, asked: str | None) -> "tuple[tuple[circuits.probes.SpanSentence, ...], str]":
    """Sentences with spans, of a file or made, and what their labels are. Raises PromptError for a property of trees that is
    asked of a file without trees, and what reading raises."""
    if data is not None and data.suffix.lower() in LINES:
        if asked is not None:
            raise PromptError(f"--property {asked}: {data.name} holds the labels of its spans itself: leave out --property")
        return circuits.probes.read_spans(data), data.stem
    what = "relation" if asked is None else asked
    return circuits.probes.tree_spans(sentences_of(data), what), what
