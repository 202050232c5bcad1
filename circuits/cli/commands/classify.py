"""`circuits classify`: the classes of texts, by a classifier on top of the model."""

import difflib
from typing import Annotated

import typer

from circuits.cli.app import app
from circuits.cli.options import ClassifierFile, Seed
from circuits.cli.progress import ProgressBars
from circuits.cli.questions.classify import classifier_of, labelled_of
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

_SHOWN = 6
"""Texts that are classified where none is given."""
_BELOW = ("train", "attribute", "shortcuts", "regularise", "feedback", "inside", "stability", "amplify", "report")


@app.command()
@with_setting("classify", memory=True, long=False)
def classify(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXTS", help="What is classified.", show_default="some reviews that are made"),
    ] = None,
    classifier: ClassifierFile = None,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Tell the classes of texts.

    A classifier stands on top of the model: a linear head on the last token in place of the unembedding. `circuits classify
    train` makes one of labelled texts; without a file, one is trained on reviews that are made, in which a word that has
    nothing to do with the label goes along with it.

    \b
    Examples:
      circuits classify
      circuits classify "We saw it on Monday . The plot was weak ."
      circuits classify train --data reviews.tsv --test others.tsv
      circuits classify "A fine film ." --classifier classifier.safetensors
    """
    from circuits.cli.reports.classify import classes_report

    planted = labelled_of(None, (), count=None, seed=seed)
    words = tuple(texts) if texts else next(iter(planted.splits.values())).texts[:_SHOWN]
    slip = difflib.get_close_matches(words[0], _BELOW, n=1) if len(words) == 1 else []
    if slip:
        raise PromptError(f"{words[0]!r} is no subcommand; did you mean circuits classify {slip[0]}? A text has several words")
    with ProgressBars() as progress:
        found = classifier_of(setting, classifier, planted, seed=seed, progress=progress)
        logits = found.logits(words, budget=setting.budget, progress=progress)
    setting.answer(classes_report(found, words, logits))
