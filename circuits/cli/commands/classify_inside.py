"""`circuits classify inside`: which nodes carry a shortcut and which the meaning, before and after a classifier was mended."""

from pathlib import Path
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
    "inside.json": "every node's numbers; circuits classify inside --open shows them again",
    "inside.csv": "the same as a table",
    "inside.png": "the same as a picture",
    "shortcut-before.json": "the strongest edges for the shortcut; circuits compare takes two of these files",
    "shortcut-after.json": "those of the mended classifier",
    "meaning-before.json": "the strongest edges for the meaning",
    "meaning-after.json": "those of the mended classifier",
}
"""What `circuits classify inside` writes, and what for."""


@app.command("classify inside")
@with_setting("classify-inside", memory=True)
def classify_inside(
    context: Context,
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A saved classifier.", show_default="one that is trained now")
    ] = None,
    after: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The one that was mended.", show_default="one that is regularised now")
    ] = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    words: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="The shortcuts; needed with --data.", show_default="the days of the made texts"),
    ] = None,
    pairs: Annotated[int, typer.Option(min=5, help="Texts that are swapped, at most, of each kind.")] = 64,
    edges: Annotated[int, typer.Option(min=1, help="Edges of the circuits beside it.")] = 40,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is trained on, without files.")] = 3,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Tell what changed in a mended classifier.

    Texts and the same texts with the shortcut swapped, or with the words of their rationales turned: which heads and MLPs carry
    the difference to the answer, before the classifier was mended and after? Both classifiers see the same texts.

    \b
    Examples:
      circuits classify inside
      circuits classify inside --before FILE --after FILE --words friday,monday
      circuits classify inside --before A --after B --data a.tsv --words only
      circuits classify inside --open FILE
    """
    from circuits.cli.reports.classify_inside import inside_report, write
    from circuits.uses.classifying.planted import DAYS

    if open_file is not None:
        refuse_with_open(context)
        found = opened(circuits.uses.InsideChange, open_file)
        setting, files = written_again(found, open_file, setting, write, FILES)
        setting.answer(inside_report(found, files))
        return
    if (before is None) != (after is None):
        raise PromptError("--before and --after go together: give both, or neither")
    if data is not None and not words_of(words):
        raise PromptError("--data needs --words: which words are the shortcuts? circuits classify shortcuts finds some")
    texts = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    named = words_of(words) or list(DAYS)
    recipe, counted = circuits.uses.Recipe(epochs=epochs, seed=seed), circuits.uses.label_words(texts.train)
    with setting.parts(FILES, expected=["inside.json", "inside.csv", "inside.png"], options="--pairs, --memory") as work:
        model, progress = setting.load(work.progress), work.progress
        if before is None or after is None:
            both = (
                circuits.uses.train_all(model, texts.train, recipe=recipe, progress=progress),
                circuits.uses.train_regularised(
                    model, texts.train, circuits.uses.wishes_of(texts.train), recipe=recipe, progress=progress
                ),
            )
        else:
            both = (circuits.uses.Classifier.load(before, model), circuits.uses.Classifier.load(after, model))
        judged = next(iter(texts.splits.values())).labelled(both[0].classes)
        swaps = [circuits.uses.shortcut_swaps(both[0], counted, judged, named, most=pairs, seed=seed)]
        swaps += [circuits.uses.meaning_swaps(both[0], counted, judged, most=pairs, seed=seed)] if judged.marked else []

        def keep(what: str, when: str, circuit: circuits.Circuit) -> None:
            """Every circuit is a file."""
            circuit.save(work.staging / f"{what.split()[-1]}-{when}.json")

        about = {"edges": edges, "seed": seed, "budget": setting.budget, "progress": progress, "found": keep}
        found = circuits.uses.compare_inside(*both, swaps, words=named, **about)
        found.save(work.staging / "inside.json")
        work.publish()
        write(found, work.staging)
    setting.answer(inside_report(found, work.written, [setting.opening("inside.json")]))
