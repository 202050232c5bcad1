"""`circuits edit`: change a fact in a model's weights, and see what else that changes."""

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, PromptOption, Seed, SkipBad, prompt_of, repeated, there
from circuits.cli.prompts import facts_of
from circuits.cli.questions.edit import EditQuestion, one_rewrite, reference_of, require_folder
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.cli.text import one_line
from circuits.errors import FileFormatError, PromptError

FILES = {
    "edit.json": "every prompt, before and after; circuits edit --open shows it again",
    "edit.csv": "the scores as a table",
    "edit.png": "the scores, drawn",
    "edit.safetensors": "what is added to the weights: --edits puts it on, in every command",
}
"""What `circuits edit` writes, and what for."""
_LINES, _COUNT = 20, 20
"""Facts of which a line is printed as they come; facts that are edited where nobody says how many."""


@app.command()
@with_setting("edit", memory=True)
def edit(
    context: Context,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="A prompt that the answer follows.", show_default="facts that the model knows"),
    ] = None,
    prompt_option: PromptOption = None,
    subject: Annotated[str | None, typer.Option(help="The part of the prompt that the fact is about.")] = None,
    to: Annotated[str | None, typer.Option(help="The new answer, one token, with its space.", show_default=False)] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layer",
            "--layers",
            metavar="N|N,N|all",
            help="The layer that is edited; several are compared.",
            show_default="a sixth up",
        ),
    ] = None,
    paraphrase: Annotated[
        list[str] | None, typer.Option(help="The same in other words; several times.", show_default="those of its relation")
    ] = None,
    neighbour: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPT=ANSWER", help="What is to stay; several times.", show_default="those of its relation"),
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Edit facts that the model knows, one at a time: a file of ROME, CounterFact or LRE.",
            show_default="those of mini",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many facts, drawn.", show_default=f"{_COUNT}")] = None,
    skip_bad: SkipBad = False,
    together: Annotated[
        bool, typer.Option("--together", help="Also edit them all at once, and measure how they interfere.")
    ] = False,
    keep: Annotated[
        float, typer.Option(metavar="TOKENS", help="--together: tokens of text that weigh as much as a fact.")
    ] = 0.0,
    write: Annotated[int, typer.Option(metavar="TOKENS", min=0, help="Tokens that it writes about a subject; 0: none.")] = 50,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text that what it writes is held against, by paragraphs.", show_default=False, callback=there
        ),
    ] = None,
    prefixes: Annotated[int, typer.Option(min=0, max=1000, help="Sampled prefixes that keys are means over.")] = 10,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text whose keys are left alone.", show_default="what the model writes itself", callback=there
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Tokens of the text that are read.")] = 8192,
    statistics: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where what is known of a text's keys is kept for the next edit.")
    ] = Path("out/key-statistics"),
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Change a fact in a model's weights, and see what else changes.

    ROME (Meng et al. 2022): the output weights of one MLP are changed by a rank-one matrix, so that the subject's last token
    writes what makes another answer follow. The change is a small file, bound to the model; --edits puts it on in every
    command, and the weights themselves stay as they are. Scores are those of the paper, before and after. Without a prompt
    facts that the model knows are edited, each by itself; with --layer all in every layer, beside causal tracing.

    \b
    Examples:
      circuits edit "The capital of France is" --subject France --to " Rome"
      circuits edit "Big Ben is in" --subject "Big Ben" --to " Rome" -m gpt2
      circuits edit --facts known_1000.json --count 100 -m gpt2
      circuits edit --layers all
      circuits edit --together --count 10
      circuits edit --open out/edit-mini/edit.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    question = EditQuestion(
        prompt=prompt_of(prompt, prompt_option),
        subject=subject,
        to=to,
        paraphrases=tuple(paraphrase or ()),
        neighbours=tuple(neighbour or ()),
        facts=facts,
        count=count,
        together=together,
        layers=layers,
        keep=keep,
        skip_bad=skip_bad,
        seed=seed,
    )
    for option, value in (("write", write), ("reference", reference)):
        source = context.get_parameter_source(option)
        if together and value and source is not None and source.name == "COMMANDLINE":
            raise PromptError(f"--{option} is about facts that are edited one at a time: leave out --together, or it")
    require_folder(statistics)
    how: dict[str, Any] = {"prefixes": prefixes, "tokens": limit, "folder": statistics, "seed": seed}
    run(question, setting, how, text=text, write=write, reference=reference_of(reference), again=repeated(context, "layers"))


