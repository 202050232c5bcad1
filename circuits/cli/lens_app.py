"""The command `circuits lens`: what it takes and what it says of itself."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, Seed, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open, refuse_without_effect
from circuits.cli.patching_app import Memory, Open


@app.command()
@plain_errors()
def lens(
    context: Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the model reads.")] = "The capital of France is",
    answer: Annotated[
        str | None,
        typer.Option(help="A token whose rank and probability are followed, with its space.", show_default="the model's own"),
    ] = None,
    nodes: Annotated[
        str | None, typer.Option(help="Also what nodes write: a1.h2,m3,m0.n5; a0.h1+m3 is a sum.", show_default=False)
    ] = None,
    sublayers: Annotated[bool, typer.Option("--sublayers", help="Also read between attention and MLP of each layer.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Top tokens of each row to print and keep.")] = 5,
    tuned: Annotated[Path | None, typer.Option(metavar="FILE", help="Read through a trained tuned lens.")] = None,
    train_tuned: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="First train a tuned lens into this file; if stopped, the same command goes on."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="BOOK", help="A text file to train on; its last tenth is held out to compare on.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training, each on 8 prompts of up to 128 tokens.")] = 200,
    seed: Seed = 0,
    bos: Annotated[
        bool | None, typer.Option("--bos/--no-bos", help="Begin the prompt with BOS.", show_default="as the model is used to")
    ] = None,
    memory: Memory = 256,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/lens-MODEL")] = None,
    open_file: Open = None,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Read what a model would say layer by layer: the logit lens, or a tuned lens.

    The residual stream before each layer goes through the model's own final norm and unembedding, as if it were the last
    one. A tuned lens first brings each layer into the coordinates of the last one, by an affine map trained so that what it
    says is near to what the model says at last. With --nodes, what heads, MLPs and neurons write by themselves.

    \b
    Examples:
      circuits lens
      circuits lens "The Eiffel Tower is in the city of" --model gpt2 --answer " Paris"
      circuits lens --sublayers --nodes a1.h2,m3,a0.h1+a0.h2
      circuits lens --train-tuned tuned.safetensors --text book.txt --steps 200
      circuits lens --tuned tuned.safetensors
      circuits lens --open out/lens-mini/lens.json
    """
    from circuits.cli.commands import lens as command

    if open_file is not None:
        refuse_with_open(context)
        command.reopen(open_file, out=out, as_json=as_json)
        return
    if train_tuned is None:
        refuse_without_effect(context, "steps", "seed", why="only --train-tuned takes it")
    asked = command.Asked(
        prompt=prompt,
        answer=answer,
        nodes=command.parse_nodes(nodes),
        sublayers=sublayers,
        top=top,
        bos=bos,
        budget=memory * 2**20,
    )
    training = command.Training(tuned=tuned, path=train_tuned, text=text, steps=steps, seed=seed)
    command.run(asked, training, model=model, out=out, device=device, dtype=dtype, as_json=as_json)
