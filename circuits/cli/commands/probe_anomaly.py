"""`circuits probe anomaly`: at which layer a sentence that is wrong stands out."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting

FILES = {
    "anomalies.json": "every layer's gaps; circuits probe anomaly --open shows them again",
    "anomalies.csv": "the same as a table",
    "anomalies.png": "the same as a picture",
}
"""What `circuits probe anomaly` writes, and what for."""
_WORDS = 8
"""Tokens of a sentence that is made, about."""


@app.command("probe anomaly")
@with_setting("probe", memory=True)
def probe_anomaly(
    context: Context,
    minimal_pairs: Annotated[
        list[Path] | None,
        typer.Option(
            "--minimal-pairs",
            metavar="FILE",
            help="BLiMP JSONL: sentence_good, sentence_bad.",
            show_default="made by a small grammar",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Normal text.", show_default="made as the pairs are, or what the model writes itself"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=100, help="Tokens of the normal text that are read.")] = 20_000,
    pairs: Annotated[int, typer.Option(min=10, help="Pairs of each file, or those that are made.")] = 600,
    shuffles: Annotated[int, typer.Option(min=20, help="How often pairs are shuffled.")] = 1000,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Find layers at which wrong sentences stand out.

    A Gaussian is fitted to each residual stream on normal text; the wrong sentence of a minimal pair surprises it more than the
    right one by so many nats (Li et al. 2021). Beside each gap stand shuffled pairs, in which either sentence may be called the
    wrong one. What a model has noticed need not be what it says: circuits behaviour asks that.

    \b
    Examples:
      circuits probe anomaly
      circuits probe anomaly --minimal-pairs anaphors.jsonl --text book.txt
      circuits probe anomaly --minimal-pairs npi.jsonl -m gpt2
      circuits probe anomaly --open out/probe-mini/anomalies.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    run(minimal_pairs or [], Corpus(text, limit, seed), setting, {"pairs": pairs, "shuffles": shuffles})


def run(files: list[Path], corpus: Corpus, setting: Setting, options: dict[str, Any]) -> None:
    """Fit, score, write the files, print the report."""
    from circuits.cli.reports.probe_anomaly import anomaly_report, write

    words, count = corpus.read(), options["pairs"]
    pairs = [pair for file in files for pair in circuits.tasks.read_blimp_jsonl(file)[:count]]
    made = not files
    pairs = list(circuits.tasks.grammar_pairs(count, corpus.seed)) if made else pairs
    with setting.parts(FILES, below="anomaly", options="--limit, --pairs, --memory") as work:
        model = setting.load(work.progress)
        normal: Any
        if made and words is None:
            made_of = circuits.tasks.grammar_sentences(max(1, corpus.limit // _WORDS), corpus.seed + 1)
            normal = model.to_tokens([one.text for one in made_of])
        else:
            normal = corpus.tokens(model, words, work.progress)
        about: dict[str, Any] = {"budget": setting.budget, "progress": work.progress, "seed": corpus.seed}
        found = circuits.probes.probe_anomaly(model, pairs, normal, shuffles=options["shuffles"], **about)
        found.save(work.staging / "anomalies.json")
        work.publish()
        write(found, work.staging)
    where = " made by a small grammar" if made and words is None else corpus.describe()
    setting.answer(anomaly_report(found, where, work.written, [setting.opening("anomalies.json", "anomaly")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved gaps again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.probe_anomaly import anomaly_report, write

    found = opened(circuits.probes.Anomalies, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(anomaly_report(found, "", files))
