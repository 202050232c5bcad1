"""`circuits behaviour`: minimal pairs and facts, scored beside baselines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.loading import naming_options
from circuits.cli.options import Open, SkipBad
from circuits.cli.output import claimed
from circuits.cli.prompts import facts_of
from circuits.cli.saved import opened
from circuits.cli.settings import Setting, with_setting
from circuits.cli.starting import announce, tokens_of
from circuits.cli.text import one_line
from circuits.errors import CircuitsError, FileFormatError

_SUFFIXES = (".csv", ".json", ".png", ".svg", ".pdf")


@app.command()
@with_setting(
    "behaviour",
    memory=True,
    out=typer.Option(help="Also write: .json (every item), .csv (the table), .png, .svg or .pdf.", show_default=False),
)
def behaviour(
    context: Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES", help="More files; by themselves: .jsonl are minimal pairs, .json facts.", show_default=False
        ),
    ] = None,
    minimal_pairs: Annotated[
        list[Path] | None,
        typer.Option("--minimal-pairs", metavar="FILE", help="BLiMP JSONL: sentence_good, sentence_bad.", show_default=False),
    ] = None,
    facts: Annotated[
        list[Path] | None,
        typer.Option(
            "--facts",
            metavar="FILE",
            help="ROME's known_1000.json, CounterFact, LRE, or word pairs.",
            show_default="those of mini",
        ),
    ] = None,
    skip_bad: SkipBad = False,
    text: Annotated[
        Path | None,
        typer.Option(help="A text to count neighbours in for the bigram baseline.", show_default="the model, shown one token"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many of each file.", show_default="all")] = None,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Test what a model does on minimal pairs or facts.

    Nothing is trained. Minimal pairs: how often the good sentence is more likely than the bad one. Facts: how often the
    first token of the attribute is what the model says next. Beside the model stand baselines that know less: bigram (the
    previous token alone), unigram and length for sentences, majority (the relation's most frequent attribute) for facts.

    \b
    Examples:
      circuits behaviour
      circuits behaviour --minimal-pairs anaphors.jsonl npi.jsonl
      circuits behaviour --model gpt2 --facts known_1000.json --out facts.csv
      circuits behaviour --minimal-pairs blimp/*.jsonl --text book.txt --json
      circuits behaviour --open scores.json --out scores.png
    """
    out = setting.out
    if out is not None and out.suffix.lower() not in _SUFFIXES:
        raise FileFormatError(f"{out}: unknown kind of file; expected a name that ends in {', '.join(_SUFFIXES)}")
    if open_file is not None:
        refuse_with_open(context)
        with claimed(out, setting.line) as file:
            _answer(opened(circuits.tasks.BehaviourScores, open_file), setting, file)
        return
    run(*sort_files(files or [], minimal_pairs or [], facts or []), setting, text=text, limit=limit, skip_bad=skip_bad)


def sort_files(files: Sequence[Path], pairs: Sequence[Path], facts: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Files of minimal pairs, and of facts: those without an option go with the option that is there, else by their
    suffix. Raises CircuitsError where both are asked for."""
    if not pairs and not facts:
        by_suffix = [file.suffix.lower() == ".jsonl" for file in files]
        pairs = [file for file, there in zip(files, by_suffix, strict=True) if there]
        facts = [file for file, there in zip(files, by_suffix, strict=True) if not there]
    elif not facts:
        pairs = [*pairs, *files]
    else:
        facts = [*facts, *files]
    if pairs and facts:
        raise CircuitsError(
            f"minimal pairs ({pairs[0]}) and facts ({facts[0]}) have different scores: ask for one kind at a time"
        )
    return list(pairs), list(facts)


def run(
    pairs: Sequence[Path], facts: Sequence[Path], setting: Setting, *, text: Path | None, limit: int | None, skip_bad: bool
) -> None:
    """Score, write where asked, print the table."""
    from circuits import tasks
    from circuits.cli.progress import ProgressBars
    from circuits.tasks.sources.corpus import read_text

    items: list[Any] = [item for file in pairs for item in tasks.read_blimp_jsonl(file)[:limit]]
    items += [fact for file in facts for fact in facts_of(file, setting, skip_bad=skip_bad)[:limit]]
    items = items or list(tasks.mini_facts()[:limit])
    words = None if text is None else read_text(text)
    score = tasks.score_minimal_pairs if pairs else tasks.score_facts
    with claimed(setting.out, setting.line) as file:
        with ProgressBars() as progress, naming_options("--limit, --memory"):
            model = setting.load(progress)
            texts = [text for item in items for text in ([item.good, item.bad] if pairs else [item.prompt])]
            what = "minimal pairs" if pairs else "facts"
            announce(progress, model, what, len(items), tokens_of(model, texts), budget=setting.budget)
            scores = score(model, items, text=words, budget=setting.budget, progress=progress)
        _answer(scores, setting, file)


def _answer(scores: "circuits.tasks.BehaviourScores", setting: Setting, file: Path | None) -> None:
    from circuits.cli.reports.behaviour import behaviour_report, write

    if file is not None:
        write(scores, file)
    setting.answer(behaviour_report(scores, setting.out))
    if setting.out is not None and not setting.as_json:
        typer.echo(f"wrote {one_line(setting.out)}", err=True)
