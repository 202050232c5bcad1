"""Scores of behaviour as they are written and printed."""

import math
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Report, Table, records
from circuits.cli.text import one_line
from circuits.tasks import BehaviourScores
from circuits.tasks.behavioural.scores import EVERYTHING

_SHOWN = {
    "minimal pairs": ("accuracy", "accuracy_per_token", "margin", "bigram", "unigram", "length"),
    "facts": ("top1", "reciprocal_rank", "log_probability", "bigram_top1", "majority_top1", "majority_reciprocal_rank"),
}
_HEADINGS = {
    "accuracy_per_token": "per token",
    "top1": "top 1",
    "reciprocal_rank": "1/rank",
    "log_probability": "log p",
    "bigram_top1": "bigram top 1",
    "majority_top1": "majority top 1",
    "majority_reciprocal_rank": "majority 1/rank",
}


def write(scores: BehaviourScores, out: Path) -> None:
    """Write every item (.json), the table (.csv) or the picture (.png)."""
    if out.suffix.lower() == ".json":
        scores.save(out)
    elif out.suffix.lower() == ".csv":
        scores.to_dataframe().to_csv(out, index=False)
    else:
        save_figure(scores.plot(), out)


def behaviour_report(scores: BehaviourScores, out: Path | None) -> Report:
    """How often the model is right, beside what knows less."""
    columns = [column for column in _SHOWN[scores.kind] if column in scores.values]
    rows = scores.to_dataframe().to_dict("records")
    rows = rows[-1:] if len(rows) == 2 else rows
    cells = []
    for row in rows:
        first = columns[0]
        error = "" if math.isnan(row[f"{first}_se"]) else f" ± {row[f'{first}_se']:.3f}"
        name = _group(str(row["group"]), scores)
        cells.append((name, f"{row['items']:,}", f"{row[first]:.3f}{error}", *(f"{row[column]:.3f}" for column in columns[1:])))
    what = "paradigm" if scores.kind == "minimal pairs" else "relation"
    header = (what, "items", *(_HEADINGS.get(column, column) for column in columns))
    notes = Pairs("Columns", [(_HEADINGS.get(column, column), scores.notes[column]) for column in columns])
    heading = f"{one_line(scores.model)}: {len(scores.items):,} {scores.kind} (mean ± standard error)"
    about = {"model": scores.model, "kind": scores.kind, "items": len(scores.items)}
    data = {**about, "groups": records(scores.to_dataframe()), "notes": dict(scores.notes)}
    data["file"] = None if out is None else str(out)
    return Report(heading=heading, parts=[Table(header, cells), notes], data=data)


def _group(name: str, scores: BehaviourScores) -> str:
    """A group's name; that of the only one where all are of one."""
    groups = set(scores.groups)
    if name == EVERYTHING and len(groups) == 1:
        name = next(iter(groups))
    return one_line(name)[:48] or "no relation"
