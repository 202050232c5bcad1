"""The command `circuits probe`: what it takes and what it says of itself."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open


@app.command()
@plain_errors()
def probe(
    context: Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES", help="More files; by themselves: .jsonl are minimal pairs, .json facts.", show_default=False
        ),
    ] = None,
    minimal_pairs: Annotated[
        list[Path] | None,
        typer.Option("--minimal-pairs", metavar="FILE", help="BLiMP JSONL: sentence_good, sentence_bad.", show_default=False),
    ] = None,
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            "--facts", metavar="FILE", help="ROME's known_1000.json, or an LRE relation.", show_default="those of mini"
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A text to count neighbours in for the bigram baseline.", show_default="the model, shown one token"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many of each file.", show_default="all")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write: .json (every item), .csv (the table) or .png.", show_default=False)
    ] = None,
    open_file: Annotated[
        Path | None, typer.Option("--open", metavar="FILE", help="Show saved scores (.json) again; nothing is computed.")
    ] = None,
    memory: Annotated[int, typer.Option(metavar="MB", min=1, help="Memory for a batch, besides the model.")] = 256,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Test what a model does on minimal pairs or facts, without training anything.

    Minimal pairs: how often the good sentence is more likely than the bad one. Facts: how often the first token of the
    attribute is what the model says next. Beside the model stand baselines that know less: bigram (the previous token alone),
    unigram and length for sentences, majority (the relation's most frequent attribute) for facts.

    \b
    Examples:
      circuits probe
      circuits probe --minimal-pairs anaphor_gender_agreement.jsonl npi_present_1.jsonl
      circuits probe --model gpt2 --facts known_1000.json --out facts.csv
      circuits probe --minimal-pairs blimp/*.jsonl --text book.txt --json
      circuits probe --open scores.json --out scores.png
    """
    from circuits.cli.commands import behaviour as command

    if open_file is not None:
        refuse_with_open(context)
        command.reopen(open_file, out=out, as_json=as_json)
        return
    asked = command.sort_files(files or [], minimal_pairs or [], facts or [])
    where = {"model": model, "device": device, "dtype": dtype}
    command.run(*asked, text=text, limit=limit, out=out, memory=memory, **where, as_json=as_json)
