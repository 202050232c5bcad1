"""`circuits attention --labels`: heads labelled by gold dependencies, and the attention-only probe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from circuits.cli.commands.attention import folder_of
from circuits.cli.loading import load
from circuits.cli.measured import paired, save_figure
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import names_of
from circuits.cli.text import filled, one_line, print_json, table
from circuits.errors import MemoryBudgetError
from circuits.heads import AttentionProbe, HeadLabels, label_heads, probe_attention
from circuits.plots import head_labels_figure
from circuits.tasks import read_conllu

FILES = {
    "labels.json": "every head and relation; circuits.heads.HeadLabels.load reads it",
    "labels.csv": "the same as a table",
    "labels.png": "the best heads, and every head's gain over the baseline",
    "probe.json": "the probe; circuits.heads.AttentionProbe.load reads it",
    "probe.csv": "its weights",
}
_SHOWN = 20
_LOOKS = {"head": "at its head", "dependent": "at its dependent"}


def run(
    file: Path,
    *,
    limit: int | None,
    relations: str | None,
    min_count: int,
    seed: int,
    model: str,
    device: str,
    dtype: str,
    memory: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Label heads and fit the probe, write the files, print the report."""
    sentences = read_conllu(file)[:limit]
    folder = folder_of(model, out)
    with staged(folder) as staging, ProgressBars() as progress:
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        wanted = None if relations is None else names_of(relations)
        options: dict[str, Any] = {"seed": seed, "budget": memory * 2**20}
        try:
            labels = label_heads(loaded, sentences, relations=wanted, min_count=min_count, progress=progress, **options)
            probe = probe_attention(loaded, sentences, progress=progress, **options)
        except MemoryBudgetError as error:
            raise MemoryBudgetError(f"{error} (--limit, --memory)") from None
        progress("drawing", 0, 1)
        _write(labels, probe, staging)
        progress("drawing", 1, 1)
    files = {name: str(folder / name) for name in FILES}
    if as_json:
        print_json(_as_json(labels, probe, file, files))
    else:
        typer.echo(_report(labels, probe, file, folder, model))


def _write(labels: HeadLabels, probe: AttentionProbe, folder: Path) -> None:
    labels.save(folder / "labels.json")
    labels.to_dataframe().to_csv(folder / "labels.csv", index=False)
    save_figure(head_labels_figure(labels), folder / "labels.png")
    probe.save(folder / "probe.json")
    probe.to_dataframe().to_csv(folder / "probe.csv", index=False)


def _as_json(labels: HeadLabels, probe: AttentionProbe, file: Path, files: Mapping[str, str]) -> dict[str, Any]:
    best, beating = (
        [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]
        for found in (labels.best(), labels.beating())
    )
    scores = {
        name: {part: {"share": pair[0], "standard_error": pair[1]} for part, pair in row.items()}
        for name, row in probe.scores.items()
    }
    about = {"words": probe.counts, "offset": probe.offset, "train_words": probe.train_words, "loss": probe.loss}
    return {
        "model": labels.model,
        "file": str(file),
        "sentences": labels.sentences,
        "left_out": labels.left_out,
        "seed": labels.seed,
        "best": best,
        "beating": beating,
        "probe": {"uas": scores, **about},
        "files": dict(files),
    }


def _report(labels: HeadLabels, probe: AttentionProbe, file: Path, folder: Path, model: str) -> str:
    out = labels.left_out
    best, beating = labels.best(), labels.beating()
    rows = []
    for row in best.head(_SHOWN).to_dict("records"):
        sure = f"{row['gain']:+.1%} ± {row['gain_error']:.1%}"
        p = "" if row["p_value"] > 0.05 else f"{row['p_value']:.1g}"
        cells = [f"{row['baseline']:.1%} ({row['offset']:+d})", row["head"], f"{row['accuracy']:.1%}", sure, p]
        rows.append([f"{row['relation']} {_LOOKS[row['looks_at']]}", str(row["cases"]), *cells])
    header = ["relation, looks", "cases", "position alone", "best head", "right", "gain", "p"]
    more = len(best) - len(rows)
    names = ", ".join(dict.fromkeys(beating["head"])) or "none"
    head = (beating if len(beating) else best)["head"].iloc[0]
    named = "" if model == "mini" else f" --model {one_line(model)}"
    parts = [
        f"Head labels of {one_line(labels.model)}: {labels.sentences:,} sentences of {one_line(file.name)}",
        f"left out: {out['too long']} sentences too long, {out['not aligned']} not aligned, {out['words']} words that share "
        "their only token",
        table(header, rows) + (f"\n  ... and {more} more in labels.csv" if more > 0 else ""),
        filled(
            f"{len(beating)} pairs of head and relation beat position alone (p, corrected for "
            f"{labels.p_values.numel():,} tests, up to 0.05; blank: not shown to). Heads: {names}."
        )
        + "\nScored on half of the sentences; the offset in brackets was found on the other half. ±: standard error.\n"
        "Where a head looks is a hint, not what it does: ablate it.",
        _probe(probe),
        paired(f"Files in {one_line(folder)}", list(FILES.items())),
        paired(
            "Try next",
            [(f"circuits attention PROMPT --heads {head}{named}", f"where {head} looks in a prompt")],
        ),
    ]
    return "\n\n".join(parts)


def _probe(probe: AttentionProbe) -> str:
    header = ["attention-only probe (UAS)", *(f"{part} ({probe.counts[part]:,})" for part in probe.counts)]
    names = {"probe": "probe", "offset": f"position alone ({probe.offset:+d})", "uniform": "any other word"}
    rows = []
    for name, said in names.items():
        rows.append([said, *(f"{share:.1%} ± {error:.1%}" for share, error in probe.scores[name].values())])
    return (
        table(header, rows) + "\n  all words but roots; whose head comes earlier (the word looks at it), later (it looks back)."
    )
