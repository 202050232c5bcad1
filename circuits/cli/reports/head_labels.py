"""Heads labelled by grammatical relations, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line
from circuits.heads import AttentionProbe, HeadLabels

_SHOWN = 20
_LOOKS = {"head": "at its head", "dependent": "at its dependent"}


def write(labels: HeadLabels, probe: AttentionProbe | None, folder: Path) -> None:
    """Write the tables and the picture."""
    labels.to_dataframe().to_csv(folder / "labels.csv", index=False)
    save_figure(labels.plot(), folder / "labels.png")
    if probe is not None:
        probe.to_dataframe().to_csv(folder / "probe.csv", index=False)


def labels_report(
    labels: HeadLabels,
    probe: AttentionProbe | None,
    file: Path | None,
    files: Mapping[str, str],
    steps: Sequence[tuple[str, str]] = (),
) -> Report:
    """The best head of each relation beside position alone, and what the probe reads off all of them."""
    out, beating = labels.left_out, labels.beating()
    names = ", ".join(dict.fromkeys(beating["head"])) or "none"
    parts: list[Part] = [
        f"left out: {out['too long']} sentences too long, {out['not aligned']} not aligned, {out['words']} words that share "
        "their only token",
        _best(labels),
        filled(
            f"{len(beating)} pairs of head and relation beat position alone (p, corrected for "
            f"{labels.p_values.numel():,} tests, up to 0.05; blank: not shown to). Heads: {names}."
        )
        + "\nScored on half of the sentences; the offset in brackets was found on the other half. ±: standard error.\n"
        "Where a head looks is a hint, not what it does: ablate it.",
    ]
    parts += [] if probe is None else [_probe(probe)]
    source = "" if file is None else f" of {one_line(file.name)}"
    heading = f"Head labels of {one_line(labels.model)}: {labels.sentences:,} sentences{source}"
    return Report(heading=heading, parts=parts, data=_data(labels, probe, file), files=files, next=steps)


def next_steps(labels: HeadLabels, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    best, beating = labels.best(), labels.beating()
    head = str((beating if len(beating) else best)["head"].iloc[0])
    look = setting.command("attention", "PROMPT", "--heads", head)
    return [(look, f"where {head} looks in a prompt"), setting.opening("labels.json", "labels")]


def _data(labels: HeadLabels, probe: AttentionProbe | None, file: Path | None) -> dict[str, Any]:
    data: dict[str, Any] = {"model": labels.model, "file": None if file is None else str(file)}
    data |= {"sentences": labels.sentences, "left_out": labels.left_out, "seed": labels.seed}
    data |= {"best": records(labels.best()), "beating": records(labels.beating()), "probe": None}
    if probe is None:
        return data
    scores = {
        name: {part: {"share": pair[0], "standard_error": pair[1]} for part, pair in row.items()}
        for name, row in probe.scores.items()
    }
    about = {"words": probe.counts, "offset": probe.offset, "train_words": probe.train_words, "loss": probe.loss}
    return {**data, "probe": {"uas": scores, **about}}


def _best(labels: HeadLabels) -> Table:
    best, rows = labels.best(), []
    for row in best.head(_SHOWN).to_dict("records"):
        sure = f"{row['gain']:+.1%} ± {row['gain_error']:.1%}"
        p = "" if row["p_value"] > 0.05 else f"{row['p_value']:.1g}"
        cells = [f"{row['baseline']:.1%} ({row['offset']:+d})", row["head"], f"{row['accuracy']:.1%}", sure, p]
        rows.append([f"{row['relation']} {_LOOKS[row['looks_at']]}", str(row["cases"]), *cells])
    header = ["relation, looks", "cases", "position alone", "best head", "right", "gain", "p"]
    more = len(best) - len(rows)
    return Table(header, rows, below=f"... and {more} more in labels.csv" if more > 0 else "")


def _probe(probe: AttentionProbe) -> Table:
    header = ["attention-only probe (UAS)", *(f"{part} ({probe.counts[part]:,})" for part in probe.counts)]
    names = {"probe": "probe", "offset": f"position alone ({probe.offset:+d})", "uniform": "any other word"}
    rows = []
    for name, said in names.items():
        rows.append([said, *(f"{share:.1%} ± {error:.1%}" for share, error in probe.scores[name].values())])
    below = "all words but roots; whose head comes earlier (the word looks at it), later (it looks back)."
    return Table(header, rows, below=below)
