"""`circuits probe prompts`: what a model knows, asked by typed prompts and by trained ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, SkipBad
from circuits.cli.prompts import facts_of, names_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import CircuitsError, PromptError

if TYPE_CHECKING:
    from circuits.tasks import Fact

FILES = {
    "prompts.json": "every fact, and who gets it right; circuits probe prompts --open shows it again",
    "prompts.csv": "relations as a table",
    "prompts.png": "the same as a picture",
}
"""What `circuits probe prompts` writes, and what for."""
USUAL = ("person_occupation", "person_plays_instrument", "star_in_constellation", "product_by_company")
"""Relations that are asked for where neither a file nor a relation is named: few, as each is trained on anew."""


@app.command("probe prompts")
@with_setting("probe", long=True)
def probe_prompts(
    context: Context,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Facts: ROME's known_1000.json, CounterFact, LRE, or word pairs.",
            show_default="four relations of those of mini",
        ),
    ] = None,
    skip_bad: SkipBad = False,
    relations: Annotated[
        str | None, typer.Option(metavar="NAMES", help="These relations alone, between commas.", show_default="all")
    ] = None,
    count: Annotated[int, typer.Option(min=8, help="Facts of a relation at most, drawn.")] = 32,
    vectors: Annotated[int, typer.Option(min=1, max=100, help="Prompt vectors behind a subject.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="How often each fact is trained on at most.")] = 40,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many times facts are split and vectors drawn.")] = 2,
    random_models: Annotated[
        bool, typer.Option("--random/--no-random", help="Also ask random weights and random embeddings.")
    ] = True,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Ask for facts by trained prompts.

    A model may know what a typed prompt does not draw out. Here a few vectors between the subject and the place of the answer
    are trained through the frozen model on half of a relation's facts, and judged on others (OptiPrompt, Zhong et al. 2021).
    What such vectors learn by themselves is no knowledge of the model's: beside them stand the most frequent answer, and the
    same trained on random weights and on random embeddings. Answers are restricted to the relation's objects.

    \b
    Examples:
      circuits probe prompts
      circuits probe prompts --data known_1000.json -m gpt2
      circuits probe prompts --relations person_occupation,country_capital
      circuits probe prompts --vectors 10 --count 100 --seeds 5
      circuits probe prompts --open out/probe-mini/prompts.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if skip_bad and data is None:
        raise CircuitsError("--skip-bad is about rows of a file: it needs --data")
    facts = circuits.tasks.mini_facts() if data is None else facts_of(data, setting, skip_bad=skip_bad)
    facts = chosen(facts, ",".join(USUAL) if data is None and relations is None else relations)
    how: dict[str, Any] = {"count": count, "vectors": vectors, "epochs": epochs, "seeds": seeds}
    run(facts, setting, {**how, "random_models": random_models})


def chosen(facts: "Sequence[Fact]", relations: str | None) -> "list[Fact]":
    """The facts of these relations, or all. Raises PromptError for a relation that there is none of."""
    if relations is None:
        return list(facts)
    there, names = dict.fromkeys(fact.relation for fact in facts), names_of(relations)
    wrong = next((name for name in names if name not in there), None)
    if wrong is not None:
        raise PromptError(f"--relations {relations}: there is no {wrong!r} among {', '.join(there)}")
    return [fact for fact in facts if fact.relation in names]


def run(facts: "Sequence[Fact]", setting: Setting, options: dict[str, Any]) -> None:
    """Ask, write the files, print the report."""
    from circuits.cli.reports.probe_prompts import prompts_report, write

    with setting.parts(FILES, below="prompts") as work:
        model = setting.load(work.progress)
        how: dict[str, Any] = {**options, "progress": work.progress, "found": lambda part: _note(part, work)}
        found = circuits.probes.probe_prompts(model, facts, **how)
        found.save(work.staging / "prompts.json")
        work.publish()
        write(found, work.staging)
    setting.answer(prompts_report(found, work.written, [setting.opening("prompts.json", "prompts")]))


def _note(found: "circuits.probes.PromptProbes", work: Work) -> None:
    """What is found so far appears."""
    found.save(work.staging / "prompts.json")
    work.publish(lacking="random weights and random embeddings")


def reopen(file: Path, setting: Setting) -> None:
    """Print saved answers again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.probe_prompts import prompts_report, write

    found = opened(circuits.probes.PromptProbes, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(prompts_report(found, files))
