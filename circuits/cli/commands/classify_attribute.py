"""`circuits classify attribute`: which words a classifier goes by."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import ClassifierFile, LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed
from circuits.cli.questions.classify import Labelled, classifier_of, labelled_of, shown_texts
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "words.json": "every word's number; circuits classify attribute --open shows it again",
    "words.csv": "the same as a table",
    "words.png": "the texts with their words coloured",
}
"""What `circuits classify attribute` writes, and what for."""


@app.command("classify attribute")
@with_setting("classify", memory=True, long=False)
def classify_attribute(
    context: Context,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXTS", help="Texts to explain.", show_default="those held out")
    ] = None,
    classifier: ClassifierFile = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    shown: Annotated[int, typer.Option("--texts", min=1, help="So many of the texts held out.")] = 24,
    method: Annotated[
        str, typer.Option(metavar="integrated|gradient|direct|attention|rollout", help="How words are given numbers.")
    ] = "integrated",
    baseline: Annotated[
        str | None,
        typer.Option(metavar="blank|mean|zero|pad", help="What stands for no text.", show_default="blank; of gradient mean"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Gradients on the way from it, at first.")] = 24,
    most: Annotated[int, typer.Option(min=1, help="Where the sum misses by 1 %: so many at most.")] = 256,
    explain: Annotated[str, typer.Option(metavar="prediction|label", help="The class that is explained.")] = "prediction",
    draws: Annotated[int, typer.Option(min=0, help="Random choices of words taken out beside; 0: no test.")] = 2,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Show which words a classifier goes by.

    integrated: gradients on the way from a baseline, which sum to what the text adds to the class's margin; gradient: the slope
    at the text; direct: what the last token's heads read from each token, exactly; attention: the last token's weights, the
    mean over layers and heads; rollout: followed down to the embeddings. Then the words that count most are taken out, and as
    many random ones: does the class fall with them?

    \b
    Examples:
      circuits classify attribute
      circuits classify attribute --method direct
      circuits classify attribute "We saw it on Monday . The plot was weak ."
      circuits classify attribute --data train.tsv --test dev.tsv --texts 100
      circuits classify attribute --open out/classify-mini/words.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    how = circuits.uses.Attributing(method=method, baseline=baseline, steps=steps, most=max(steps, most))  # type: ignore[arg-type]
    if explain not in ("prediction", "label") or (explain == "label" and texts):
        raise PromptError(f"--explain {explain}: expected prediction, or label for texts of files")
    labelled = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    run(setting, labelled, classifier, tuple(texts or ()), how, shown=shown, explain=explain, draws=draws, seed=seed)


def run(
    setting: Setting,
    labelled: Labelled,
    classifier: Path | None,
    texts: tuple[str, ...],
    how: "circuits.uses.Attributing",
    *,
    shown: int,
    explain: str,
    draws: int,
    seed: int,
) -> None:
    """Attribute, write the files, print the report."""
    from circuits.cli.reports.classify_attribute import attributions_report, write

    with setting.parts(FILES, below="attribute", options="--texts, --memory") as work:
        found = classifier_of(setting, classifier, labelled, seed=seed, progress=work.progress)
        said, labels = (texts, ()) if texts else shown_texts(labelled, found, shown, seed=seed)
        options = {"budget": setting.budget, "progress": work.progress, "seed": seed, "test": draws > 0, "draws": max(1, draws)}
        words = circuits.uses.attribute_words(found, said, labels=labels, how=how, explain=explain, **options)
        words.save(work.staging / "words.json")
        work.publish()
        write(words, work.staging)
    setting.answer(attributions_report(words, work.written, [setting.opening("words.json", "attribute")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved attributions again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.classify_attribute import attributions_report, write

    found = opened(circuits.uses.WordAttributions, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(attributions_report(found, files))
