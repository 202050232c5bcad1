"""`circuits classify shortcuts`: the words that a classifier leans on because they go along with the label."""

from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import ClassifierFile, LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed
from circuits.cli.prompts import words_of
from circuits.cli.questions.classify import classifier_of, drawn, labelled_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "shortcuts.json": "every number; circuits classify shortcuts --open shows them again",
    "shortcuts.csv": "the words as a table",
    "shortcuts.png": "the same as a picture",
}
"""What `circuits classify shortcuts` writes, and what for."""


@app.command("classify shortcuts")
@with_setting("classify-shortcuts", memory=True)
def classify_shortcuts(
    context: Context,
    classifier: ClassifierFile = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    judged: Annotated[int, typer.Option(min=5, help="Texts of the first test that are looked at, drawn, at most.")] = 500,
    head: Annotated[float, typer.Option(help="The share of words that are the head of the list.")] = 0.05,
    words: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Swap these for the accuracies: friday,monday.", show_default="what is found"),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="gradient|integrated|direct|attention|rollout", help="How the top word of a text is found.")
    ] = "gradient",
    early: Annotated[
        bool, typer.Option("--early", help="Train all weights, and see how early the words are leaned on.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is trained on, with --early.")] = 3,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Find the words that a classifier leans on.

    Words are ranked by how much they tell of the label (local mutual information, Du 2021). Does the classifier go by the head
    of that list? Which of its words, when they are swapped for a word that stands in the same places in texts of another class,
    change what it says? With rationales in the texts those outside of them are shortcuts. The accuracy is told with those words
    at random, and flipped.

    \b
    Examples:
      circuits classify shortcuts
      circuits classify shortcuts --early
      circuits classify shortcuts --method integrated
      circuits classify shortcuts --data train.tsv --test dev.tsv -m gpt2
      circuits classify shortcuts --data train.tsv --words friday,monday
      circuits classify shortcuts --open FILE
    """
    from circuits.cli.reports.classify_shortcuts import shortcuts_report, write

    if open_file is not None:
        refuse_with_open(context)
        found = opened(circuits.uses.Shortcuts, open_file)
        setting, files = written_again(found, open_file, setting, write, FILES)
        setting.answer(shortcuts_report(found, files))
        return
    if early and classifier is not None:
        raise PromptError("--early watches a training: leave out --classifier")
    how = circuits.uses.Attributing(method=method)
    texts = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    name, first = next(iter(texts.splits.items()))
    first = drawn(first, judged, seed)
    own = ("as they are", "random", "flipped")
    splits = {f"{one} (given)" if one in own else one: split for one, split in texts.splits.items() if one != name}
    recipe = circuits.uses.Recipe(epochs=epochs, seed=seed)
    with setting.parts(FILES, options="--count, --judged, --memory") as work:
        about = {"seed": seed, "progress": work.progress}
        watched = None
        if early:
            steps = recipe.steps(len(texts.train))
            watched = circuits.uses.Watching.over(steps, texts.train, first, head=head, how=how, seed=seed)
            model = setting.load(work.progress)
            one = circuits.uses.train_all(model, texts.train, recipe=recipe, seen=watched.seen, progress=work.progress)
        else:
            one = classifier_of(setting, classifier, texts, **about)
        about |= {"splits": splits, "head": head, "words": words_of(words), "budget": setting.budget}
        found = circuits.uses.find_shortcuts(one, texts.train, first, how=how, watched=watched, **about)
        found.save(work.staging / "shortcuts.json")
        work.publish()
        write(found, work.staging)
    setting.answer(shortcuts_report(found, work.written, [setting.opening("shortcuts.json")]))
