"""`circuits classify feedback`: explanations are corrected, and the classifier is trained again with that."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import ClassifierFile, LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed, there
from circuits.cli.questions.classify import Labelled, labelled_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import FileFormatError

FILES = {
    "classifier.safetensors": "the classifier that the feedback is about, where it was trained now",
    "proposed.json": "feedback to be looked through and corrected; circuits classify feedback --feedback reads it",
    "after.safetensors": "the classifier that was trained with the feedback",
    "feedback.json": "what changed; circuits classify feedback --open shows it again",
    "feedback.csv": "the same as a table",
    "feedback.png": "the same as a picture",
}
"""What `circuits classify feedback` writes, and what for."""


@app.command("classify feedback")
@with_setting("classify-feedback", memory=True)
def classify_feedback(
    context: Context,
    feedback: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What was said of the classifier.", show_default="it is proposed", callback=there),
    ] = None,
    classifier: ClassifierFile = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    strength: Annotated[
        float | None, typer.Option(help="Of the penalty, beside the cross-entropy in nats.", show_default="1")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often each text is trained on.", show_default="as the classifier was, or 3")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="The largest step size.", show_default="as the classifier's was, or 0.0002")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Items that are proposed, at most.")] = 10,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Correct a classifier by what people say.

    Without --feedback a file is proposed: the words that the classifier goes by and that tell most of the label. Correct it:
    which words should not matter, everywhere or in one text, and which should? Given back, the classifier is trained again from
    its model on as it was trained, held to that (XMD, Lee et al. 2022), and what changed is told, beside a training that is
    held to nothing. Feedback belongs to one classifier, and that to the texts it was trained on: others are refused.

    \b
    Examples:
      circuits classify feedback
      circuits classify feedback --feedback FILE --classifier FILE
      circuits classify feedback --classifier FILE --data train.tsv
      circuits classify feedback --open FILE
    """
    from circuits.cli.reports.classify_feedback import feedback_report, write

    if open_file is not None:
        refuse_with_open(context)
        found = opened(circuits.uses.FeedbackEffects, open_file)
        setting, files = written_again(found, open_file, setting, write, FILES)
        setting.answer(feedback_report(found, files))
        return
    if feedback is not None and classifier is None:
        raise FileFormatError("--feedback needs --classifier: feedback belongs to one classifier")
    texts = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    asked: dict[str, Any] = {name: value for name, value in (("epochs", epochs), ("rate", rate)) if value is not None}
    if feedback is not None and classifier is not None:
        apply(texts, feedback, classifier, circuits.uses.Regularisation.usual(strength=strength), asked, setting)
        return
    several = [*(("--test", file) for file in test or ()), *(("--rename", names) for names in rename or ())]
    single = {"--data": data, "--count": count, "--seed": seed or None, "--strength": strength}
    options = [*several, *single.items(), *((f"--{name}", value) for name, value in asked.items())]
    propose(texts, classifier, circuits.uses.Recipe(**asked, seed=seed), items, options, setting)


def propose(
    texts: Labelled,
    classifier: Path | None,
    recipe: "circuits.uses.Recipe",
    items: int,
    options: Sequence[tuple[str, object]],
    setting: Setting,
) -> None:
    """Write what may be said of a classifier, one that is trained now where none is given; `options`: those of the command that
    applies it."""
    from circuits.cli.reports.classify_feedback import proposal_report

    coming = ["proposed.json", *(["classifier.safetensors"] if classifier is None else [])]
    with setting.parts(FILES, expected=coming, options="--count, --memory") as work:
        model = setting.load(work.progress)
        if classifier is None:
            one = circuits.uses.train_all(model, texts.train, recipe=recipe, progress=work.progress)
            one.save(work.staging / "classifier.safetensors")
        else:
            one = _checked(classifier, model, texts)
        said = circuits.uses.proposed(one, texts.train, most=items)
        said.save(work.staging / "proposed.json")
        work.publish()
    again = _again(setting, classifier, options), f"train again on {texts.name} with what you made of it"
    setting.answer(proposal_report(said, work.written, [again]))


def apply(
    texts: Labelled,
    feedback: Path,
    classifier: Path,
    how: "circuits.uses.Regularisation",
    asked: dict[str, Any],
    setting: Setting,
) -> None:
    """Train a classifier again, held to what was said, and tell what changed; `asked`: what is otherwise in its recipe."""
    from circuits.cli.reports.classify_feedback import feedback_report, write
    from circuits.uses.feedback.again import recipe_of

    coming = [name for name in FILES if name not in ("proposed.json", "classifier.safetensors")]
    with setting.parts(FILES, expected=coming, options="--count, --memory") as work:
        model = setting.load(work.progress)
        one = _checked(classifier, model, texts)
        given = circuits.uses.Feedback.load(feedback, one)
        own = dataclasses.replace(recipe_of(one) or circuits.uses.Recipe(), **asked) if asked else None
        about = {"how": how, "recipe": own, "budget": setting.budget, "progress": work.progress}
        found, after = circuits.uses.apply_feedback(model, one, texts.train, texts.splits, given, **about)
        after.save(work.staging / "after.safetensors")
        found.save(work.staging / "feedback.json")
        work.publish()
        write(found, work.staging)
    setting.answer(feedback_report(found, work.written, [setting.opening("feedback.json")]))


def _checked(file: Path, model: "circuits.Model", texts: Labelled) -> "circuits.uses.Classifier":
    """A saved classifier. Raises PromptError where it was trained on other texts."""
    from circuits.uses.feedback.again import check_texts

    found = circuits.uses.Classifier.load(file, model)
    check_texts(found, texts.train)
    return found


def _again(setting: Setting, classifier: Path | None, options: Sequence[tuple[str, object]]) -> str:
    """The command that applies what was proposed, to the same texts and with the same options."""
    file = setting.folder / "classifier.safetensors" if classifier is None else classifier
    words = ["classify", "feedback", "--feedback", str(setting.folder / "proposed.json"), "--classifier", str(file)]
    return setting.command(*words, *(word for name, value in options if value is not None for word in (name, str(value))))
