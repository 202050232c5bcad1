"""Searches that were repeated, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.reports.circuit import draw
from circuits.cli.text import filled, one_line
from circuits.files.words import counted
from circuits.search import Recurrence
from circuits.search.stability.results import BETWEEN, RULES, SAMPLES
from circuits.statistics import Effect

_EDGES, _OFTEN = 15, 10
_OVERLAPS = (
    "overlap: edges in both circuits over edges in either (Jaccard), the mean over pairs with the 95 % interval of a jackknife "
    "over seeds; it is one of circuits of these sizes, and larger ones meet more. By chance: the same, exactly, of random "
    "circuits of as many edges; with as many between each two layers; with as many into each reader; out of each writer."
)
_POOL = (
    "All searches are on samples of the same prompts: the interval says what other samples of these would do, not what other "
    "prompts would (--sample parts gives each seed its own)."
)
_JUDGED = (
    "kept: share of the behaviour that the circuit keeps by itself on {count} held-out prompts, with the 95 % interval over "
    "prompts; edges on no path made of them are left out. more: by how much it is more than the mean of the single circuits, "
    "on the same prompts."
)


def judged_table(found: Recurrence) -> pd.DataFrame:
    """One row a circuit: what each keeps by itself."""
    rows = []
    for row, one in enumerate(found.runs):
        name = f"seed {one.seed}{'ab'[one.part] if found.sample == 'halves' else ''}"
        own: dict[str, Any] = {"model": one.model, "circuit": name, "edges": int(found.chosen[row].sum())}
        rows.append(own | _numbers("faithfulness", one.faithfulness) | _numbers("more", None))
    for one in found.consensus:
        own = {"model": one.model, "circuit": RULES[one.rule], "edges": one.edges}
        rows.append(own | _numbers("faithfulness", one.faithfulness) | _numbers("more", one.more))
    return pd.DataFrame(rows)


def _numbers(name: str, effect: Effect | None) -> dict[str, float | None]:
    values = (None,) * 3 if effect is None else (effect.effect, effect.low, effect.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def write(found: Recurrence, folder: Path) -> None:
    """Write the tables and the pictures."""
    found.overlap_table().to_csv(folder / "overlaps.csv", index=False)
    found.to_dataframe().to_csv(folder / "returning.csv", index=False)
    judged_table(found).to_csv(folder / "judged.csv", index=False)
    save_figure(found.plot(), folder / "stability.png")
    if found.circuit is not None and len(found.circuit):
        title = f"{found.task} in {found.models[0]}: edges in at least half of {len(found.rows())} circuits"
        draw(found.circuit, folder / "consensus.png", title=title)


def recurrence_report(found: Recurrence, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """How far the circuits meet, which edges return, what the circuit of those keeps."""
    many = len(found.models) > 1
    heading = (
        f"{one_line(', '.join(found.models))}: {counted(len(found.rows()), 'search')} for {one_line(found.task)} by "
        f"{found.method}\non {SAMPLES[found.sample]}; metric: {found.metric}"
    )
    parts: list[Part] = [_overlaps(found, many), filled(_OVERLAPS)]
    parts += [filled(_POOL)] if found.sample == "halves" else []
    if found.by_size:
        parts.append(_sizes(found, many))
    parts += [_returning(found, model, many) for model in found.models]
    parts += [_judged(found, many), filled(_JUDGED.format(count=found.held_out)), _edges(found)]
    parts.append(filled(found.summary))
    data: dict[str, Any] = {"models": list(found.models), "task": found.task, "method": found.method, "metric": found.metric}
    data |= {"sample": found.sample, "summary": found.summary, "held_out": found.held_out}
    data |= {"overlaps": records(found.overlap_table()), "judged": records(judged_table(found))}
    data["sizes"] = [
        {"model": one.model, "size": one.size, **one.overlap.as_json(), "expected": one.expected} for one in found.by_size
    ]
    names = ("times", "edges", "expected")
    data["returning"] = {
        model: [dict(zip(names, row, strict=True)) for row in found.returning(model)] for model in found.models
    }
    data["edges"] = records(found.to_dataframe()[["edge", "times", "of", "score"]])
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _overlaps(found: Recurrence, many: bool) -> Table:
    rows = []
    for row in records(found.overlap_table()):
        own = one_line(row["first"]) if row["first"] == row["second"] else one_line(f"{row['first']}, {row['second']}")
        shown = f"{row['overlap']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        chance = [f"{row[f'chance_{null}']:.3f}" for null in ("size", "layers", "readers", "writers")]
        rows.append(([own] if many else []) + [BETWEEN[row["between"]], f"{row['pairs']}", shown, *chance])
    header = ["circuits", "pairs", "overlap", "by chance", "layers", "readers", "writers"]
    return Table([*(["of"] if many else []), *header], rows)


def _sizes(found: Recurrence, many: bool) -> Table:
    rows = [
        ([one_line(one.model)] if many else [])
        + [f"{one.size:,}", f"{one.overlap.effect:.3f} [{one.overlap.low:.3f}, {one.overlap.high:.3f}]", f"{one.expected:.3f}"]
        for one in found.by_size
    ]
    header = ["edges", "overlap", "by chance (readers)"]
    return Table([*(["of"] if many else []), *header], rows, title=f"other sizes, by the same scores, {BETWEEN[found.usual]}")


def _returning(found: Recurrence, model: str, many: bool) -> Table:
    kept = found.returning(model)
    step = max(1, -(-len(kept) // _OFTEN))
    chosen = [row for row in kept if row[0] == 1 or row[0] == len(kept) or row[0] % step == 0]
    rows = [(f"{often} of {len(kept)}", f"{count:,}", f"{chance:,.1f}") for often, count, chance in chosen]
    title = f"edges that return{f', {one_line(model)}' if many else ''}"
    return Table(("found in at least", "edges", "by chance (readers)"), rows, title=title)


def _judged(found: Recurrence, many: bool) -> Table:
    rows = []
    for model in found.models:
        own, of = [found.runs[row] for row in found.rows(model)], [one_line(model)] if many else []
        values = sorted(one.faithfulness.effect for one in own if one.faithfulness is not None)
        sizes = found.chosen[found.rows(model)].sum(dim=1).tolist()
        if values:
            span = f"{values[0]:.3f} to {values[-1]:.3f}, mean {sum(values) / len(values):.3f}"
            size = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,}-{max(sizes):,}"
            rows.append([*of, f"{len(own)} single circuits", size, span, ""])
        for one in found.consensus:
            if one.model == model:
                rows.append([*of, RULES[one.rule], f"{one.edges:,}", _shown(one.faithfulness), _shown(one.more, "+")])
    return Table([*(["of"] if many else []), "circuit", "edges", "kept", "more"], rows)


def _shown(effect: Effect | None, sign: str = "") -> str:
    return "-" if effect is None else f"{effect.effect:{sign}.3f} [{effect.low:{sign}.3f}, {effect.high:{sign}.3f}]"


def _edges(found: Recurrence) -> Table:
    table = found.to_dataframe()
    rows = [(row["edge"], f"{row['times']}", _score(row["score"])) for row in records(table.head(_EDGES))]
    more = len(table) - len(rows)
    below = f"... and {more:,} more in returning.csv" if more > 0 else ""
    return Table((f"most often, of {len(found.rows())}", "times", "mean score"), rows, below=below)


def _score(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:+.4g}"
