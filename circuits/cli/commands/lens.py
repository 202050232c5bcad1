"""`circuits lens`: the logit lens or a tuned lens of one prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    LensAnswer,
    LensNodes,
    LensTop,
    Open,
    PromptOption,
    prompt_of,
    repeated,
)
from circuits.cli.prompts import require_text
from circuits.cli.questions.lens import PROMPT, LensQuestion, parse_nodes
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

COMPARISON = {"comparison.json": "both lenses on held-out text", "comparison.png": "the same as a figure"}
"""What `circuits lens train` writes besides."""
FILES = {
    "lens.json": "everything read; circuits lens --open and circuits.Lens.load read it",
    "lens.csv": "all of it as a table",
    "lens.png": "layers by tokens",
    "curves.png": "entropy, divergence and loss by layer",
}
"""What `circuits lens` writes, and what for."""


@app.command()
@with_setting("lens", memory=True, long=False)
def lens(
    context: Context,
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What the model reads.", show_default=PROMPT)] = None,
    prompt_option: PromptOption = None,
    answer: LensAnswer = None,
    nodes: LensNodes = None,
    sublayers: Annotated[bool, typer.Option("--sublayers", help="Also read between attention and MLP of each layer.")] = False,
    top: LensTop = 5,
    tuned: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read through a tuned lens, as circuits lens train makes it.")
    ] = None,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Read what a model would say after each layer.

    The logit lens: the residual stream before each layer goes through the model's own final norm and unembedding, as if
    it were the last one. A tuned lens first brings each layer into the coordinates of the last one, by an affine map
    trained so that what it says is near to what the model says at last. With --nodes, what heads, MLPs and neurons write
    by themselves.

    \b
    Examples:
      circuits lens
      circuits lens "The Eiffel Tower is in" --model gpt2 --answer " Paris"
      circuits lens --sublayers --nodes a1.h2,m3,a0.h1+a0.h2
      circuits lens train tuned.safetensors --text book.txt --steps 200
      circuits lens --tuned tuned.safetensors
      circuits lens --prompt train
      circuits lens --open out/lens-mini/lens.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    given = prompt_of(prompt, prompt_option)
    reading = LensQuestion(
        prompt=PROMPT if given is None else given,
        answer=answer,
        nodes=parse_nodes(nodes),
        sublayers=sublayers,
        top=top,
    )
    run(reading, setting, tuned, said=repeated(context, "nodes", "sublayers", "tuned"))


def run(reading: LensQuestion, setting: Setting, tuned: Path | None, *, said: Sequence[str]) -> None:
    """Read, write the files, print the report; `said`: how to ask it again."""
    from circuits.cli.reports.lens import lens_report, next_steps, write

    require_text(reading.prompt)
    if reading.sublayers and tuned is not None:
        raise PromptError("--sublayers has no tuned lens: translators are for whole layers; leave out one of the two")
    with setting.parts({**FILES, **COMPARISON}, expected=FILES) as work:
        model = setting.load(work.progress)
        through = None if tuned is None else circuits.TunedLens.load(tuned, model)
        found = reading.read(model, setting, work.progress, through)
        found.save(work.staging / "lens.json")
        work.publish()
        write(found, work.staging)
    setting.answer(lens_report(found, work.written, steps=next_steps(found, setting, said, tuned=tuned)))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved lens again, and write its table and figures beside it, or into the folder asked for."""
    from circuits.cli.reports.lens import lens_report, write

    found = opened(circuits.Lens, file)
    if len(found.ids) > 1:
        raise PromptError(f"{file}: holds {len(found.ids)} prompts; the command shows one: read it with circuits.Lens.load")
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(lens_report(found, files))