def run(
    question: EditQuestion,
    setting: Setting,
    how: dict[str, Any],
    *,
    text: Path | None,
    write: int,
    reference: tuple[str, ...],
    again: Sequence[str],
) -> None:
    """Edit, score, write the files, print the report; `again`: the words of it, without the layers."""
    from circuits.cli.reports import edit as reports
    from circuits.tasks.sources.corpus import read_text, text_rows
    from circuits.uses import editing

    words = None if text is None else read_text(text)
    given = (
        circuits.tasks.mini_facts() if question.facts is None else facts_of(question.facts, setting, skip_bad=question.skip_bad)
    )
    delta = question.together or question.prompt is not None
    expected = [name for name in FILES if delta or not name.endswith(".safetensors")]
    options = "--count, --memory" if question.together else "--memory"
    with setting.parts(FILES, expected=expected, options=options) as work:
        model = setting.load(work.progress)
        layers = question.chosen(model)
        how_much = editing.Editing(**how, budget=setting.budget)
        rows = None if words is None else editing.KeyText.of(text_rows(model, words, limit=how["tokens"]))
        shared: dict[str, Any] = {"text": rows, "editing": how_much, "progress": work.progress}
        if question.prompt is not None:
            rewrites, skipped = (one_rewrite(model, question),), ()
        else:
            rewrites, skipped = _known(model, given, question, work)
        writing = editing.WritingTest(write, reference, how["seed"])
        about: dict[str, Any] = {}
        several, change = layers is not None and len(layers) > 1, None
        if question.together:
            about = {"keep": question.keep, "layers": layers, "skipped": skipped}
            found, change = editing.score_together(model, rewrites, **about, **shared)
        elif question.prompt is not None and not several:
            layer = None if layers is None else layers[0]
            found, change = editing.edit_one(model, rewrites[0], layer=layer, writing=writing, **shared)
        else:
            about = {"layers": layers, "writing": writing, "trace": several, "skipped": skipped}
            found = editing.score_edits(model, rewrites, found=_lines(work), **about, **shared)
        if change is not None:
            change.save(work.staging / "edit.safetensors")
        found.save(work.staging / "edit.json")
        work.publish()
        reports.write(found, work.staging)
    setting.answer(reports.edit_report(found, work.written, _steps(question, setting, work.written, again)))


def _known(
    model: "circuits.Model", facts: "Sequence[circuits.tasks.Fact]", question: EditQuestion, work: Work
) -> "tuple[tuple[Any, ...], tuple[tuple[str, str], ...]]":
    """Facts that the model knows, drawn, with other answers; and those that were looked at and left out."""
    from circuits.patching.tracing.facts import known_facts
    from circuits.tasks.rewrites import relations_of, rewrites_of

    drawn = random.Random(question.seed).sample(list(facts), len(facts))
    known, left = known_facts(model, drawn, None, question.count or _COUNT, work.progress)
    found, odd = rewrites_of(model, [fact for fact, _ in known], relations=relations_of(facts), seed=question.seed)
    if not found and (left or odd):
        prompt, reason = [*left, *odd][0]
        raise PromptError(f"none of {len(left) + len(odd)} facts can be edited; first, {prompt!r}: {reason}")
    return found, (*left, *odd)


def _lines(work: Work) -> Any:
    """What says a line for each of the first facts."""
    from circuits.cli.reports.edit import line_of

    said = list[str]()

    def say(outcome: Any) -> None:
        """One fact."""
        if len(said) < _LINES and not work.setting.as_json:
            said.append(line_of(outcome))
            work.progress.say(one_line(said[-1]), err=True)

    return say


def _steps(question: EditQuestion, setting: Setting, files: Any, again: Sequence[str]) -> list[tuple[str, str]]:
    """What to try next."""
    steps = [setting.opening("edit.json")]
    if "edit.safetensors" in files:
        file = str(setting.folder / "edit.safetensors")
        asked = ["trace", question.prompt or "", "--subject", question.subject or ""] if question.prompt else ["trace"]
        on = dataclasses.replace(setting, edits=(*setting.edits, Path(file)))  # this one lies on those that were on before
        steps.append((on.command(*asked), "the edited model in any other command"))
    if question.many and not question.together:
        steps.append((setting.command("edit", *again, "--layers", "all"), "every layer, beside what causal tracing says of it"))
    elif question.prompt is not None:
        steps.append((setting.command("edit", "--layers", "all"), "facts that it knows in every layer, beside causal tracing"))
    return steps


def reopen(file: Path, setting: Setting) -> None:
    """Print saved scores again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.edit import edit_report, write
    from circuits.report.kinds import format_of
    from circuits.uses.editing import EditScores, EditsTogether

    if file.suffix == ".safetensors":
        raise FileFormatError(f"{file}: --open shows scores: {file.with_suffix('.json').name} beside it")
    kind = EditsTogether if file.is_file() and format_of(file) == EditsTogether.FORMAT else EditScores
    found = opened(kind, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(edit_report(found, files))
