"""`circuits concept`: whether what a model says hangs on a concept that texts are examples of."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import MetricName, Open, Seed
from circuits.cli.prompts import Behaviour, check_metric, has_gradient, task_or_file
from circuits.cli.questions.concept import ConceptQuestion
from circuits.cli.questions.probe import places_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError

FILES = {
    "concept.json": "every place's numbers; circuits concept --open shows them again",
    "concept.csv": "the same as a table",
    "concept.png": "the same as a picture",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits concept` writes, and what for."""


@app.command()
@with_setting("concept", memory=True)
def concept(
    context: Context,
    positive: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Texts of the concept, one a line, read at their ends.", show_default="women's names"
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|random",
            help="Other texts, one a line, or what the model writes itself.",
            show_default="random; men's names beside women's",
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="TASK|FILE", help="The prompts whose answer may hang on it: a task, or a file of prompts.")
    ] = "gendered-pronoun",
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
      circuits concept --open out/concept-mini/concept.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    prompts = task_or_file(target, count=count, seed=seed, usual=count)
    if positive is None and target == "gendered-pronoun" and answer is None and distractor is None:
        answer, distractor = " she", " he"
    where: dict[str, Any] = {"positive": positive, "negative": negative, "places": places_of(layers, None)}
    where |= {"answer": answer, "distractor": distractor}
    question = ConceptQuestion(**where, sets=sets, at=at, curves=curves, seed=seed)
    question.check()
    check_metric(metric)
    if not has_gradient(metric):
        raise CircuitsError(f"--metric {metric} has no gradient by the logits: take another one")
    run(question, Behaviour(prompts=prompts, metric=metric), setting)


def run(question: ConceptQuestion, asked: Behaviour, setting: Setting) -> None:
    """Test, write the files, print the report."""
    from circuits.cli.reports.concept import concept_report, write

    texts, others = question.read()
    with setting.parts(FILES, options="--sets, --count, --memory") as work:
        model, pairs, metric, _ = asked.look(work, show=False)
        found = question.test(model, pairs, metric, texts, others, asked.prompts.name, setting.budget, work.progress)
        found.save(work.staging / "concept.json")
        work.publish()
        write(found, work.staging)
    setting.answer(concept_report(found, work.written, [setting.opening("concept.json")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved test again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.concept import concept_report, write

    found = opened(circuits.concepts.ConceptTest, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(concept_report(found, files))
