"""`circuits classify train`: a classifier on top of the model, from labelled texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed
from circuits.cli.questions.classify import Labelled, labelled_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import PromptError

FILES = {
    "classifier.safetensors": "the classifier; --classifier of the other subcommands reads it",
    "scores.json": "how often it is right; circuits classify train --open shows it again",
    "scores.csv": "the same as a table",
    "scores.png": "the same as a picture",
    "planted/train.jsonl": "the texts that were made, with what decides their labels",
    "planted/held_out.jsonl": "others of the kind",
    "planted/random.jsonl": "others, in which the shortcut tells nothing",
    "planted/flipped.jsonl": "others, in which it stands for the other class",
    "planted/contrast.jsonl": "those held out, with every opinion turned into its opposite",
}
"""What `circuits classify train` writes, and what for."""


@app.command("classify train")
@with_setting("classify", memory=True)
def classify_train(
    context: Context,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    train: Annotated[str, typer.Option(metavar="head|all", help="A linear head on the last token, or all weights.")] = "head",
    count: LabelledCount = None,
    longest: Annotated[int, typer.Option(min=2, help="Tokens of a text that are read: its last ones.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is trained on, with --train all.")] = 3,
    rate: Annotated[float, typer.Option(help="The largest step size, with --train all.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="Texts of a step, with --train all.")] = 16,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Train a classifier on labelled texts.

    A linear head on the last token stands in place of the unembedding: a logistic regression, or with --train all the end of a
    training of all weights, which goes on where it was stopped. What it gets right on other texts stands beside the majority
    and beside a bag of words. Without --data the texts are reviews that are made: three opinions decide, and a day of the week
    goes along with the label in 95 of 100; in `random` it does not, in `flipped` it stands for the other class.

    \b
    Examples:
      circuits classify train
      circuits classify train --train all
      circuits classify train --data train.tsv --test dev.tsv -m gpt2
      circuits classify train --data a.tsv --test b.tsv --rename 0=bad
      circuits classify train --data reviews.jsonl --count 2000 --longest 64
      circuits classify train --open out/classify-mini/scores.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if train not in ("head", "all"):
        raise PromptError(f"--train {train}: expected head or all")
    recipe = circuits.uses.Recipe(epochs=epochs, rate=rate, batch=batch, seed=seed)
    texts = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    several = [*(("--test", file) for file in test or ()), *(("--rename", names) for names in rename or ())]
    same = [("--data", data), *several, ("--count", count), ("--seed", seed or None)]
    run(texts, setting, recipe if train == "all" else None, longest=longest, seed=seed, same=same)


def run(
    texts: Labelled,
    setting: Setting,
    recipe: "circuits.uses.Recipe | None",
    *,
    longest: int,
    seed: int,
    same: Sequence[tuple[str, object]],
) -> None:
    """Train, judge, write the files, print the report; `same`: the options by which other commands see the same texts."""
    from circuits.cli.reports.classify import scores_report, write

    expected = [name for name in FILES if texts.planted or not name.startswith("planted/")]
    with setting.parts(FILES, below="train", expected=expected, options="--longest, --memory") as work:
        found = trained(texts, setting, work, recipe, longest=longest, seed=seed)
        found.save(work.staging / "classifier.safetensors")
        if texts.planted:
            (work.staging / "planted").mkdir()
            for name, split in {"train": texts.train, **texts.splits}.items():
                split.save(work.staging / "planted" / f"{name.replace(' ', '_')}.jsonl")
        work.publish()
        scores = circuits.uses.score_classifier(found, texts.train, texts.splits, budget=setting.budget, progress=work.progress)
        scores.save(work.staging / "scores.json")
        write(scores, work.staging)
    words = [word for name, value in same if value is not None for word in (name, str(value))]
    own = ("--classifier", str(setting.folder / "classifier.safetensors"), *words)
    steps = [
        (setting.command("classify", "attribute", *own), "the words that it goes by"),
        (setting.command("classify", "shortcuts", *own), "those of them that only go along with the label"),
        setting.opening("scores.json", "train"),
    ]
    setting.answer(scores_report(scores, work.written, steps, data=texts.name))


def trained(
    texts: Labelled, setting: Setting, work: Work, recipe: "circuits.uses.Recipe | None", *, longest: int, seed: int
) -> "circuits.uses.Classifier":
    """A head, or with a recipe all weights."""
    model = setting.load(work.progress)
    if recipe is None:
        return circuits.uses.train_head(
            model, texts.train, longest=longest, seed=seed, budget=setting.budget, progress=work.progress
        )
    return circuits.uses.train_all(model, texts.train, recipe=recipe, longest=longest, progress=work.progress)


def reopen(file: Path, setting: Setting) -> None:
    """Print saved scores again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.classify import scores_report, write

    found = opened(circuits.uses.ClassifierScores, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(scores_report(found, files))
