"""The command `circuits attention`: what it takes and what it says of itself."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open, refuse_without_effect
from circuits.cli.patching_app import Memory, Open

_PROMPT = "The capital of France is"
_PROMPT_OPTIONS = ("prompt", "answer", "position", "heads", "replace", "bos")


@app.command()
@plain_errors()
def attention(
    context: Context,
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What the model reads.", show_default=_PROMPT)] = None,
    answer: Annotated[
        str | None, typer.Option(help="The token that is explained, with its space.", show_default="the model's own")
    ] = None,
    position: Annotated[
        int | None, typer.Option(help="The token to trace from, from 0 or negative from the end.", show_default="-1")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Also draw these heads' patterns: a1.h0,a1.h3.", show_default=False)
    ] = None,
    replace: Annotated[
        str | None,
        typer.Option(
            metavar="mean|resample",
            help="What replaces a token's embedding: the mean of all tokens, or random tokens (8 draws).",
            show_default="mean",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead: label heads by the dependencies of a CoNLL-U file.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="With --labels: stop after so many sentences.", show_default="all")
    ] = None,
    relations: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="With --labels: these relations alone, such as nsubj,det.", show_default="all"),
    ] = None,
    min_count: Annotated[
        int | None, typer.Option(min=2, help="With --labels: leave out relations with fewer cases.", show_default="50")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of random tokens and of the split into halves.")] = 0,
    bos: Annotated[
        bool | None, typer.Option("--bos/--no-bos", help="Begin the prompt with BOS.", show_default="as the model is used to")
    ] = None,
    memory: Memory = 256,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/attention-MODEL")] = None,
    open_file: Open = None,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Trace attention back to the tokens of a prompt, beside what each token's loss costs.

    LAT multiplies attention patterns down the layers, rollout adds the residual connection, flow is the maximum flow with
    attention as capacity, norm weighs the last look by the size of what is moved. Beside them: how much of the answer's
    log-probability is lost when the token's embedding is replaced, and when no later token may attend to it. Where the two
    sides disagree, believe the second: attention is a hint, not a cause.

    With --labels: which heads look along which grammatical relation, against a baseline that knows positions alone, and a
    probe that reads dependencies off attention (Clark et al. 2019).

    \b
    Examples:
      circuits attention
      circuits attention "The Eiffel Tower is in the city of" --model gpt2 --answer " Paris"
      circuits attention --heads a1.h0,a1.h3
      circuits attention "The cat sat. The cat" --position 4 --replace resample
      circuits attention --open out/attention-mini/attention.json
      circuits attention --labels en_ewt-ud-dev.conllu --limit 500
    """
    from circuits.cli.commands import attention as command, attention_labels

    where = {"model": model, "device": device, "dtype": dtype, "memory": memory, "out": out, "as_json": as_json}
    if open_file is not None:
        refuse_with_open(context)
        command.reopen(open_file, out=out, as_json=as_json)
        return
    if labels is not None:
        refuse_without_effect(context, *_PROMPT_OPTIONS, why="--labels reads sentences from a file and traces no prompt")
        attention_labels.run(labels, limit=limit, relations=relations, min_count=min_count or 50, seed=seed, **where)
        return
    refuse_without_effect(context, "limit", "relations", "min_count", why="only --labels takes it")
    place = -1 if position is None else position
    asked = command.Question(_PROMPT if prompt is None else prompt, answer, place, heads, replace or "mean", seed, bos)
    command.run(asked, **where)
