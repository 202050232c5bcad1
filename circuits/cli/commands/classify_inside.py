"""`circuits classify inside`: what carries a shortcut and what the meaning, before and after a classifier was mended."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed, there
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import words_of
from circuits.cli.questions.classify import Labelled, labelled_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "inside.json": "every node's numbers, neurons and verdicts; circuits classify inside --open shows them again",
    "inside.csv": "the same as a table",
    "inside.png": "the same as a picture",
    "shortcut-before.json": "the circuit for the shortcut; circuits compare takes two of these files",
    "shortcut-after.json": "that of the mended classifier",
    "meaning-before.json": "the circuit for the meaning",
    "meaning-after.json": "that of the mended classifier",
}
"""What `circuits classify inside` writes, and what for."""


@app.command("classify inside")
@with_setting("classify-inside", memory=True)
def classify_inside(
    context: Context,
    before: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A saved classifier.", show_default="one that is trained now", callback=there),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The one that was mended.", show_default="one that is regularised now", callback=there
        ),
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Another plain training, of another seed: what two share anyway.",
            show_default="one that is trained now, without files",
            callback=there,
        ),
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
    edges: Annotated[int, typer.Option(min=1, help="Edges of the circuits beside it.")] = 200,
    neurons: Annotated[int, typer.Option(min=0, help="Neurons that are looked at closely: so many of each choice.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is trained on, without files.")] = 3,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Tell what changed in a mended classifier.

    Texts and the same texts with the shortcut swapped, or with the words of their rationales turned: which heads, MLPs and
    single neurons carry the difference to the answer, before the classifier was mended and after? Which circuit is it, how much
    of it does it keep by itself on other texts, and how much of it is shared? All classifiers see the same texts.

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
    if control is not None and before is None:
        raise PromptError("--control goes with --before and --after: without files one is trained")
    if data is not None and not words_of(words):
        raise PromptError("--data needs --words: which words are the shortcuts? circuits classify shortcuts finds some")
    texts = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    named = words_of(words) or list(DAYS)
    run(
        texts,
        (before, after, control),
        named,
        setting,
        pairs=pairs,
        recipe=circuits.uses.Recipe(epochs=epochs, seed=seed),
        about={"edges": edges, "neurons": neurons, "seed": seed},
    )


def run(
    texts: Labelled,
    files: Sequence[Path | None],
    words: Sequence[str],
    setting: Setting,
    *,
    pairs: int,
    recipe: "circuits.uses.Recipe",
    about: dict[str, Any],
) -> None:
    """Train or load, swap, compare, write the files, print the report. `files`: before, after, control."""
    from circuits.cli.reports.classify_inside import inside_report, write

    with setting.parts(FILES, expected=["inside.json", "inside.csv", "inside.png"], options="--pairs, --memory") as work:
        model, progress, seed = setting.load(work.progress), work.progress, about["seed"]
        first, mended, other = _loaded(files, model) if files[0] is not None else _trained(model, texts, recipe, progress)
        judged = next(iter(texts.splits.values())).labelled(first.classes)
        counted = circuits.uses.label_words(texts.train)
        swaps = [circuits.uses.shortcut_swaps(first, counted, judged, words, most=pairs, seed=seed)]
        swaps += [circuits.uses.meaning_swaps(first, counted, judged, most=pairs, seed=seed)] if judged.marked else []

        def keep(what: str, when: str, circuit: circuits.Circuit) -> None:
            """Every circuit is a file."""
            circuit.save(work.staging / f"{what.split()[-1]}-{when}.json")

        about = {**about, "words": words, "budget": setting.budget, "progress": progress, "found": keep}
        found = circuits.uses.compare_inside(first, mended, swaps, control=other, **about)
        found.save(work.staging / "inside.json")
        work.publish()
        write(found, work.staging)
    setting.answer(inside_report(found, work.written, [setting.opening("inside.json")]))


Three = tuple["circuits.uses.Classifier", "circuits.uses.Classifier", "circuits.uses.Classifier | None"]
"""As it was, mended, and another one as it was."""


def _loaded(files: Sequence[Path | None], model: "circuits.Model") -> Three:
    """Those of the files."""
    first, mended, other = (None if file is None else circuits.uses.Classifier.load(file, model) for file in files)
    assert first is not None and mended is not None
    return first, mended, other


def _trained(model: "circuits.Model", texts: Labelled, recipe: "circuits.uses.Recipe", progress: ProgressBars) -> Three:
    """Plain, regularised, and plain with the next seed."""
    wishes, again = circuits.uses.wishes_of(texts.train), dataclasses.replace(recipe, seed=recipe.seed + 1)
    plain, other = (circuits.uses.train_all(model, texts.train, recipe=one, progress=progress) for one in (recipe, again))
    return plain, circuits.uses.train_regularised(model, texts.train, wishes, recipe=recipe, progress=progress), other
