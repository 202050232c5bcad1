"""What `circuits trace` asks: what is traced, and how it is corrupted."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.prompts import require_text
from circuits.errors import PromptError


@dataclasses.dataclass(frozen=True)
class TraceQuestion:
    """What is traced: a prompt about a subject, the facts of a file, or, with neither, a fact that comes with the package."""

    prompt: str | None
    subject: str | None
    facts: Path | None
    limit: int | None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        for what, text in (("the prompt", self.prompt), ("--subject", self.subject)):
            if text is not None:
                require_text(text, what)
        if (self.prompt is None) != (self.subject is None):
            raise PromptError("PROMPT and --subject go together: the subject is the part of the prompt to corrupt")
        if self.prompt is not None and self.facts is not None:
            raise PromptError("PROMPT and --facts exclude each other: trace one prompt, or the facts of a file")
        if self.limit is not None and self.facts is None:
            raise PromptError("--limit counts facts of a file: it needs --facts")
        if self.skip_bad and self.facts is None:
            raise PromptError("--skip-bad is about rows of a file: it needs --facts")


@dataclasses.dataclass(frozen=True)
class Corruption:
    """How the subject is corrupted, and what is put back."""

    noise: float | None
    replacement: str | None
    draws: int
    kinds: tuple[str, ...]
    window: int | None
    seed: int
    budget: int

    def __post_init__(self) -> None:
        if self.noise is not None and self.replacement is not None:
            raise PromptError("--noise and --replacement exclude each other: the subject gets noise, or another text")
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise > 0):
            raise PromptError(f"--noise is {self.noise}; expected a standard deviation above 0")

    def options(self, model: "circuits.Model") -> dict[str, Any]:
        """The options of `causal_trace` for a model."""
        usual = 10 if model.n_layers >= 20 else max(1, model.n_layers // 2)
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "window": usual if self.window is None else self.window}


def parse_kinds(text: str, severed: bool) -> tuple[str, ...]:
    """The kinds named in `a,b`, each once; with `severed`, the severed ones too."""
    from circuits.patching.tracing.causal import KINDS, SEVERED

    names = [name.strip() for name in text.split(",")] + (list(SEVERED) if severed else [])
    wrong = next((name for name in names if name not in (*KINDS, *SEVERED)), None)
    if wrong is not None:
        raise PromptError(f"no kind {wrong!r} of site to trace: expected some of {', '.join((*KINDS, *SEVERED))}")
    return tuple(dict.fromkeys(names))
