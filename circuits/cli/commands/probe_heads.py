"""`circuits probe heads`: which pattern the attention of each head has, and what is lost without the heads of each."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed, Text, TextLimit
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError

FILES = {
    "patterns.json": "every head's shares of patterns; circuits probe heads --open shows them again",
    "patterns.csv": "the same as a table",
    "patterns.png": "the heads by layer, coloured by pattern",
    "pruning.json": "what is lost without heads",
    "pruning.csv": "the same as a table",
    "pruning.png": "the same as bars",
}
"""What `circuits probe heads` writes, and what for."""
OF_PRUNING = ("pruning.json", "pruning.csv", "pruning.png")


@app.command("probe heads")
@with_setting("probe", memory=True)
def probe_heads(
    context: Context,
    text: Text = None,
    limit: TextLimit = 2048,
    width: Annotated[int, typer.Option(min=8, help="Tokens of a prompt.")] = 64,
    kinds: Annotated[str, typer.Option(metavar="zero,mean", help="What stands in for heads of a class.")] = "zero,mean",
    draws: Annotated[int, typer.Option(min=2, help="Sets of random heads that each class is held against.")] = 4,
    nats: Annotated[float, typer.Option(min=0, help="What the largest set of heads may cost, nats a token.")] = 0.1,
    free: Annotated[
        str, typer.Option(metavar="mean|zero|none", help="What stands in for heads of that set; none: look for none.")
    ] = "mean",
    rounds: Annotated[int, typer.Option(min=1, help="How often heads are ranked for that set.")] = 2,
    prune: Annotated[bool, typer.Option("--prune/--no-prune", help="Also take heads out.")] = True,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Tell where each head looks, and take heads out.

    A classifier trained on maps that are made tells each head's attention on each prompt: its own token, the token before, the
    first, delimiters, earlier copies of the token, what followed those (induction), the block since the last delimiter, or
    mixed. Then the heads of each pattern are taken out, beside as many random ones; and as many heads as may go for a small
    rise of the loss.

    \b
    Examples:
      circuits probe heads
      circuits probe heads --text book.txt -m gpt2
      circuits probe heads --no-prune
      circuits probe heads --nats 0.5 --free zero
      circuits probe heads --open out/probe-mini/patterns.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    names = [name.strip() for name in kinds.split(",")]
    if not set(names) <= {"zero", "mean"} or free not in ("zero", "mean", "none"):
        raise CircuitsError(f"--kinds {kinds}, --free {free}: expected zero or mean, and of --free also none")
    how = {"kinds": names, "draws": draws, "nats": nats, "free": None if free == "none" else free, "rounds": rounds}
    run(Corpus(text, limit, seed), width, setting, {**how, "seed": seed} if prune else None)


def run(corpus: Corpus, width: int, setting: Setting, pruning: dict[str, Any] | None) -> None:
    """Tell patterns, take heads out, write the files, print the report."""
    from circuits.cli.reports.probe_heads import heads_report, patterns_table, write
    from circuits.tasks.sources.corpus import text_rows, written_text

    text = corpus.read()
    expected = [name for name in FILES if pruning is not None or name not in OF_PRUNING]
    with setting.parts(FILES, expected=expected, below="heads", options="--limit, --memory") as work:
        model = setting.load(work.progress)
        if text is None:
            size = min(width, model.max_positions or width)
            count = max(4, corpus.limit // size)
            tokens = written_text(model, count=count, length=size, seed=corpus.seed, progress=work.progress)
        else:
            tokens = text_rows(model, text, width=width, limit=corpus.limit).to(model.device)
        about: dict[str, Any] = {"budget": setting.budget, "progress": work.progress}
        found = circuits.probes.probe_heads(model, tokens, seed=corpus.seed, **about)
        found.save(work.staging / "patterns.json")
        write(found, None, work.staging)
        work.publish()
        work.say(patterns_table(found, corpus.describe()))
        lost = None if pruning is None else circuits.probes.prune_heads(model, tokens, found, **pruning, **about)
        if lost is None:
            work.files.drop(*OF_PRUNING)
        else:
            lost.save(work.staging / "pruning.json")
            write(None, lost, work.staging)
    setting.answer(heads_report(found, lost, corpus.describe(), work.written, [setting.opening("patterns.json", "heads")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved patterns again, with what is lost without heads where that lies beside them, and write tables and pictures
    beside them, or into the folder asked for."""
    from circuits.cli.reports.probe_heads import heads_report, write

    found, beside = opened(circuits.probes.HeadPatterns, file), file.with_name("pruning.json")
    lost = circuits.probes.HeadPruning.load(beside) if beside.is_file() else None
    setting, files = written_again(found, file, setting, lambda patterns, folder: write(patterns, lost, folder), FILES)
    setting.answer(heads_report(found, lost, "", files))
