"""`circuits classify regularise`: training that is held to what people say of words, beside plain training."""

from collections.abc import Mapping
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed
from circuits.cli.prompts import words_of
from circuits.cli.questions.classify import labelled_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "classifier.safetensors": "the regularised classifier of the first seed; --classifier of other subcommands reads it",
    "regularised.json": "every number; circuits classify regularise --open shows them again",
    "regularised.csv": "the same as a table",
    "regularised.png": "the same as a picture",
}
"""What `circuits classify regularise` writes, and what for."""


@app.command("classify regularise")
@with_setting("classify-regularise", memory=True)
def classify_regularise(
    context: Context,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    without: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Words that should matter nowhere: friday,monday.", show_default=False)
    ] = None,
    rationale: Annotated[
        str, typer.Option(metavar="removal|gradient|attention|learned", help="What is held to what people say.")
    ] = "removal",
    distance: Annotated[str, typer.Option(metavar="mse|kl|bce|order", help="How far it is from that.")] = "mse",
    strength: Annotated[
        float | None,
        typer.Option(help="Of the penalty, beside the cross-entropy.", show_default="1; 10 but for removal"),
    ] = None,
    train: Annotated[str, typer.Option(metavar="all|head", help="All weights, or a linear head alone.")] = "all",
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each kind.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is trained on.")] = 3,
    rate: Annotated[float, typer.Option(help="The largest step size.")] = 2e-4,
    longest: Annotated[int, typer.Option(min=2, help="Tokens of a text that are read: its last ones.")] = 128,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Hold a classifier to marked words.

    The loss is the cross-entropy plus a penalty: how far what the classifier goes by is from the rationales of the texts, or
    from words that should not matter (explanation regularisation, Joshi et al. 2022). Beside plain training with the same
    seeds: is it right more often on texts of the kind, on unseen texts, on contrast sets, and when words that decide are
    swapped, or words that do not? attention and learned do not hang on a head: they need --train all. learned asks a small head
    on the last stream to say what people say, and ties nothing to the prediction.

    \b
    Examples:
      circuits classify regularise
      circuits classify regularise --seeds 2 --count 120 --distance kl
      circuits classify regularise --data train.jsonl --test dev.tsv
      circuits classify regularise --data train.tsv --without friday,monday
      circuits classify regularise --open FILE
    """
    from circuits.cli.reports.classify_regularise import er_report, write

    if open_file is not None:
        refuse_with_open(context)
        found = opened(circuits.uses.ErTest, open_file)
        setting, files = written_again(found, open_file, setting, write, FILES)
        setting.answer(er_report(found, files))
        return
    if train not in ("head", "all"):
        raise PromptError(f"--train {train}: expected head or all")
    how = circuits.uses.Regularisation.usual(rationale, distance, strength)
    how.check_reach("head" if train == "head" else "all")
    recipe = circuits.uses.Recipe(epochs=epochs, rate=rate)
    words = words_of(without)

    def make(number: int) -> tuple[circuits.uses.Examples, Mapping[str, circuits.uses.Examples]]:
        """The texts of a seed: of files always the same."""
        texts = labelled_of(data, test or (), count=count, seed=number if data is None else seed, rename=rename or ())
        return texts.train, texts.splits

    if not make(seed)[0].marked and not words:
        raise PromptError("the texts have no rationales: name words that should not matter with --without")
    with setting.parts(FILES, options="--count, --longest") as work:
        model = setting.load(work.progress)

        def keep(_: int, plain: circuits.uses.Classifier, held: circuits.uses.Classifier) -> None:
            """The first seed's classifier is kept."""
            held.save(work.staging / "classifier.safetensors")

        options = {"how": how, "without": words, "recipe": recipe, "only": train, "longest": longest, "seen_of": (seed,)}
        asked = tuple(range(seed, seed + seeds))
        found = circuits.uses.er_test(model, make, seeds=asked, progress=work.progress, seen=keep, **options)
        found.save(work.staging / "regularised.json")
        work.publish()
        write(found, work.staging)
    setting.answer(er_report(found, work.written, [setting.opening("regularised.json")]))
