"""`circuits features dictionary`: the features of a dictionary, read like neurons."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import AnySeed, DictionaryAt, Open
from circuits.cli.questions.neuron import NeuronQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError
from circuits.report.kinds import format_of

FILES = {
    "dictionary.json": "every feature's numbers; circuits features dictionary --open shows them again",
    "dictionary.csv": "the same as a table",
    "dictionary.png": "how often features are active, and what the loss says",
    "feature.json": "one feature; circuits features dictionary --open shows it again",
    "feature.csv": "where it is active most, with the text around",
    "feature.png": "triggers in their contexts, and the tokens that it raises and lowers",
}
"""What `circuits features dictionary` writes, and what for: of the whole, or of one feature."""


@app.command("features dictionary")
@with_setting("features", memory=True, long=False)
def features_dictionary(
    context: Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="What features train wrote, or a folder of sparsify or SAELens.", show_default=False
        ),
    ] = None,
    feature: Annotated[int | None, typer.Option(min=0, help="One feature, by its number.", show_default="all")] = None,
    at: DictionaryAt = None,
    text: Annotated[
        Path | None, typer.Option(help="A text to read them in.", show_default="what the model writes, and facts of mini")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=2, help="Stop after so many.", show_default="200000")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Features, or triggers, to print.")] = 10,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
) -> None:
    """Read a dictionary's features like neurons.

    A dictionary takes what stands at a place of the model, such as what an MLP writes, apart into features, few of which are
    active at a time. How much of it do they explain, what triggers each, which tokens does it raise, and what does the model
    lose without it?

    \b
    Examples:
      circuits features dictionary out/train/dictionary.safetensors
      circuits features dictionary dictionary.safetensors --feature 12
      circuits features dictionary layers.2.mlp -m mini --text book.txt
      circuits features dictionary --open out/features-mini/feature.json
    """
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    if file is None:
        raise PromptError("name a dictionary's file: circuits features train writes one")
    asked = NeuronQuestion(name=None, text=text, limit=limit, top=top, through=None, clamp=None, prompt=None, seed=seed)
    run(file, asked, setting, feature=feature, at=at)


def run(file: Path, asked: NeuronQuestion, setting: Setting, *, feature: int | None, at: str | None) -> None:
    """Read the features, write the files, print the report."""
    from circuits.cli.reports.features import dictionary_report, feature_report, write
    from circuits.tasks.sources.corpus import read_text

    dictionary = circuits.concepts.read_dictionary(file)
    words = None if asked.text is None else read_text(asked.text)
    name = "dictionary" if feature is None else "feature"
    files = {one: what for one, what in FILES.items() if one.startswith(name)}
    with setting.parts(files, below="dictionary", options="--limit, --memory") as work:
        model = setting.load(work.progress)
        dictionary.fitting(model, at)
        corpus = asked.corpus(model, words, work.progress)
        about: dict[str, Any] = {"at": at, "budget": setting.budget, "progress": work.progress}
        found: Any
        if feature is None:
            found = circuits.concepts.read_features(model, dictionary, corpus, **about)
        else:
            found = circuits.concepts.read_feature(model, dictionary, feature, corpus, top=asked.top, **about)
        found.save(work.staging / f"{name}.json")
        work.publish()
        write(found, work.staging)
    steps = [setting.opening(f"{name}.json", "dictionary")]
    report = dictionary_report if feature is None else feature_report
    setting.answer(report(found, asked.top, work.written, steps))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print a saved report again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.features import dictionary_report, feature_report, write

    single = format_of(file) == circuits.concepts.FeatureReport.FORMAT
    found: Any = opened(circuits.concepts.FeatureReport if single else circuits.concepts.DictionaryReport, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer((feature_report if single else dictionary_report)(found, top, files))
