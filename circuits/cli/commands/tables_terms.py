"""`circuits tables terms`: the loss with the direct path alone, with heads, with virtual heads."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import AsJson, Device, Dtype, ModelName, Open, Text, TextLimit, TextSeed, folder
from circuits.cli.report import written
from circuits.cli.settings import Setting
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
def tables_terms(
    context: Context,
    mlps: Annotated[
        str, typer.Option(metavar="frozen|zero", help="MLPs write what they wrote in the run, or nothing.")
    ] = "frozen",
    text: Text = None,
    limit: TextLimit = 2048,
    seed: TextSeed = 0,
    out: Annotated[Path | None, folder("tables")] = None,
    open_file: Open = None,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
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
    setting = Setting(job="tables", model=model, device=device, dtype=dtype, out=out, as_json=as_json)
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if mlps not in MLPS:
        raise PromptError(f"--mlps {mlps}: expected frozen or zero")
    run(Corpus(text, limit, seed), setting, mlps)


def run(corpus: Corpus, setting: Setting, mlps: Any) -> None:
    """Measure the order of terms, write and print it."""
    from circuits.cli.reports.terms import terms_report, write

    text = corpus.read()
    with setting.work(options="--limit") as (staging, progress):
        model = setting.load(progress)
        found = circuits.order_of_terms(model, corpus.tokens(model, text), mlps=mlps, progress=progress)
        found.save(staging / "terms.json")
        write(found, staging)
        files = written(staging, FILES)
    setting.answer(terms_report(found, files, corpus.describe(), [setting.opening("terms.json", "terms")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved terms again, and write their tables and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.terms import terms_report, write

    found, setting = circuits.patching.Terms.load(file), setting.beside(file)
    with setting.work() as (staging, _):
        write(found, staging)
        files = written(staging, FILES)
    setting.answer(terms_report(found, files))
