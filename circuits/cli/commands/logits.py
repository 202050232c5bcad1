"""`circuits logits`: direct logit attribution, its files and its report."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from circuits.cli.loading import load
from circuits.cli.measured import naming_options, paired, save_figure
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import PromptOptions, require_text
from circuits.cli.text import one_line, print_json, table
from circuits.errors import PromptError
from circuits.lenses import DirectLogits, logits as take_apart
from circuits.models import Model
from circuits.plots import direct_logits_figure

FILES = {
    "logits.json": "every prompt's numbers; circuits logits --open shows them again",
    "logits.csv": "every row: mean and standard error",
    "sources.csv": "what each head takes from each token",
    "logits.png": "nodes by layer, the largest rows; with --positions also where heads take theirs from",
}
"""What `circuits logits` writes, and what for; sources.csv with --positions alone."""
_SIDES: dict[str, Literal["clean", "corrupt"]] = {"clean": "clean", "corrupt": "corrupt"}
_HEADS, _SHARE = 4, 0.1
"""Heads whose sources are printed, and the least share of a head at which a source is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt with or without an answer and a distractor, or pairs that bring their own; and how far it is split."""

    prompt: str | None
    answer: str | None
    distractor: str | None
    pairs: PromptOptions
    neurons: int | None
    positions: bool
    side: str

    def check(self) -> None:
        """Raise PromptError where the options contradict each other; needs no model."""
        if self.side not in _SIDES:
            raise PromptError(f"unknown side {self.side!r}: expected clean or corrupt")
        given = self.pairs.given()
        if self.prompt is not None:
            require_text(self.prompt)
        if self.prompt is not None and given:
            raise PromptError(f"a prompt and {given[0]} both say where prompts come from: give one of them")
        if self.prompt is None and (self.answer is not None or self.distractor is not None):
            named = "--answer" if self.answer is not None else "--distractor"
            raise PromptError(
                f"{named} goes with a prompt: circuits logits PROMPT {named} TEXT (tasks and files bring their own)"
            )
        self.pairs.check()

    def ask(self, model: Model, budget: int) -> DirectLogits:
        """Take the logits apart."""
        split = {"neurons": self.neurons, "positions": self.positions, "budget": budget, "side": _SIDES[self.side]}
        if self.prompt is None:
            return take_apart(model, self.pairs.pairs(model), **split)
        return take_apart(model, self.prompt, answers=self.answer, distractors=self.distractor, **split)

    def source(self) -> str:
        """Where the prompts come from, in words."""
        return repr(self.prompt) if self.prompt is not None else f"{self.pairs.describe()}, {self.side} prompts"

    def words(self) -> list[str]:
        """The question as words of a command line, without --neurons and --positions."""
        if self.prompt is None:
            return [*self.pairs.arguments(), *(["--side", self.side] if self.side != "clean" else [])]
        parts = {"--answer": self.answer, "--distractor": self.distractor}
        return [self.prompt, *(word for name, text in parts.items() if text is not None for word in (name, text))]


def run(
    question: Question, *, model: str, device: str, dtype: str, out: Path | None, memory: int, top: int, as_json: bool
) -> None:
    """Take the logits apart, write the files, print the report."""
    question.check()
    folder = Path("out") / f"logits-{default_directory(model).name.removeprefix('induction-')}" if out is None else out
    with staged(folder) as staging, ProgressBars() as progress, naming_options():
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        progress("taking logits apart", 0, 1)
        found = question.ask(loaded, memory * 2**20)
        progress("taking logits apart", 1, 1)
        found.save(staging / "logits.json")
        files = ["logits.json", *_write(found, staging)]
    if found.sources is None:  # that of an earlier run would be about something else
        (folder / "sources.csv").unlink(missing_ok=True)
    if as_json:
        print_json(_contents(found, folder, files))
        return
    heading = f"{one_line(found.model)}: {_asked(found)}; {one_line(question.source())}"
    typer.echo("\n\n".join([*_report(found, heading, folder, files, top), paired("Try next", _next(question, model, folder))]))


def reopen(file: Path, *, out: Path | None, top: int, as_json: bool) -> None:
    """Print a saved result again, and write its tables and picture beside it, or into `out`."""
    found, folder = DirectLogits.load(file), file.parent if out is None else out
    with staged(folder) as staging:
        files = _write(found, staging)
    if as_json:
        print_json(_contents(found, folder, files))
    else:
        typer.echo("\n\n".join(_report(found, f"{one_line(found.model)}: {_asked(found)}", folder, files, top)))


def _write(found: DirectLogits, folder: Path) -> list[str]:
    """Write tables and picture; returns their names."""
    found.to_dataframe().to_csv(folder / "logits.csv", index=False)
    if found.sources is not None:
        found.sources_dataframe().to_csv(folder / "sources.csv", index=False)
    save_figure(direct_logits_figure(found), folder / "logits.png")
    return [name for name in FILES if name != "logits.json" and (folder / name).is_file()]


def _contents(found: DirectLogits, folder: Path, files: Sequence[str]) -> dict[str, Any]:
    single = len(found.total) == 1
    rows = [
        {"row": row, "mean": mean, "standard_error": None if single else error}
        for row, mean, error in zip(found.rows, found.mean.tolist(), found.standard_error.tolist(), strict=True)
    ]
    about = {"model": found.model, "prompts": len(found.total), "answers": found.answers, "distractors": found.distractors}
    sizes = {"total": float(found.total.mean()), "capped": found.capped}
    return {**about, **sizes, "rows": rows, "files": {name: str(folder / name) for name in files}}


def _asked(found: DirectLogits) -> str:
    if len(found.total) > 1:
        kind = "logit difference" if found.distractors else "logit of the answer"
        return f"{kind}, mean over {len(found.total):,} prompts"
    less = f" less that of {found.distractors[0]!r}" if found.distractors else ""
    return one_line(f"logit of {found.answers[0]!r}{less}")


def _report(found: DirectLogits, heading: str, folder: Path, files: Sequence[str], top: int) -> list[str]:
    errors = dict(zip(found.rows, found.standard_error.tolist(), strict=True))
    single = len(found.total) == 1
    cells = [(row, f"{mean:+.3f}", *(() if single else (f"{errors[row]:.3f}",))) for row, mean in found.top(top)]
    header = ("row", "logits", *(() if single else ("standard error",)))
    if len(cells) < len(found.rows):
        rest = float(found.mean.sum()) - sum(mean for _, mean in found.top(top))
        cells.append((f"{len(found.rows) - len(cells):,} other rows", f"{rest:+.3f}", *(() if single else ("",))))
    cells.append(("sum", f"{float(found.total.mean()):+.3f}", *(() if single else ("",))))
    cap = "\nThe model caps its logits: the sum is the logit before the cap." if found.capped else ""
    parts = [heading, table(header, cells, indent=0) + cap]
    if found.sources is not None:
        parts.append(_sources(found))
    return [*parts, paired(f"Files in {one_line(folder)}", [(name, FILES[name]) for name in files])]


def _sources(found: DirectLogits) -> str:
    """The strongest heads and the tokens of the first prompt that they take theirs from."""
    heads = [(row, mean) for row, mean in found.top(len(found.rows)) if row in found.heads][:_HEADS]
    lines = []
    for head, _ in heads:
        taken = found.by_source(head)[0].tolist()
        order = sorted(range(len(taken)), key=lambda column: -abs(taken[column]))
        least = _SHARE * max(map(abs, taken), default=0.0)
        kept = [column for column in order if abs(taken[column]) >= least and found.tokens[0][column]][:4]
        lines.append((head, ", ".join(f"{found.tokens[0][column]!r} at {column} {taken[column]:+.3f}" for column in kept)))
    where = "Strongest heads, by the token they take it from" + (" (first prompt)" if len(found.total) > 1 else "")
    return paired(where, [(head, one_line(text)) for head, text in lines])


def _next(question: Question, model: str, folder: Path) -> list[tuple[str, str]]:
    """What to try after this."""
    start = ["circuits", "logits", *question.words(), *([] if model == "mini" else ["--model", model])]
    steps = []
    if question.neurons is None:
        steps.append((one_line(shlex.join([*start, "--neurons", "5"])), "the neurons behind the MLPs"))
    if not question.positions:
        steps.append((one_line(shlex.join([*start, "--positions"])), "which tokens the heads take theirs from"))
    steps.append((one_line(shlex.join(["circuits", "logits", "--open", str(folder / "logits.json")])), "this result again"))
    return steps
