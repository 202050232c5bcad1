"""`circuits probe`: minimal pairs and facts, scored beside baselines."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from circuits.cli.loading import load
from circuits.cli.measured import naming_options, paired, save_figure
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.text import one_line, print_json, table
from circuits.errors import CircuitsError, FileFormatError
from circuits.models import Model
from circuits.plots import behaviour_figure
from circuits.progress import Progress
from circuits.tasks import BehaviourScores, mini_facts, read_blimp_jsonl, score_facts, score_minimal_pairs
from circuits.tasks.behavioural.scores import EVERYTHING
from circuits.tasks.sources.corpus import read_text
from circuits.tasks.sources.readers import read_facts

_SUFFIXES = (".csv", ".json", ".png")
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
    pairs: Sequence[Path],
    facts: Sequence[Path],
    *,
    text: Path | None,
    limit: int | None,
    out: Path | None,
    memory: int,
    model: str,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Score, write where asked, print the table."""
    _check_suffix(out)
    items: list[Any] = [item for file in pairs for item in read_blimp_jsonl(file)[:limit]]
    items += [fact for file in facts for fact in read_facts(file)[:limit]]
    items = items or list(mini_facts()[:limit])
    words = None if text is None else read_text(text)
    with ProgressBars() as progress, naming_options():
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        scores = _score(loaded, items, sentences=bool(pairs), text=words, budget=memory * 2**20, progress=progress)
    _print(scores, out, as_json=as_json)


def reopen(file: Path, *, out: Path | None, as_json: bool) -> None:
    """Print saved scores again, and write them where asked."""
    _check_suffix(out)
    _print(BehaviourScores.load(file), out, as_json=as_json)


def _check_suffix(out: Path | None) -> None:
    if out is not None and out.suffix.lower() not in _SUFFIXES:
        raise FileFormatError(f"{out}: unknown kind of file; expected a name that ends in {', '.join(_SUFFIXES)}")


def _print(scores: BehaviourScores, out: Path | None, *, as_json: bool) -> None:
    if out is not None:
        _write(scores, out)
    if as_json:
        print_json({**_contents(scores), "file": None if out is None else str(out)})
        return
    typer.echo(_report(scores))
    if out is not None:
        typer.echo(f"wrote {one_line(out)}", err=True)


def _score(
    model: Model, items: list[Any], *, sentences: bool, text: str | None, budget: int, progress: Progress
) -> BehaviourScores:
    score = score_minimal_pairs if sentences else score_facts
    return score(model, items, text=text, budget=budget, progress=progress)


def _write(scores: BehaviourScores, out: Path) -> None:
    with staged(out.parent) as staging:
        if out.suffix.lower() == ".json":
            scores.save(staging / out.name)
        elif out.suffix.lower() == ".csv":
            scores.to_dataframe().to_csv(staging / out.name, index=False)
        else:
            save_figure(behaviour_figure(scores), staging / out.name)


def _contents(scores: BehaviourScores) -> dict[str, Any]:
    rows = [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in scores.to_dataframe().to_dict("records")
    ]
    return {"model": scores.model, "kind": scores.kind, "items": len(scores.items), "groups": rows, "notes": dict(scores.notes)}


def _report(scores: BehaviourScores) -> str:
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
    notes = paired("Columns", [(_HEADINGS.get(column, column), scores.notes[column]) for column in columns])
    heading = f"{one_line(scores.model)}: {len(scores.items):,} {scores.kind} (mean ± standard error)"
    return "\n\n".join([heading, table(header, cells, indent=0), notes])


def _group(name: str, scores: BehaviourScores) -> str:
    """A group's name; that of the only one where all are of one."""
    groups = set(scores.groups)
    if name == EVERYTHING and len(groups) == 1:
        name = next(iter(groups))
    return one_line(name)[:48] or "no relation"
