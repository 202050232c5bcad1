"""`circuits classify report`: all that is to be known of a classifier, as one page."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.options import ClassifierFile, LabelledCount, LabelledData, LabelledTests, LabelNames, Seed
from circuits.cli.questions.classify import Labelled, classifier_of, drawn, labelled_of, shown_texts
from circuits.cli.report import Report
from circuits.cli.settings import Setting, with_setting
from circuits.cli.text import filled

PAGE = "report.html"
FILES = {
    "scores.json": "how often it is right",
    "shortcuts.json": "the words that it leans on",
    "words.json": "which words count in some texts",
    PAGE: "all of it as one page, which needs no network",
}
"""What `circuits classify report` writes, and what for."""
_JUDGED = 500
"""Texts in which shortcuts are looked for, at most."""


@app.command("classify report")
@with_setting("classify-report", memory=True, long=False)
def classify_report(
    classifier: ClassifierFile = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    shown: Annotated[int, typer.Option("--texts", min=1, help="So many texts are shown with their words coloured.")] = 12,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Show a classifier as one page.

    How often it is right beside the majority and a bag of words, the words that it leans on because they go along with the
    label, and texts with the words that count in them. Each is written as soon as it is known.

    \b
    Examples:
      circuits classify report
      circuits classify report --data train.tsv --test dev.tsv -m gpt2
    """
    texts = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    run(texts, classifier, setting, shown=shown, seed=seed)


def run(texts: Labelled, classifier: Path | None, setting: Setting, *, shown: int, seed: int) -> None:
    """Judge, look for shortcuts, attribute, write the page, print the report."""
    with setting.parts(FILES, below="report", options="--texts, --count, --memory") as work:
        found = classifier_of(setting, classifier, texts, seed=seed, progress=work.progress)
        about: dict[str, Any] = {"budget": setting.budget, "progress": work.progress}
        results: dict[str, Any] = {}

        def note(name: str, result: Any) -> None:
            """What is known appears."""
            results[name] = result
            result.save(work.staging / name)
            work.publish()

        note("scores.json", circuits.uses.score_classifier(found, texts.train, texts.splits, **about))
        first, *others = texts.splits
        judged = drawn(texts.splits[first], _JUDGED, seed)
        splits = {name: texts.splits[name] for name in others}
        note("shortcuts.json", circuits.uses.find_shortcuts(found, texts.train, judged, splits=splits, seed=seed, **about))
        some, labels = shown_texts(texts, found, shown, seed=seed)
        note("words.json", circuits.uses.attribute_words(found, some, labels=labels, seed=seed, **about))
        saved = circuits.report.Saved(setting.folder, results)
        circuits.report.run_page(saved, commands=[("this page", setting.line)]).save(work.staging / PAGE)
    step = (f"file://{(setting.folder / PAGE).resolve()}", "open it in a browser")
    said = [result.summary for result in results.values()]
    data = {"classifier": found.summary, "summaries": said}
    setting.answer(Report(heading=found.summary, parts=[*map(filled, said)], data=data, files=work.written, next=[step]))
