"""`circuits tables`: weight tables, and what they say of one token."""

import json
from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open
from circuits.cli.questions.tables import TablesQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting

FILES = {
    "tables.json": "all tables; circuits tables --open and circuits.Tables.load read it",
    "bigrams.csv": "what follows each token, by the direct path",
    "skip_trigrams.csv": "what heads add because they attend to a token",
    "bugs.csv": "the crossings that come with them",
    "virtual.csv": "heads that read what another one wrote",
    "tables.png": "bigrams and skip-trigrams, drawn",
}
"""What `circuits tables` writes, and what for."""
TOKEN_FILES = {"token.json": "all of it, and more entries of each table"}
"""What it writes about one token."""


@app.command()
@with_setting("tables", text=False)
def tables(
    given: Context,
    token: Annotated[
        str | None,
        typer.Option(help="One token, with its space: what follows it, and what heads do with it.", show_default=False),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Heads, with commas between them: a0.h3,a1.h0.", show_default="those of layer 0"),
    ] = None,
    skip_trigrams: Annotated[
        bool, typer.Option("--skip-trigrams", help="Print skip-trigrams alone, and all that were asked for.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, max=100_000, help="Entries of each table (skip-trigrams: of each head).")] = 10,
    through_mlp0: Annotated[
        bool, typer.Option("--through-mlp0", help="Take tokens as the first MLP makes them, not as they are embedded.")
    ] = False,
    context: Annotated[int, typer.Option(min=2, help="Tokens that a skip-trigram's destination sees.")] = 64,
    offset: Annotated[int, typer.Option(min=0, help="Places between source and destination, for rotary positions.")] = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Read a model's weights as tables.

    A bigram is what the embedding says of the next token with all layers taken away. A skip-trigram "keep, in, mind" is
    what a head adds at "in" because it attends to "keep"; its bugs are the crossings that it cannot help. A virtual head
    is a head that copies what another one copied. For a model of one layer of heads, these tables are all it does.

    \b
    Examples:
      circuits tables
      circuits tables --token " the"
      circuits tables --head a0.h3 --skip-trigrams --top 30
      circuits tables --open out/tables-mini/tables.json
      circuits tables terms --text book.txt
    """
    options = TablesQuestion(top, context, offset, through_mlp0, skip_trigrams, head)
    if open_file is not None:
        refuse_with_open(given, "top", "skip_trigrams")
        reopen(open_file, setting, options)
    elif token is not None:
        about_token(token, setting, options)
    else:
        run(setting, options)


def run(setting: Setting, options: TablesQuestion) -> None:
    """Read the tables, write and print them."""
    from circuits.cli.reports.tables import next_steps, tables_report, write

    with setting.parts(FILES, options="--top") as work:
        model = setting.load(work.progress)
        found = circuits.tables(
            model,
            top=options.top,
            heads=options.heads(model),
            per_source=None if options.alone else 1,
            context=options.context,
            offset=options.offset,
            through_mlp0=options.through_mlp0,
            progress=work.progress,
        )
        found.save(work.staging / "tables.json")
        work.publish()
        write(found, work.staging)
    steps = [] if options.alone else next_steps(setting)
    setting.answer(tables_report(found, options, work.written, steps))


def reopen(file: Path, setting: Setting, options: TablesQuestion) -> None:
    """Print saved tables again, and write their csv files and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.tables import tables_report, write

    found = opened(circuits.Tables, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(tables_report(found, options, files))


def about_token(token: str, setting: Setting, options: TablesQuestion) -> None:
    """What the tables say of one token: what follows it, and for each head whom it attends to, who attends to it, and what it
    raises when it is attended to."""
    from circuits.cli.reports.token import of_token, token_report

    with setting.parts(TOKEN_FILES, below="token", options="--top") as work:
        model = setting.load(work.progress)
        found = of_token(model, token, options, work.progress)
        (work.staging / "token.json").write_text(json.dumps(found, allow_nan=False), encoding="utf-8")
    setting.answer(token_report(found, options.top, TOKEN_FILES))
