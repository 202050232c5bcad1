"""`circuits logits`: direct logit attribution."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    AnySeed,
    AsJson,
    Clean,
    Corrupt,
    Count,
    Device,
    Dtype,
    Memory,
    ModelName,
    Open,
    PromptFile,
    PromptOption,
    Task,
    folder,
    prompt_of,
)
from circuits.cli.prompts import PromptOptions, require_text
from circuits.cli.report import written
from circuits.cli.settings import Setting
from circuits.errors import PromptError

FILES = {
    "logits.json": "every prompt's numbers; circuits logits --open shows them again",
    "logits.csv": "every row: mean and standard error",
    "sources.csv": "what each head takes from each token",
    "logits.png": "nodes by layer, the largest rows; with --positions also where heads take theirs from",
}
"""What `circuits logits` writes, and what for; sources.csv with --positions alone."""
SIDES = ("clean", "corrupt")


@app.command()
def logits(
    context: Context,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="A text; its last token's logits are taken apart.", show_default=False),
    ] = None,
    prompt_option: PromptOption = None,
    answer: Annotated[
        str | None,
        typer.Option(help="The token whose logit is taken apart.", show_default="what the model says next"),
    ] = None,
    distractor: Annotated[
        str | None, typer.Option(help="A token whose logit is taken off.", show_default="none, the answer's logit alone")
    ] = None,
    neurons: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Split each MLP into its K strongest neurons and the rest.")
    ] = None,
    positions: Annotated[bool, typer.Option("--positions", help="Split each head by the tokens that it attends to.")] = False,
    side: Annotated[
        str, typer.Option(metavar="clean|corrupt", help="Of pairs: which prompts are read, always for the clean answer.")
    ] = "clean",
    task: Task = None,
    prompts: PromptFile = None,
    clean: Clean = None,
    corrupt: Corrupt = None,
    count: Count = None,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 15,
    out: Annotated[Path | None, folder("logits")] = None,
    open_file: Open = None,
    memory: Memory = 256,
    seed: AnySeed = 0,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Take a logit apart: what each node writes to the answer.

    Every node adds a vector to the residual stream, and the logit is read from their sum. This command says how much of the
    answer's logit (less the distractor's, where there is one) each of them brings: positive speaks for the answer. The rows
    sum to the logit exactly; what a node does through later nodes is not counted (circuits patch tells that).

    \b
    Examples:
      circuits logits "The capital of France is"
      circuits logits "The capital of France is" --neurons 5 --positions
      circuits logits "The capital of France is" --distractor " Rome"
      circuits logits --task induction --positions
      circuits logits --model gpt2 --prompts ioi.csv --top 30
      circuits logits --open out/logits-mini/logits.json
    """
    setting = Setting(job="logits", model=model, device=device, dtype=dtype, memory=memory, out=out, as_json=as_json)
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    own = clean is not None or corrupt is not None
    texts = {"clean": clean, "corrupt": corrupt, **({"answer": answer, "distractor": distractor} if own else {})}
    question = LogitsQuestion(
        prompt=prompt_of(prompt, prompt_option),
        answer=None if own else answer,
        distractor=None if own else distractor,
        pairs=PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed),
        neurons=neurons,
        positions=positions,
        side=side,
    )
    question.check()
    run(question, setting, top)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsQuestion:
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
        if self.side not in SIDES:
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

    def ask(self, model: "circuits.Model", budget: int) -> "circuits.DirectLogits":
        """Take the logits apart."""
        side: Any = self.side
        split = {"neurons": self.neurons, "positions": self.positions, "budget": budget, "side": side}
        if self.prompt is None:
            return circuits.logits(model, self.pairs.pairs(model), **split)
        return circuits.logits(model, self.prompt, answers=self.answer, distractors=self.distractor, **split)

    def source(self) -> str:
        """Where the prompts come from, in words."""
        return repr(self.prompt) if self.prompt is not None else f"{self.pairs.describe()}, {self.side} prompts"

    def words(self) -> list[str]:
        """The question as words of a command line, without --neurons and --positions."""
        if self.prompt is None:
            return [*self.pairs.arguments(), *(["--side", self.side] if self.side != "clean" else [])]
        parts = {"--answer": self.answer, "--distractor": self.distractor}
        return [self.prompt, *(word for name, text in parts.items() if text is not None for word in (name, text))]


def run(question: LogitsQuestion, setting: Setting, top: int) -> None:
    """Take the logits apart, write the files, print the report."""
    from circuits.cli.reports.logits import logits_report, next_steps, write

    with setting.work(replacing=["sources.csv"]) as (staging, progress):
        model = setting.load(progress)
        progress("taking logits apart", 0, 1)
        found = question.ask(model, setting.budget)
        progress("taking logits apart", 1, 1)
        found.save(staging / "logits.json")
        write(found, staging)
        files = written(staging, FILES)
    setting.answer(logits_report(found, files, top, source=question.source(), steps=next_steps(question, setting)))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print a saved result again, and write its tables and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.logits import logits_report, write

    found, setting = circuits.DirectLogits.load(file), setting.beside(file)
    with setting.work() as (staging, _):
        write(found, staging)
        files = written(staging, FILES)
    setting.answer(logits_report(found, files, top))
