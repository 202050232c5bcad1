"""`circuits tables terms`: the loss with the direct path alone, with heads, with virtual heads."""

from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus, OnText
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Text, TextLimit, TextSeed
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "terms.json": "the loss of each order; circuits tables terms --open shows it again",
    "terms.csv": "the same as a table",
    "terms_heads.csv": "what each head's own term is worth",
    "terms.png": "the losses, drawn",
}
"""What `circuits tables terms` writes, and what for."""
MLPS = ("frozen", "zero")


@app.command("tables terms")
@with_setting("tables", memory=True)
def tables_terms(
    context: Context,
    mlps: Annotated[
        str, typer.Option(metavar="frozen|zero", help="MLPs write what they wrote in the run, or nothing.")
    ] = "frozen",
    text: Text = None,
    limit: TextLimit = 2048,
    seed: TextSeed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Measure a text's loss term by term.

    The logits are a sum over paths: no head, one head, one head after another. The loss with the terms of each order
    alone says how much of what the model knows needs heads that read other heads.

    \b
    Examples:
      circuits tables terms
      circuits tables terms --text book.txt --limit 4096
      circuits tables terms --mlps zero
      circuits tables terms --open out/tables-mini/terms.json
    """
    if open_file is not None:
        refuse_with_open(context)
        _terms().reopen(open_file, setting)
        return
    if mlps not in MLPS:
        raise PromptError(f"--mlps {mlps}: expected frozen or zero")
    how: Any = mlps
    _terms().run(
        Corpus(text, limit, seed),
        setting,
        lambda model, tokens, progress: circuits.order_of_terms(
            model, tokens, mlps=how, budget=setting.budget, progress=progress
        ),
    )


def _terms() -> OnText:
    from circuits.cli.reports.terms import terms_report, write

    return OnText(subcommand="terms", kind=circuits.patching.Terms, files=FILES, write=write, report=terms_report)
