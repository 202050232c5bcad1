"""The program `circuits`: what it says of itself, and where its commands register."""

from typing import Annotated

import typer

from circuits.cli.dispatch import Commands

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        import importlib.metadata

        typer.echo(f"circuits {importlib.metadata.version('transformer-circuits')}")
        raise typer.Exit
    return wanted


@app.callback()
def circuits(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find circuits in transformer language models.

    A model runs as a graph: every head and MLP reads the residual stream and adds to it. Heads are named a0.h1 (head 1
    of layer 0), MLPs m3, edges a0.h1->a2.h0<k>.

    \b
    Start with:
      circuits induction              the induction heads of the bundled model
      circuits heads --model gpt2     score every head of GPT-2
      circuits trace                  where the bundled model keeps a fact
      circuits lens                   what it would say after each layer
      circuits discover               the circuit behind a task, judged
      circuits study                  which behaviours it has, the circuit of each
      circuits COMMAND --help         what a command does, with examples
    """


def main() -> None:
    """Run the command line."""
    app()
