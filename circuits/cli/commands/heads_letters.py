"""`circuits heads letters`: which heads answer multiple choice by a letter, and what they keep."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError

FILES = {
    "letters.json": "every head and what letter heads keep; circuits heads letters --open shows it again",
    "letters.csv": "every head by the three measures",
    "kept.csv": "how few dimensions of queries, keys and values keep the answers' loss, and what they tell apart",
    "letters.png": "the same, drawn",
    "compression.json": "the ranks that letter heads' weights need; circuits tables compress --open shows it",
}
"""What `circuits heads letters` writes, and what for."""


@app.command("heads letters")
@with_setting("heads", memory=True)
def heads_letters(
    context: Context,
    labels: Annotated[
        str,
        typer.Option(
            metavar="letters|permuted|others|random|numbers",
            help="What stands before the choices: A to D, in another order each time, four letters in a row other than these, "
            "any four, or 1 to 4.",
        ),
    ] = "permuted",
    count: Annotated[int, typer.Option(min=8, max=100_000, help="Questions.")] = 96,
    tolerance: Annotated[float, typer.Option(help="Rise of the answers' loss that is allowed, nats.")] = 0.01,
    heads_alone: Annotated[bool, typer.Option("--heads-alone", help="Do not ask what the found heads keep; quicker.")] = False,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Find the heads that answer by a letter.

    Questions of multiple choice (Lieberum et al. 2023): which heads write the right letter to the logits, bring the answer back
    when they are patched, and look at the right item from the last token? Of those that do all three: in how few dimensions
    of their queries, keys and values, and at which ranks of their weights, does the loss of the answers hold, and do these
    tell letters or places apart? Small pretrained models answer by chance; experiments/multiple_choice.py trains one that does
    not.

    \b
    Examples:
      circuits heads letters --model out/multiple-choice
      circuits heads letters -m out/multiple-choice --labels random --count 256
      circuits heads letters --open out/heads-multiple-choice/letters.json
    """
    from circuits.tasks.library.multiple_choice import LABELS

    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if labels not in LABELS:
        raise CircuitsError(f"--labels is {labels!r}: expected one of {', '.join(LABELS)}")
    if not 0 <= tolerance < float("inf"):
        raise CircuitsError(f"--tolerance {tolerance}: expected nats, 0 or more")
    run(setting, labels=labels, count=count, tolerance=tolerance, dimensions=not heads_alone, seed=seed)


def run(setting: Setting, *, labels: str, count: int, tolerance: float, dimensions: bool, seed: int) -> None:
    """Measure, write the files, print the report."""
    from circuits.cli.reports.letters import letters_report, write

    with setting.parts(FILES, below="letters") as work:
        model = setting.load(work.progress)
        name = f"multiple-choice:{labels}"
        pairs = circuits.tasks.task(name).pairs(model, count, seed)
        how = {"tolerance": tolerance, "dimensions": dimensions, "seed": seed}
        found = circuits.search.find_letter_heads(model, pairs, task=name, budget=setting.budget, progress=work.progress, **how)
        found.save(work.staging / "letters.json")
        if found.compression is not None:
            found.compression.save(work.staging / "compression.json")
        if not found.kept:
            work.files.drop("kept.csv", "compression.json")
        work.publish()
        write(found, work.staging)
    setting.answer(letters_report(found, work.written, [setting.opening("letters.json", "letters")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved result again, and write its tables and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.letters import letters_report, write

    found = opened(circuits.search.LetterHeads, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(letters_report(found, files))
