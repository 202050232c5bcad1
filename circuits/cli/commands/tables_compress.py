"""`circuits tables compress`: the smallest ranks of heads at which the loss holds."""

from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus, OnText
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Text, TextLimit, TextSeed
from circuits.cli.prompts import names_of
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "compression.json": "every part's rank; circuits tables compress --open shows it again",
    "compression.csv": "the same as a table",
    "compression.png": "the same, drawn",
}
"""What `circuits tables compress` writes, and what for."""


@app.command("tables compress")
@with_setting("tables", memory=True, long=False)
def tables_compress(
    context: Context,
    head: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Heads, with commas between them: a0.h3,a1.h0.", show_default="all"),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Rise of the loss that is allowed, nats a token.")] = 0.01,
    together: Annotated[bool, typer.Option("--together", help="The tolerance is for all heads at once.")] = False,
    text: Text = None,
    limit: TextLimit = 2048,
    seed: TextSeed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Find the ranks at which a text's loss holds.

    The query-key and the output-value matrix of each head are cut to the lowest rank that costs no more than the
    tolerance, each by itself or all together.

    \b
    Examples:
      circuits tables compress
      circuits tables compress --head a0.h3,a1.h0 --tolerance 0.02
      circuits tables compress --together --text book.txt
      circuits tables compress --open out/tables-mini/compression.json
    """
    if open_file is not None:
        refuse_with_open(context)
        _compression().reopen(open_file, setting)
        return
    if not 0 <= tolerance < float("inf"):
        raise PromptError(f"--tolerance {tolerance}: expected nats, 0 or more")
    heads = None if head is None else names_of(head)
    how: dict[str, Any] = {"heads": heads, "tolerance": tolerance, "together": together}
    _compression().run(
        Corpus(text, limit, seed),
        setting,
        lambda model, tokens, progress: circuits.compress_heads(model, tokens, budget=setting.budget, progress=progress, **how),
        check=lambda model: [model.graph().node(name) for name in heads or ()],
    )


def _compression() -> OnText:
    from circuits.cli.reports.compression import compression_report, write

    kind = circuits.heads.Compression
    return OnText(subcommand="compress", kind=kind, files=FILES, write=write, report=compression_report)
