"""`circuits lens train`: a tuned lens, trained on a text and compared with the logit lens on what it was not trained on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.commands.lens import COMPARISON, FILES as READ
from circuits.cli.errors import Context
from circuits.cli.options import (
    LensAnswer,
    LensNodes,
    LensTop,
    PromptOption,
    Seed,
    prompt_of,
    repeated,
)
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import require_text
from circuits.cli.questions.lens import PROMPT, LensQuestion, parse_nodes
from circuits.cli.settings import Setting, with_setting
from circuits.errors import FileFormatError, PromptError

FILES = {**READ, **COMPARISON}
"""What `circuits lens train` writes beside the tuned lens, and what for."""
_HELD_OUT, _LEAST, _MOST = 10, 2, 64
"""The share of a text that is held out (one in so many rows), and the least and the most rows that lenses are compared on."""
_OF_TRAINING = ("file", "text", "steps", "seed", "nodes")
"""Parameters that `circuits lens` does not take, or takes anew."""


@app.command("lens train")
@with_setting("lens", memory=True, target="file")
def lens_train(
    context: Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The file to train into; if stopped, the same command goes on.", show_default=False
        ),
    ],
    text: Annotated[
        Path,
        typer.Option(
            metavar="BOOK", help="A text file to train on; its last tenth is held out to compare on.", show_default=False
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What is read through it then.", show_default=PROMPT)
    ] = None,
    prompt_option: PromptOption = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training, each on 8 prompts of up to 128 tokens.")] = 200,
    seed: Seed = 0,
    answer: LensAnswer = None,
    nodes: LensNodes = None,
    top: LensTop = 5,
    *,
    setting: Setting,
) -> None:
    """Train a tuned lens, and read a prompt with it.

    For each layer an affine map is trained so that what the final norm and the unembedding make of the mapped residual
    stream is near to what the model says at last (KL). On the last tenth of the text both lenses are compared.

    \b
    Examples:
      circuits lens train tuned.safetensors --text book.txt
      circuits lens train tuned.safetensors "The king" --text book.txt
      circuits lens "The capital of France is" --tuned tuned.safetensors
    """
    said = prompt_of(prompt, prompt_option)
    reading = LensQuestion(prompt=PROMPT if said is None else said, answer=answer, nodes=parse_nodes(nodes), top=top)
    if file.suffix.lower() != ".safetensors":
        raise FileFormatError(
            f"{file}: FILE comes first, the tuned lens itself, with a name that ends in .safetensors; the prompt follows it: "
            "circuits lens train tuned.safetensors PROMPT --text BOOK"
        )
    run(Training(file=file, text=text, steps=steps, seed=seed), reading, setting, repeated(context, *_OF_TRAINING))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Into which file a tuned lens is trained, and on what."""

    file: Path
    text: Path
    steps: int
    seed: int

    def train(
        self, model: "circuits.Model", text: str, setting: Setting, progress: ProgressBars
    ) -> "tuple[circuits.TunedLens, circuits.lenses.LensComparison]":
        """The tuned lens, and what it is worth on the part of the text that it was not trained on."""
        from circuits.tasks.sources.corpus import text_rows

        rows = text_rows(model, text)
        held = max(_LEAST, len(rows) // _HELD_OUT)
        if len(rows) <= held:
            width = rows.ids.shape[1]
            raise PromptError(
                f"{self.text}: too short to train on: {len(rows)} × {width} tokens, expected {held + 1} × {width} or more"
            )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        options = {"budget": setting.budget, "progress": progress}
        own = {"steps": self.steps, "seed": self.seed, "path": self.file}
        tuned = circuits.train_tuned_lens(model, rows[: len(rows) - held], **own, **options)
        return tuned, circuits.compare_lenses(model, rows[len(rows) - held :][:_MOST], tuned, **options)


def run(training: Training, reading: LensQuestion, setting: Setting, said: Sequence[str]) -> None:
    """Train, read through the lens, write the files, print the report; `said`: how to read the same again."""
    from circuits.cli.output import save_figure
    from circuits.cli.reports.lens import lens_report, next_steps, write
    from circuits.tasks.sources.corpus import read_text

    require_text(reading.prompt)
    text = read_text(training.text)
    with setting.parts(FILES, below="train") as work:
        model = setting.load(work.progress)
        reading.read(model, setting, work.progress)  # what is wrong about the prompt is said before the training
        tuned, comparison = training.train(model, text, setting, work.progress)
        found = reading.read(model, setting, work.progress, tuned)
        comparison.save(work.staging / "comparison.json")
        found.save(work.staging / "lens.json")
        work.publish()
        write(found, work.staging)
        save_figure(comparison.plot(), work.staging / "comparison.png")
    steps = next_steps(found, setting, said, trained=training.file)
    setting.answer(lens_report(found, work.written, comparison, steps=steps))
