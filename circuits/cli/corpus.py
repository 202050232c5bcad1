"""The text that a command reads, and commands that measure something on it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.progress import ProgressBars
from circuits.cli.report import Report
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting
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

    def tokens(
        self, model: "circuits.Model", text: str | None, progress: ProgressBars | None = None
    ) -> "circuits.models.TokenBatch":
        """The text as prompts."""
        from circuits.tasks.sources.corpus import text_rows, written_text

        if text is not None:
            return text_rows(model, text, limit=self.limit).to(model.device)
        width = min(_WRITTEN, self.limit, model.max_positions or _WRITTEN)
        return written_text(model, count=max(1, self.limit // width), length=width, seed=self.seed, progress=progress)

    def describe(self) -> str:
        """What was read, in words that follow a number of tokens."""
        return " that the model wrote itself" if self.file is None else f" of {one_line(self.file)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnText:
    """What a subcommand of `circuits tables` measures on a text: of which kind it is, and how it is written and told."""

    subcommand: str
    kind: Any
    files: Mapping[str, str]
    """What is written, and what for; the result itself comes first."""
    write: Callable[[Any, Path], None]
    report: Callable[..., Report]

    def run(
        self,
        corpus: Corpus,
        setting: Setting,
        measure: "Callable[[circuits.Model, circuits.models.TokenBatch, ProgressBars], Any]",
        *,
        check: "Callable[[circuits.Model], object] | None" = None,
    ) -> None:
        """Measure, write the files, print the report; `check` refuses what does not fit the model before the text is made."""
        text, name = corpus.read(), next(iter(self.files))
        with setting.parts(self.files, below=self.subcommand, options="--limit, --memory") as work:
            model = setting.load(work.progress)
            if check is not None:
                check(model)
            found = measure(model, corpus.tokens(model, text, work.progress), work.progress)
            found.save(work.staging / name)
            work.publish()
            self.write(found, work.staging)
        setting.answer(self.report(found, work.written, corpus.describe(), [setting.opening(name, self.subcommand)]))

    def reopen(self, file: Path, setting: Setting) -> None:
        """Print a saved result again, and write its tables and picture beside it, or into the folder asked for."""
        found = opened(self.kind, file)
        setting, files = written_again(found, file, setting, self.write, self.files)
        setting.answer(self.report(found, files))
