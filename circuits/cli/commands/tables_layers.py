"""`circuits tables layers`: the loss without each layer, and what later layers make up for."""

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
    "layers.json": "every layer's loss; circuits tables layers --open shows it again",
    "layers.csv": "the same as a table",
    "layers.png": "the same, drawn",
}
"""What `circuits tables layers` writes, and what for."""
KINDS = ("zero", "mean")


@app.command("tables layers")
@with_setting("tables", memory=True)
def tables_layers(
    context: Context,
    kind: Annotated[str, typer.Option(metavar="zero|mean", help="What stands in for a layer.")] = "zero",
    text: Text = None,
    limit: TextLimit = 2048,
    seed: TextSeed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Measure a text's loss without each layer.

    direct: what a layer's attention or MLP adds to the true next token's logit itself; total: what is lost without it;
    compensation: what later layers add when it is gone.

    \b
    Examples:
      circuits tables layers
      circuits tables layers --kind mean --text book.txt
      circuits tables layers --open out/tables-mini/layers.json
    """
    if open_file is not None:
        refuse_with_open(context)
        _layers().reopen(open_file, setting)
        return
    if kind not in KINDS:
        raise PromptError(f"--kind {kind}: expected zero or mean")
    how: Any = kind
    _layers().run(
        Corpus(text, limit, seed),
        setting,
        lambda model, tokens, progress: circuits.remove_layers(
            model, tokens, kind=how, budget=setting.budget, progress=progress
        ),
    )


def _layers() -> OnText:
    from circuits.cli.reports.layers import layers_report, write

    kind = circuits.patching.LayerRemoval
    return OnText(subcommand="layers", kind=kind, files=FILES, write=write, report=layers_report)
