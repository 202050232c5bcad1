"""The text that a command reads."""

import dataclasses
from pathlib import Path

import circuits
from circuits.cli.text import one_line

_WRITTEN = 64
"""Tokens of a row that the model writes itself."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A file, or what the model writes itself; at most so many tokens of it."""

    file: Path | None
    limit: int
    seed: int

    def read(self) -> str | None:
        """The file's text, before a model is loaded."""
        from circuits.tasks.sources.corpus import read_text

        return None if self.file is None else read_text(self.file)

    def tokens(self, model: "circuits.Model", text: str | None) -> "circuits.models.TokenBatch":
        """The text as prompts."""
        from circuits.tasks.sources.corpus import text_rows, written_text

        if text is not None:
            return text_rows(model, text, limit=self.limit).to(model.device)
        width = min(_WRITTEN, self.limit, model.max_positions or _WRITTEN)
        return written_text(model, count=max(1, self.limit // width), length=width, seed=self.seed)

    def describe(self) -> str:
        """What was read, in words that follow a number of tokens."""
        return " that the model wrote itself" if self.file is None else f" of {one_line(self.file)}"
