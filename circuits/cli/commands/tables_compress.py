"""`circuits tables compress`: the smallest ranks of heads at which the loss holds."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import AsJson, Device, Dtype, ModelName, Open, Text, TextLimit, TextSeed, folder
from circuits.cli.prompts import names_of
from circuits.cli.report import written
from circuits.cli.settings import Setting
from circuits.errors import PromptError

FILES = {
    "compression.json": "every part's rank; circuits tables compress --open shows it again",
    "compression.csv": "the same as a table",
    "compression.png": "the same, drawn",
}
"""What `circuits tables compress` writes, and what for."""


@app.command("tables compress")
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
    out: Annotated[Path | None, folder("tables")] = None,
    open_file: Open = None,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
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
    setting = Setting(job="tables", model=model, device=device, dtype=dtype, out=out, as_json=as_json)
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if not 0 <= tolerance < float("inf"):
        raise PromptError(f"--tolerance {tolerance}: expected nats, 0 or more")
    run(Corpus(text, limit, seed), setting, heads=None if head is None else names_of(head), how=(tolerance, together))


def run(corpus: Corpus, setting: Setting, *, heads: list[str] | None, how: tuple[float, bool]) -> None:
    """Find the ranks that heads need, write and print them."""
    from circuits.cli.reports.compression import compression_report, write

    text, (tolerance, together) = corpus.read(), how
    with setting.work(options="--limit") as (staging, progress):
        model = setting.load(progress)
        for name in heads or ():
            model.graph().node(name)
        options: dict[str, Any] = {"tolerance": tolerance, "together": together, "progress": progress}
        found = circuits.compress_heads(model, corpus.tokens(model, text), heads=heads, **options)
        found.save(staging / "compression.json")
        write(found, staging)
        files = written(staging, FILES)
    steps = [setting.opening("compression.json", "compress")]
    setting.answer(compression_report(found, files, corpus.describe(), steps))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved result again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.compression import compression_report, write

    found, setting = circuits.heads.Compression.load(file), setting.beside(file)
    with setting.work() as (staging, _):
        write(found, staging)
        files = written(staging, FILES)
    setting.answer(compression_report(found, files))
