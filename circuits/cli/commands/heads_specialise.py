"""`circuits heads specialise`: whether heads divide the kinds of words between them."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, ProbeData, Seed
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting

FILES = {
    "specialisation.json": "every head's profile; circuits heads specialise --open shows it again",
    "specialisation.csv": "the same as a table",
    "specialisation.png": "the heads that differ most, and the whole beside chance",
}
"""What `circuits heads specialise` writes, and what for."""
LIMIT = 300
"""Sentences that are read."""


@app.command("heads specialise")
@with_setting("heads", memory=True, long=False)
def heads_specialise(
    context: Context,
    data: ProbeData = None,
    column: Annotated[
        str, typer.Option("--property", metavar="NAME", help="Of words: upos, relation, Number, a key of MISC.")
    ] = "upos",
    limit: Annotated[int, typer.Option(min=2, help="Stop after so many sentences.")] = LIMIT,
    least: Annotated[int, typer.Option(min=2, help="Words of a class, below which it is none.")] = 20,
    permutations: Annotated[int, typer.Option(min=19, max=100_000, help="Shuffles of classes, and of heads.")] = 200,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Ask whether heads divide the kinds of words.

    Heads are branches: does knowing the head tell which class of words it looks at (branch specialisation)? The mutual
    information of class and head, and of class and layer, stands beside what it is with the words' classes shuffled, and with
    heads shuffled over layers.

    \b
    Examples:
      circuits heads specialise
      circuits heads specialise --data en_ewt-ud-dev.conllu --property relation
      circuits heads specialise --data en_ewt-ud-dev.conllu -m gpt2
      circuits heads specialise --open out/heads-mini/specialisation.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    run(data, column, setting, limit=limit, least=least, permutations=permutations, seed=seed)


def run(data: Path | None, column: str, setting: Setting, *, limit: int, least: int, permutations: int, seed: int) -> None:
    """Measure, write the files, print the report."""
    from circuits.cli.questions.probe import sentences_of
    from circuits.cli.reports.specialisation import specialisation_report, write
    from circuits.probes.question import check_property

    sentences = sentences_of(data)[:limit]
    check_property(sentences, column, least=least)
    with setting.parts(FILES, below="specialise", options="--limit, --memory") as work:
        model = setting.load(work.progress)
        found = circuits.concepts.specialise(
            model,
            sentences,
            column=column,
            least=least,
            permutations=permutations,
            seed=seed,
            budget=setting.budget,
            progress=work.progress,
        )
        found.save(work.staging / "specialisation.json")
        work.publish()
        write(found, work.staging)
    setting.answer(specialisation_report(found, work.written, [setting.opening("specialisation.json", "specialise")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved result again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.specialisation import specialisation_report, write

    found = opened(circuits.concepts.Specialisation, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(specialisation_report(found, files))
