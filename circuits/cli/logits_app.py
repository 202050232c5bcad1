"""The command `circuits logits`: what it takes and what it says of itself."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open
from circuits.cli.patching_app import Clean, Corrupt, Count, Memory, Open, PromptFile, Seed, Task


@app.command()
@plain_errors()
def logits(
    context: Context,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="A text; its last token's logits are taken apart.", show_default=False),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="The token whose logit is taken apart.", show_default="what the model says next"),
    ] = None,
    distractor: Annotated[
        str | None, typer.Option(help="A token whose logit is taken off.", show_default="none, the answer's logit alone")
    ] = None,
    neurons: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Split each MLP into its K strongest neurons and the rest.")
    ] = None,
    positions: Annotated[bool, typer.Option("--positions", help="Split each head by the tokens that it attends to.")] = False,
    side: Annotated[
        str, typer.Option(metavar="clean|corrupt", help="Of pairs: which prompts are read, always for the clean answer.")
    ] = "clean",
    task: Task = None,
    prompts: PromptFile = None,
    clean: Clean = None,
    corrupt: Corrupt = None,
    count: Count = None,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 15,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/logits-MODEL")] = None,
    open_file: Open = None,
    memory: Memory = 256,
    seed: Seed = 0,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Take a logit apart: what each head, MLP or neuron writes to the answer.

    Every node adds a vector to the residual stream, and the logit is read from their sum. This command says how much of the
    answer's logit (less the distractor's, where there is one) each of them brings: positive speaks for the answer. The rows
    sum to the logit exactly; what a node does through later nodes is not counted (circuits patch tells that).

    \b
    Examples:
      circuits logits "The capital of France is"
      circuits logits "The capital of France is" --answer " Paris" --distractor " Rome" --neurons 5 --positions
      circuits logits --task induction --positions
      circuits logits --model gpt2 --prompts ioi.csv --top 30
      circuits logits --open out/logits-mini/logits.json
    """
    from circuits.cli.commands import logits as command
    from circuits.cli.prompts import PromptOptions

    own = clean is not None or corrupt is not None
    texts = {"clean": clean, "corrupt": corrupt, **({"answer": answer, "distractor": distractor} if own else {})}
    pairs = PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed)
    if open_file is not None:
        refuse_with_open(context, "top")
        command.reopen(open_file, out=out, top=top, as_json=as_json)
        return
    question = command.Question(
        prompt=prompt,
        answer=None if own else answer,
        distractor=None if own else distractor,
        pairs=pairs,
        neurons=neurons,
        positions=positions,
        side=side,
    )
    where = {"model": model, "device": device, "dtype": dtype, "out": out}
    command.run(question, **where, memory=memory, top=top, as_json=as_json)
