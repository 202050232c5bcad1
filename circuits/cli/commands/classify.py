"""`circuits classify`: the classes of texts, by a classifier on top of the model."""

from typing import Annotated

import typer

from circuits.cli.app import app
from circuits.cli.options import ClassifierFile, Seed
from circuits.cli.progress import ProgressBars
from circuits.cli.questions.classify import classifier_of, labelled_of
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError


@app.command()
@with_setting("classify", memory=True)
def classify(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="What is classified.", show_default=False)
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
      circuits classify "We saw it on Monday . The plot was weak and the cast was boring ."
      circuits classify train --data reviews.tsv --test others.tsv
      circuits classify "Not a word too many ." --classifier out/classify-mini/classifier.safetensors
    """
    from circuits.cli.reports.classify import classes_report

    if not texts:
        raise PromptError("name a text to classify, or a subcommand: circuits classify --help lists them")
    with ProgressBars() as progress:
        found = classifier_of(setting, classifier, labelled_of(None, (), count=None, seed=seed), seed=seed, progress=progress)
        logits = found.logits(texts, budget=setting.budget, progress=progress)
    setting.answer(classes_report(found, texts, logits))
