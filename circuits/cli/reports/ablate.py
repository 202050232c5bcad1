"""Ablations and self-repair as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import circuits
from circuits.cli.output import save_figure
from circuits.cli.prompts import Behaviour
from circuits.cli.questions.ablate import AblateQuestion
from circuits.cli.report import Part, Report, Table
from circuits.cli.reports.measured import again, interval, prompts_of
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.patching import Ablation, SelfRepair

_MOST_ROWS = 20


def write(found: Ablation | None, repair: Sequence[SelfRepair], folder: Path, title: str) -> None:
    """Write the tables and the pictures."""
    if found is not None:
        found.to_dataframe().to_csv(folder / "ablation.csv", index=False)
        save_figure(found.plot(), folder / "ablation.png")
    if repair:
        pd.DataFrame(_repair_rows(repair)).to_csv(folder / "self_repair.csv", index=False)
        save_figure(circuits.plots.self_repair_figure(*repair, title=title), folder / "self_repair.png")


def _repair_rows(repair: Sequence[SelfRepair]) -> list[dict[str, Any]]:
    return [{"part": one.part, "kind": one.kind, **row} for one in repair for row in one.to_dataframe().to_dict("records")]


def ablate_report(
    found: Ablation | None,
    repair: Sequence[SelfRepair],
    repaired: str,
    files: Mapping[str, str],
    steps: Sequence[tuple[str, str]] = (),
) -> Report:
    """What was taken out and what that cost; `repaired` says of which layers, where self-repair was asked for."""
    data: dict[str, Any] = {}
    said: list[Part] = []
    if found is not None:
        names = ("model", "metric", "kind", "freeze_patterns", "source")
        data = {name: found.metadata.get(name) for name in names} | {"prompts": len(found.whole)}
        data["ablations"] = found.to_dataframe().drop(columns="prompts").to_dict("records")
        said += [_heading(found), _changes(found)]
    if repair:
        data["self_repair"] = _repair_rows(repair)
        said += [one_line(repaired), *(_repaired(one) for one in repair)]
    heading, *parts = said
    return Report(heading=str(heading), parts=parts, data=data, files=files, next=steps)


def _heading(found: Ablation) -> str:
    about = found.metadata
    metric = one_line(about.get("metric", "metric")).replace("_", " ")
    frozen = ", attention patterns frozen" if about.get("freeze_patterns") else ""
    return (
        f"{one_line(about.get('model', 'model'))}: nodes replaced ({one_line(about.get('kind', ''))}{frozen}) in clean runs\n"
        f"{prompts_of(found)}: mean {metric} {float(found.whole.mean()):.4g} with the whole model"
    )


def _changes(found: Ablation) -> Table:
    metric = one_line(found.metadata.get("metric", "metric")).replace("_", " ")
    rows = list(zip(found.names, found.intervals(), found.scores.mean(dim=1).tolist(), strict=True))
    rows.sort(key=lambda row: -abs(row[1].effect))
    more = f"... and {len(rows) - _MOST_ROWS:,} more in ablation.csv" if len(rows) > _MOST_ROWS else ""
    count = len(found.whole)
    header = ("without", f"change of {metric}" + " [95 % interval]" * (count > 1), "what is left")
    cells = [(_short(name), interval(effect, count), f"{left:.4g}") for name, effect, left in rows[:_MOST_ROWS]]
    return Table(header, cells, below=more)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:40]}... ({name.count('+') + 1} nodes)"


def _repaired(report: SelfRepair) -> Table:
    rows = [
        (f"layer {layer}", *(f"{value:+.3f}" for value in values))
        for layer, *values in report.to_dataframe().itertuples(index=False)
    ]
    what = "attention" if report.part == "attention" else "MLP"
    return Table((f"without the {what} of", "direct", "total", "compensation by later layers"), rows)


def next_steps(loss: AblateQuestion, asked: Behaviour, setting: Setting, positions: str | None) -> list[tuple[str, str]]:
    """What to try after this."""
    names, steps = list(loss.nodes), []
    same = again(asked, positions)
    kind = [] if loss.kind == "mean" else ["--kind", loss.kind]
    if names and not loss.freeze_patterns:
        words = ["ablate", *names, *kind, *(["--each"] if loss.each else []), "--freeze-patterns"]
        steps.append((setting.command(*words, *same), "only what they write, not where others look"))
    if len(names) > 1 and not loss.each:
        steps.append((setting.command("ablate", *names, *kind, "--each", *same), "each by itself"))
    if not loss.self_repair:
        words = ["ablate", "--self-repair", *asked.prompts.arguments()]
        steps.append((setting.command(*words), "whether later layers make up for a loss"))
    if names:
        steps.append(setting.opening("ablation.json"))
    else:
        steps.append((setting.command("ablate", "heads", "--each", *same), "every head by itself"))
    return steps
