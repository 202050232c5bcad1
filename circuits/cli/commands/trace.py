"""`circuits trace`: causal tracing of one prompt or of many facts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    AnySeed,
    Open,
    PromptOption,
    SkipBad,
    prompt_of,
    repeated,
)
from circuits.cli.prompts import facts_of
from circuits.cli.questions.trace import Corruption, TraceQuestion, parse_kinds
from circuits.cli.saved import opened, shown_again
from circuits.cli.settings import Setting, with_setting
from circuits.cli.starting import announce, tokens_of
from circuits.errors import FileFormatError, PromptError

_WHAT = ("prompt", "prompt_option", "subject", "replacement", "facts", "limit", "skip_bad")
"""Parameters that say what is traced; the others say how."""


@app.command()
@with_setting("trace", memory=True)
def trace(
    context: Context,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="A prompt; the answer is what the model makes of it.", show_default="a fact of mini"
        ),
    ] = None,
    prompt_option: PromptOption = None,
    subject: Annotated[str | None, typer.Option(help="The part of the prompt to corrupt.")] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Trace the facts of a file: ROME's known_1000.json, CounterFact, LRE, or word pairs.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many facts.", show_default="all")] = None,
    skip_bad: SkipBad = False,
    kinds: Annotated[
        str,
        typer.Option(
            help="What to put back: states (after a layer), mlp, attention (windows of layers), "
            "states_severed_mlp, states_severed_attention."
        ),
    ] = "states,mlp,attention",
    severed: Annotated[bool, typer.Option("--severed", help="Add both severed kinds.")] = False,
    window: Annotated[
        int | None, typer.Option(min=1, help="Layers of a window.", show_default="10, or half of fewer than 20 layers")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise.", show_default="3 sd of the subjects' embeddings")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of noise.")] = 10,
    replacement: Annotated[
        str | None, typer.Option(help="Instead of noise: another subject, of as many tokens.", show_default=False)
    ] = None,
    seed: AnySeed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Find where a model keeps a fact, by causal tracing.

    The subject is corrupted with noise, so that the answer is lost; then, token by token and layer by layer, the clean
    run's value is put back. Where the answer's probability returns, what the model knows passes. With --facts, averages
    over facts by the role of the token, as in ROME (Meng et al. 2022).

    \b
    Examples:
      circuits trace
      circuits trace "The Space Needle is in" --subject "The Space Needle" -m gpt2
      circuits trace --model gpt2-xl --facts known_1000.json --limit 100
      circuits trace --severed --window 1 --noise 0.3
      circuits trace --open out/trace-mini/trace.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    question = TraceQuestion(prompt_of(prompt, prompt_option), subject, facts, limit, skip_bad)
    corruption = Corruption(noise, replacement, draws, parse_kinds(kinds, severed), window, seed, setting.budget)
    what, how = repeated(context, only=_WHAT), repeated(context, "severed", *_WHAT)
    run(question, corruption, setting, what, how)


def run(question: TraceQuestion, corruption: Corruption, setting: Setting, what: Sequence[str], how: Sequence[str]) -> None:
    """Trace, write the files, print the report; `what` and `how`: the words of it."""
    from circuits.cli.reports.trace import MANY, ONE, TraceParts, trace_report, write

    facts = None if question.facts is None else facts_of(question.facts, setting, skip_bad=question.skip_bad)
    expected = [name for name in (ONE if facts is None else MANY) if "*" not in name]
    with setting.parts({**ONE, **MANY}, expected=expected, options="--memory") as work:
        model = setting.load(work.progress)
        parts = TraceParts(work)
        options = {**corruption.options(model), "progress": work.progress, "found": parts.add}
        if facts is not None:
            asked = [fact.prompt for fact in facts[: question.limit]]
            announce(work.progress, model, "facts", len(asked), tokens_of(model, asked), budget=setting.budget)
            found = circuits.trace_facts(model, facts, limit=question.limit, **options)
            if not found.traces:
                raise PromptError(
                    f"none of {len(facts)} facts can be traced with {model.name}; the last one: {found.skipped[-1][1]}"
                )
        elif question.prompt is not None and question.subject is not None:
            found = circuits.causal_trace(model, question.prompt, subject=question.subject, **options)
        else:
            found = _built_in(model, options)
        parts.save(found)
        files = write(found, work.staging, work.progress)
    setting.answer(trace_report(found, files, setting, what, how))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved result again, and write its table and pictures beside it, or into the folder asked for."""
    from circuits.cli.reports.trace import MANY, ONE, trace_report, write
    from circuits.files.reading import read_json
    from circuits.patching import Trace, Traces

    data = read_json(file, max_bytes=2**31)
    many = isinstance(data, dict) and data.get("format") == Traces.FORMAT
    found = opened(Traces if many else Trace, file)
    if isinstance(found, Traces) and not found.traces:
        raise FileFormatError(f"{file}: no fact was traced")
    model = found.traces[0].model if isinstance(found, Traces) else found.model
    setting = setting.beside(file).of_saved(model)
    replacing, names = shown_again(MANY if many else ONE, file, setting)
    with setting.work(replacing=replacing, names=names) as (staging, progress):
        files = write(found, staging, progress)
    there = {name: what for name, what in files.items() if (setting.folder / name).is_file()}
    one = found.traces[0] if isinstance(found, Traces) else found
    subject = "".join(one.tokens[one.subject[0] : one.subject[1] + 1]).strip()
    what = [] if isinstance(found, Traces) else [one.prompt, "--subject", subject]
    how = {"--draws": (len(one.corrupted), 10), "--seed": (one.seed, 0)} if one.noise else {}
    words = [word for name, (value, usual) in how.items() if value != usual for word in (name, str(value))]
    setting.answer(trace_report(found, there, setting, what, words))


def _built_in(model: "circuits.Model", options: Mapping[str, Any]) -> "circuits.patching.Trace":
    """The first capital of the bundled model's facts that a model knows, traced."""
    from circuits import tasks
    from circuits.patching.tracing.facts import known_facts

    facts = tasks.mini_facts(relation="country_capital")
    known, skipped = known_facts(model, facts, None, 1, options["progress"])
    if not known:
        raise PromptError(f"no prompt that comes with the package can be traced: {skipped[-1][1]}; give a PROMPT")
    return circuits.causal_trace(model, known[0][0].prompt, subject=known[0][0].subject, **options)
