"""`circuits classify stability`: whether a classifier goes by the same words when synonyms take their places."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import ClassifierFile, LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed, there
from circuits.cli.questions.classify import Labelled, classifier_of, labelled_of, shown_texts, synonyms_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "stability.json": "every pair; circuits classify stability --open shows it again",
    "stability.csv": "the same as a table",
    "stability.png": "the same as a picture",
    "attacked.json": "the pairs of the classifier trained on attacked texts too, without FLAT's penalty",
    "attacked.csv": "the same as a table",
    "attacked.png": "the same as a picture",
    "attacked.safetensors": "that classifier; --classifier of the other subcommands reads it",
    "flat.json": "the pairs of the classifier trained with FLAT",
    "flat.csv": "the same as a table",
    "flat.png": "the same as a picture",
    "flat.safetensors": "that classifier; --classifier of the other subcommands reads it",
}
"""What `circuits classify stability` writes, and what for."""


@app.command("classify stability")
@with_setting("classify", memory=True)
def classify_stability(
    context: Context,
    classifier: ClassifierFile = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    synonyms: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON: words, each with a list of others.",
            show_default="neighbours among embeddings",
            callback=there,
        ),
    ] = None,
    shown: Annotated[int, typer.Option("--texts", min=2, help="So many of the texts held out.")] = 60,
    most: Annotated[int, typer.Option("--words", min=1, help="Words of a text that are replaced, at most.")] = 3,
    method: Annotated[
        str, typer.Option(metavar="gradient|integrated|direct|attention|rollout", help="How words are given numbers.")
    ] = "gradient",
    flat: Annotated[
        float | None,
        typer.Option(metavar="STRENGTH", help="Train all weights without and with FLAT; compare.", show_default=False),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is trained on, with --flat.")] = 3,
    rate: Annotated[float, typer.Option(help="The largest step size, with --flat.")] = 2e-4,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Replace words by synonyms and compare.

    Words of each text are replaced, in a greedy search for another answer and at random. Where the class is kept, and where it
    turns: are the words' numbers in the same order (Kendall's tau)? Synonyms of the reviews that are made are opinions of the
    same side; of other texts neighbours among the embeddings, which are used alike and may be opposites: a file is better.
    --flat trains three classifiers and compares them: plainly, on attacked texts too, and on these with the importance of a
    word and of its replacement held together (after FLAT, Chen & Ji 2022, where importance is a learnt mask; here it is
    input times gradient). What the last has over the second the penalty adds.

    \b
    Examples:
      circuits classify stability
      circuits classify stability --flat 1 --count 160 --epochs 2
      circuits classify stability --data train.tsv --synonyms words.json
      circuits classify stability --open out/classify-mini/stability.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    how = circuits.uses.Attributing(method=method)
    if flat is not None and (classifier is not None or not 0 < flat < float("inf")):
        raise PromptError(f"--flat {flat}: expected more than 0, without --classifier: it trains its own")
    labelled = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    recipe = None if flat is None else circuits.uses.Recipe(epochs=epochs, rate=rate, seed=seed)
    options = {"shown": shown, "most": most, "how": how, "seed": seed}
    run(setting, labelled, classifier, synonyms, flat, recipe, **options)


def run(
    setting: Setting,
    labelled: Labelled,
    classifier: Path | None,
    file: Path | None,
    flat: float | None,
    recipe: "circuits.uses.Recipe | None",
    *,
    shown: int,
    most: int,
    how: "circuits.uses.Attributing",
    seed: int,
) -> None:
    """Replace, compare, train where asked to, write the files, print the report."""
    from circuits.cli.reports.classify_stability import stability_report, write

    expected = [name for name in FILES if flat is not None or name.startswith("stability")]
    with setting.parts(FILES, below="stability", expected=expected, options="--texts, --memory") as work:
        model, about = setting.load(work.progress), {"budget": setting.budget, "progress": work.progress}
        if recipe is None:
            found = classifier_of(setting, classifier, labelled, seed=seed, progress=work.progress)
        else:
            found = circuits.uses.train_all(model, labelled.train, recipe=recipe, progress=work.progress)
        texts, labels = shown_texts(labelled, found, shown, seed=seed)
        words, named = synonyms_of(file, labelled, model, (*texts, *labelled.train.texts) if flat is not None else texts)
        options: dict[str, Any] = {"named": named, "how": how, "most": most, "seed": seed, **about}
        several: dict[str, Any] = {}
        right: dict[str, Any] = {}

        def compare(trained: "circuits.uses.Classifier", name: str) -> None:
            """Replace words of the texts, and keep what comes of it."""
            several[name] = circuits.uses.stability(trained, texts, words, **options)
            right[name] = _right(trained, texts, labels)
            several[name].save(work.staging / f"{name}.json")
            write(several[name], work.staging, name)

        compare(found, "stability")
        work.publish()
        if recipe is not None and flat is not None:
            from circuits.uses.attributing.flat import attacked_texts

            others = attacked_texts(found, labelled.train.texts, words, most=most, **about)
            for name, strength in (("attacked", 0.0), ("flat", flat)):
                training = {"strength": strength, "others": others, "recipe": recipe, **about}
                held = circuits.uses.train_flat(model, found, labelled.train, words, **training)
                held.save(work.staging / f"{name}.safetensors")
                compare(held, name)
    setting.answer(stability_report(several, work.written, [setting.opening("stability.json", "stability")], right=right))


def _right(classifier: Any, texts: tuple[str, ...], labels: tuple[int, ...]) -> list[bool]:
    """Which texts a classifier tells right."""
    said = classifier.predict(texts)
    return [one == classifier.classes[label] for one, label in zip(said, labels, strict=True)]


def reopen(file: Path, setting: Setting) -> None:
    """Print saved pairs again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.classify_stability import stability_report, write

    found = opened(circuits.uses.Stability, file)
    name = file.stem if file.stem in ("attacked", "flat") else "stability"
    setting, files = written_again(found, file, setting, lambda one, folder: write(one, folder, name), FILES)
    setting.answer(stability_report({name: found}, files))
