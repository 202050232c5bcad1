"""`circuits logits`: direct logit attribution."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    AnySeed,
    Clean,
    Corrupt,
    Count,
    Open,
    PromptFile,
    PromptOption,
    SkipBad,
    Task,
    prompt_of,
)
from circuits.cli.prompts import PromptOptions
from circuits.cli.questions.logits import LogitsQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting

FILES = {
    "logits.json": "every prompt's numbers; circuits logits --open shows them again",
    "logits.csv": "every row: mean and standard error",
    "sources.csv": "what each head takes from each token",
    "logits.png": "nodes by layer, the largest rows; with --positions also where heads take theirs from",
}
"""What `circuits logits` writes, and what for; sources.csv with --positions alone."""


@app.command()
@with_setting("logits", memory=True, long=False)
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
    skip_bad: SkipBad = False,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 15,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
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
        pairs=PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed, skip_bad=skip_bad),
        neurons=neurons,
        positions=positions,
        side=side,
    )
    question.check()
    run(question, setting, top)


def run(question: LogitsQuestion, setting: Setting, top: int) -> None:
    """Take the logits apart, write the files, print the report."""
    from circuits.cli.reports.logits import logits_report, next_steps, write

    with setting.parts(FILES, expected=[name for name in FILES if name != "sources.csv"]) as work:
        model = setting.load(work.progress)
        work.progress("taking logits apart", 0, 1)
        found = question.ask(model, setting.budget)
        work.progress("taking logits apart", 1, 1)
        found.save(work.staging / "logits.json")
        work.publish()
        write(found, work.staging)
    setting.answer(logits_report(found, work.written, top, source=question.source(), steps=next_steps(question, setting)))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print a saved result again, and write its tables and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.logits import logits_report, write

    found = opened(circuits.DirectLogits, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(logits_report(found, files, top))
