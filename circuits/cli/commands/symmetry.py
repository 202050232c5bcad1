"""`circuits symmetry`: whether a symmetry of the data exchanges heads or neurons."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed
from circuits.cli.prompts import task_or_file
from circuits.cli.questions.symmetry import SymmetryQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting

FILES = {
    "symmetry.json": "every layer's matching; circuits symmetry --open shows it again",
    "symmetry.csv": "every unit, its partner and its gap",
    "symmetry.png": "gaps by layer beside chance, and who takes whose place",
}
"""What `circuits symmetry` writes, and what for."""


@app.command()
@with_setting("symmetry", memory=True, long=False)
def symmetry(
    context: Context,
    swap: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Exchange these two tokens, each with its space.", show_default="each prompt's two answers"
        ),
    ] = None,
    prompts: Annotated[
        str, typer.Option(metavar="TASK|FILE", help="The prompts in which tokens are exchanged: a task, or a file of prompts.")
    ] = "ioi",
    text: Annotated[
        Path | None, typer.Option(help="Lines of this text instead, those with one of the tokens.", show_default=False)
    ] = None,
    units: Annotated[str, typer.Option("--of", metavar="heads|neurons", help="What may change places.")] = "heads",
    layers: Annotated[str | None, typer.Option(metavar="NUMBERS", help="The layers: 0,5,10.", show_default="all")] = None,
    count: Annotated[int, typer.Option(min=4, help="Prompts at most.")] = 64,
    matchings: Annotated[int, typer.Option(min=19, max=100_000, help="Random matchings.")] = 999,
    relabellings: Annotated[
        int, typer.Option(min=0, max=10_000, help="Random tokens in place of those two: so many runs.")
    ] = 19,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """See whether exchanging two tokens exchanges heads or neurons.

    Where the data has a symmetry, such as two names that could be exchanged, a layer may hold units that are copies of each
    other, one for each: what one does on a prompt the other does on the exchanged one (equivariance). The best matching of
    units is found on half of the prompts and judged on the other half, beside staying where they are, random matchings, and
    random tokens in place of those two.

    \b
    Examples:
      circuits symmetry
      circuits symmetry --of neurons --layers 2
      circuits symmetry --swap " he, she" --text book.txt
      circuits symmetry --swap " Paris, London" --prompts facts -m gpt2
      circuits symmetry --open out/symmetry-mini/symmetry.json
    """
    from circuits.cli.reports.symmetry import symmetry_report, write

    if open_file is not None:
        refuse_with_open(context)
        found = opened(circuits.concepts.Equivariance, open_file)
        setting, files = written_again(found, open_file, setting, write, FILES)
        setting.answer(symmetry_report(found, files))
        return
    given = task_or_file(prompts, count=count, seed=seed, usual=count)
    question = SymmetryQuestion(swap=swap, prompts=given, text=text, units=units, layers=layers, count=count)
    question.check()
    drawn: dict[str, Any] = {"matchings": matchings, "relabellings": relabellings, "seed": seed}
    with setting.parts(FILES, options="--count, --layers, --memory") as work:
        found = question.ask(setting, work.progress, **drawn)
        found.save(work.staging / "symmetry.json")
        work.publish()
        write(found, work.staging)
    setting.answer(symmetry_report(found, work.written, [setting.opening("symmetry.json")]))
