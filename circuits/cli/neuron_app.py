"""The command `circuits neuron`: what it takes and what it says of itself."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open


@app.command()
@plain_errors()
def neuron(
    context: Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NEURON|LAYER", help="A neuron (m3.n457), or a layer (m3) to list.", show_default="all neurons, listed"
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to look for triggers in.", show_default="what the model writes, and facts of mini"),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="TOKENS", min=2, help="Stop after so many tokens of the text.")] = 200_000,
    top: Annotated[int, typer.Option(min=1, help="Triggers of a neuron, or neurons of a list, to print.")] = 10,
    through: Annotated[
        str | None,
        typer.Option(metavar="HEAD", help="Read what it writes through a later head, such as a3.h1.", show_default=False),
    ] = None,
    clamp: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="Hold the neuron at this activation, and see what changes.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="The prompt on which it is held.", show_default="the text where it fires least")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/neuron-MODEL")] = None,
    open_file: Annotated[
        Path | None, typer.Option("--open", metavar="FILE", help="Show a saved neuron.json; nothing is computed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the text that the model writes, and of what counts as chance.")] = 0,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """What triggers a neuron, and what it writes.

    A neuron of an MLP is a key and a value: it fires where the residual stream matches its input weights, and adds its
    output weights to it. This command looks through a text for the places where the neuron fires most, reads its value as
    tokens, and says which heads and neurons stand before and behind it. With a layer, or with no name, it lists neurons,
    those first whose value names what follows their triggers, and compares with chance (Geva et al. 2021).

    \b
    Examples:
      circuits neuron m3.n457
      circuits neuron m3.n457 --text book.txt --top 20
      circuits neuron m3.n457 --clamp 8 --prompt "The capital of France is"
      circuits neuron m0.n331 --through a3.h1
      circuits neuron m3 --text book.txt --limit 1000000
      circuits neuron --model gpt2
      circuits neuron --open out/neuron-mini/neuron.json
    """
    from circuits.cli.commands import neuron as command

    asked = command.Question(name=name, text=text, limit=limit, top=top, through=through, clamp=clamp, prompt=prompt, seed=seed)
    if open_file is not None:
        refuse_with_open(context, "top")
        command.reopen(open_file, asked, out=out, as_json=as_json)
        return
    command.run(asked, model=model, device=device, dtype=dtype, out=out, as_json=as_json)
