"""`circuits concept`: whether what a model says hangs on a concept that texts are examples of."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.metrics import check_metric, has_gradient
from circuits.cli.options import MetricName, Open, Seed, there
from circuits.cli.prompts import Behaviour, task_or_file
from circuits.cli.questions.classify import classifier_of, drawn, labelled_of
from circuits.cli.questions.concept import ConceptQuestion, concept_places
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import CircuitsError, PromptError

FILES = {
    "concept.json": "every place's numbers; circuits concept --open shows them again",
    "concept.csv": "the same as a table",
    "concept.png": "the same as a picture",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits concept` writes, and what for."""


@app.command()
@with_setting("concept", memory=True, long=False)
def concept(
    context: Context,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Examples of the concept: FILE of texts, one a line, read at their ends; lexicon.json:NAME; "
            "FILE.conllu:upos=NOUN; or a neuron, m3.n457, for the tokens that it raises.",
            show_default="women's names",
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE|random",
            help="Other texts: those of another concept (a relative CAV), or what the model writes itself.",
            show_default="the source's others, or random; men's names beside women's",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="TASK|FILE|CLASS",
            help="The prompts whose answer may hang on it: a task, a file of prompts, a class of --classifier.",
        ),
    ] = "gendered-pronoun",
    classifier: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask a saved classifier for the class that --target names.",
            show_default=False,
            callback=there,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Texts that the classifier is asked about.", show_default="reviews that are made"),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Ask each prompt for this token, not for its own answer.", show_default=False)
    ] = None,
    distractor: Annotated[str | None, typer.Option(help="Against this token.", show_default=False)] = None,
    count: Annotated[int, typer.Option(min=2, help="Prompts.")] = 32,
    metric: MetricName = "logit_difference",
    layers: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="The residual streams before these layers: 0,5,10.", show_default="all"),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Other places: each-head, heads, neurons, or a3.h1, a3 (a layer's heads), m3 (its neurons).",
            show_default=False,
        ),
    ] = None,
    sets: Annotated[int, typer.Option(min=2, max=10_000, help="Random sets, and random concepts.")] = 30,
    at: Annotated[
        str, typer.Option(metavar="all|answer", help="Where directions are followed: at all tokens, or at the answer's.")
    ] = "all",
    curves: Annotated[int, typer.Option(min=0, help="At how many places the direction is moved and erased.")] = 1,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Test whether an answer hangs on a concept.

    Texts that are examples of a concept are told from other ones by what the residual stream holds at their ends; the
    direction that tells them is the concept's. Does the answer to other prompts grow along it, more than along the directions
    of random concepts (TCAV, Kim et al. 2018)? Then the direction is moved and erased while the model runs.

    \b
    Examples:
      circuits concept
      circuits concept --positive women.txt --negative men.txt \\
        --target gendered-pronoun --answer " she" --distractor " he"
      circuits concept --positive cities.txt --target facts:country_capital
      circuits concept --positive names.txt --target ioi -m gpt2 --layers 0,6,11
      circuits concept --positive dev.conllu:upos=PROPN --nodes each-head
      circuits concept --positive friday.txt --target negative \\
        --classifier classifier.safetensors
      circuits concept --open out/concept-mini/concept.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if positive is None and target == "gendered-pronoun" and answer is None and distractor is None:
        answer, distractor = " she", " he"
    where: dict[str, Any] = {"positive": positive, "negative": negative, "places": concept_places(layers, nodes)}
    where |= {"answer": answer, "distractor": distractor}
    question = ConceptQuestion(**where, sets=sets, at=at, curves=curves, seed=seed)
    question.check()
    if classifier is not None:
        ask_classifier(question, classifier, data, target, count, setting)
        return
    if data is not None:
        raise PromptError("--data goes with --classifier: --target names a file of prompts")
    prompts = task_or_file(target, count=count, seed=seed, usual=count)
    check_metric(metric)
    if not has_gradient(metric):
        raise CircuitsError(f"--metric {metric} has no gradient by the logits: take another one")
    run(question, Behaviour(prompts=prompts, metric=metric), setting)


def run(question: ConceptQuestion, asked: Behaviour, setting: Setting) -> None:
    """Test, write the files, print the report."""
    texts = question.read()
    with setting.parts(FILES, options="--sets, --count, --memory") as work:
        model, pairs, metric, _ = asked.look(work, show=False)
        found = question.test(model, pairs, metric, texts, asked.prompts.name, setting.budget, work.progress)
        finish(found, work)
    answer_with(found, work, setting)


def ask_classifier(question: ConceptQuestion, file: Path, data: Path | None, target: str, count: int, setting: Setting) -> None:
    """The same about the class of texts."""
    texts, asked = question.read(), labelled_of(data, (), count=None, seed=question.seed)
    expected = [name for name in FILES if name != "prompts.json"]
    with setting.parts(FILES, expected=expected, options="--sets, --count, --memory") as work:
        classifier = classifier_of(setting, file, asked, seed=question.seed, progress=work.progress)
        some = drawn(next(iter(asked.splits.values())), count, question.seed).texts
        pairs = circuits.uses.class_pairs(classifier, some, target)
        of = f"{target} in {asked.name}"
        about = (classifier.model, pairs, circuits.metrics.logit_difference, texts, of)
        found = question.test(*about, setting.budget, work.progress)
        finish(found, work)
    answer_with(found, work, setting)


def finish(found: "circuits.concepts.ConceptTest", work: Work) -> None:
    """Write the files."""
    from circuits.cli.reports.concept import write

    found.save(work.staging / "concept.json")
    work.publish()
    write(found, work.staging)


def answer_with(found: "circuits.concepts.ConceptTest", work: Work, setting: Setting) -> None:
    """Print the report."""
    from circuits.cli.reports.concept import concept_report

    setting.answer(concept_report(found, work.written, [setting.opening("concept.json")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved test again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.concept import concept_report, write

    found = opened(circuits.concepts.ConceptTest, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(concept_report(found, files))
