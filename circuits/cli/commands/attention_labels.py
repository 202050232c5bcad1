"""`circuits attention labels`: heads labelled by gold dependencies, and the attention-only probe."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed
from circuits.cli.prompts import names_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "labels.json": "every head and relation; circuits attention labels --open shows it again",
    "labels.csv": "the same as a table",
    "labels.png": "the best heads, and every head's gain over the baseline",
    "probe.json": "the probe; circuits.heads.AttentionProbe.load reads it",
    "probe.csv": "its weights",
}
"""What `circuits attention labels` writes, and what for."""


@app.command("attention labels")
@with_setting("attention", memory=True, long=False)
def attention_labels(
    context: Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Sentences with dependencies, CoNLL-U.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Stop after so many sentences.", show_default="all")] = None,
    relations: Annotated[
        str | None, typer.Option(metavar="NAMES", help="These relations alone, such as nsubj,det.", show_default="all")
    ] = None,
    min_count: Annotated[int, typer.Option(min=2, help="Leave out relations with fewer cases.")] = 50,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Label heads by the relations they look along.

    Relations are those of a grammar, word by word. Each head is scored against a baseline that knows positions alone, and a
    probe reads dependencies off attention (Clark et al. 2019).

    \b
    Examples:
      circuits attention labels en_ewt-ud-dev.conllu --limit 500
      circuits attention labels en_ewt-ud-dev.conllu --relations nsubj,det
      circuits attention labels --open out/attention-mini/labels.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if file is None:
        raise PromptError("name a file of sentences with dependencies (CoNLL-U), or a saved labels.json with --open")
    run(file, setting, limit=limit, relations=relations, min_count=min_count, seed=seed)


def run(file: Path, setting: Setting, *, limit: int | None, relations: str | None, min_count: int, seed: int) -> None:
    """Label heads and fit the probe, write the files, print the report."""
    from circuits.cli.reports.head_labels import labels_report, next_steps, write
    from circuits.tasks import read_conllu

    sentences = read_conllu(file)[:limit]
    with setting.parts(FILES, below="labels", options="--limit, --memory") as work:
        model = setting.load(work.progress)
        wanted = None if relations is None else names_of(relations)
        options: dict[str, Any] = {"seed": seed, "budget": setting.budget, "progress": work.progress}
        labels = circuits.heads.label_heads(model, sentences, relations=wanted, min_count=min_count, **options)
        labels.save(work.staging / "labels.json")
        work.publish()
        probe = circuits.heads.probe_attention(model, sentences, **options)
        work.progress("drawing", 0, 1)
        probe.save(work.staging / "probe.json")
        write(labels, probe, work.staging)
        work.progress("drawing", 1, 1)
    setting.answer(labels_report(labels, probe, file, work.written, next_steps(labels, setting)))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved labels again, with the probe that lies beside them, and write tables and picture beside them, or into the
    folder asked for."""
    from circuits.cli.reports.head_labels import labels_report, write

    labels, beside = opened(circuits.heads.HeadLabels, file), file.with_name("probe.json")
    probe = circuits.heads.AttentionProbe.load(beside) if beside.is_file() else None
    setting, files = written_again(labels, file, setting, lambda labels, folder: write(labels, probe, folder), FILES)
    setting.answer(labels_report(labels, probe, None, files))
