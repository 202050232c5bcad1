"""The command `circuits tables`: what it takes and what it says of itself."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open, refuse_without_effect


@app.command()
@plain_errors()
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
    terms: Annotated[
        bool, typer.Option("--terms", help="Instead: the loss with the direct path alone, with heads, with virtual heads.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Instead: the loss without each layer, and what later layers make up for.")
    ] = False,
    compress: Annotated[
        bool, typer.Option("--compress", help="Instead: the smallest ranks of heads at which the loss holds.")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --terms, --layers, --compress: the text.", show_default="what the model writes itself"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Tokens of the text that are read.")] = 2048,
    tolerance: Annotated[float, typer.Option(help="With --compress: rise of the loss allowed, nats a token.")] = 0.01,
    together: Annotated[
        bool, typer.Option("--together", help="With --compress: the tolerance is for all heads at once.")
    ] = False,
    mlps: Annotated[
        str, typer.Option(metavar="frozen|zero", help="With --terms: MLPs write what they wrote in the run, or nothing.")
    ] = "frozen",
    kind: Annotated[str, typer.Option(metavar="zero|mean", help="With --layers: what stands in for a layer.")] = "zero",
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the text that the model writes.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/tables-MODEL")] = None,
    open_file: Annotated[
        Path | None, typer.Option("--open", metavar="FILE", help="Show a saved tables.json; nothing is computed.")
    ] = None,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Read a model's weights as tables: bigrams, skip-trigrams, virtual heads.

    A bigram is what the embedding says of the next token with all layers taken away. A skip-trigram "keep … in → mind" is
    what a head adds at "in" because it attends to "keep"; its bugs are the crossings that it cannot help. A virtual head is
    a head that copies what another one copied. For a model of one layer of heads, these tables are all it does.

    \b
    Examples:
      circuits tables
      circuits tables --token " the"
      circuits tables --head a0.h3 --skip-trigrams --top 30
      circuits tables --terms --text book.txt
      circuits tables --layers --kind mean
      circuits tables --compress --head a0.h3,a1.h0 --tolerance 0.02
    """
    from circuits.cli.commands import tables as command, tables_text as texts

    if open_file is not None:
        refuse_with_open(given, "top", "skip_trigrams")
    where = texts.Place(model, device, dtype, out, as_json)
    jobs = {"--token": token is not None, "--terms": terms, "--layers": layers, "--compress": compress}
    command.check_jobs(jobs, text)
    weights = ("top", "context", "offset", "through_mlp0", "skip_trigrams")
    if terms or layers or compress:
        refuse_without_effect(given, *weights, why="with a text nothing but its loss is measured")
    for name, flag, job in (("mlps", terms, "--terms"), ("kind", layers, "--layers"), ("tolerance", compress, "--compress")):
        if not flag:
            refuse_without_effect(given, name, why=f"only {job} takes it")
    options = command.Options(top, context, offset, through_mlp0, skip_trigrams, head)
    corpus = texts.Corpus(text, limit, seed)
    if open_file is not None:
        command.reopen(open_file, where, options)
    elif token is not None:
        command.about_token(token, where, options)
    elif terms:
        texts.order(corpus, where, mlps=mlps)
    elif layers:
        texts.remove(corpus, where, kind=kind)
    elif compress:
        texts.shrink(corpus, where, head=head, tolerance=tolerance, together=together)
    else:
        command.read(where, options)
