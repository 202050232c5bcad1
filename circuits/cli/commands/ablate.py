"""`circuits ablate`: what nodes are worth, whether later layers make up for their loss, the files and the report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import typer

from circuits.cli.commands.patch import check_names
from circuits.cli.measured import Setting, interval, naming_options, paired, prompts_of, save_figure
from circuits.cli.output import staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import positions_of
from circuits.cli.text import one_line, print_json, table
from circuits.errors import CircuitsError, FileFormatError
from circuits.models import Model
from circuits.patching import Ablation, SelfRepair, ablate, self_repair
from circuits.patching.engine.sites import find_sites
from circuits.patching.patches import PatchKind
from circuits.plots import ablation_figure, self_repair_figure
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric

FILES = {
    "ablation.json": "every prompt's numbers; circuits ablate --open shows them again",
    "ablation.csv": "every change with its interval",
    "ablation.png": "the changes as bars",
    "self_repair.csv": "direct effect, total effect and compensation by layer",
    "self_repair.png": "the same as bars",
}
"""What `circuits ablate` writes, and what for; self_repair with --self-repair alone."""

_KINDS: dict[str, PatchKind] = {kind: kind for kind in ("zero", "mean", "resample", "noise", "optimal")}
_REPAIR_KINDS: dict[str, Literal["zero", "mean", "resample"]] = {kind: kind for kind in ("zero", "mean", "resample")}
_MOST_ROWS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """What is taken out, and how."""

    nodes: Sequence[str]
    kind: str
    freeze_patterns: bool
    each: bool
    self_repair: bool

    def check(self, positions: str | None) -> None:
        """Raise CircuitsError where the options contradict each other; needs no model."""
        if self.self_repair and positions is not None:
            raise CircuitsError("--self-repair takes out whole layers, at every position: leave out --positions")
        if not self.nodes and not self.self_repair:
            raise CircuitsError("name nodes to ablate, such as a0.h5 m2 or a group such as heads; or give --self-repair")
        if not self.nodes and (self.each or self.freeze_patterns):
            raise CircuitsError(f"{'--each' if self.each else '--freeze-patterns'} is about NODES: name some, such as a0.h5 m2")
        if self.kind not in _KINDS:
            raise CircuitsError(f"unknown kind of ablation {self.kind!r}: expected {', '.join(_KINDS)}")
        if self.self_repair and self.kind not in _REPAIR_KINDS:
            raise CircuitsError(f"--self-repair ablates by {', '.join(_REPAIR_KINDS)}, not by {self.kind}")

    def measure(self, model: Model, pairs: PromptPairs, metric: Metric, progress: ProgressBars, **options: Any) -> Ablation:
        """Take the nodes out. Raises GraphError for names that the model lacks."""
        check_names(model, self.nodes)
        sets = [[site.name] for site in find_sites(model, self.nodes)] if self.each else [list(self.nodes)]
        options |= {"kind": _KINDS[self.kind], "freeze_patterns": self.freeze_patterns}
        if self.kind != "optimal":
            return ablate(model, pairs, metric, sets, progress=progress, **options)
        found: list[Ablation] = []
        for place, one in enumerate(sets):  # each takes a while, so that progress is worth showing
            progress("finding optimal constants", place, len(sets))
            found.append(ablate(model, pairs, metric, [one], **options))
        progress("finding optimal constants", len(sets), len(sets))
        names = tuple(name for one in found for name in one.names)
        return dataclasses.replace(found[0], names=names, scores=torch.cat([one.scores for one in found]))

    def repair(self, model: Model, pairs: PromptPairs, progress: ProgressBars) -> list[SelfRepair]:
        """The self-repair reports, of attention and of MLPs where there are some; none where none was asked for."""
        if not self.self_repair:
            return []
        parts: list[Literal["attention", "mlp"]] = ["attention", "mlp"] if model.d_mlp else ["attention"]
        return [self_repair(model, pairs, part=part, kind=_REPAIR_KINDS[self.kind], progress=progress) for part in parts]


def run(loss: Loss, setting: Setting, *, as_json: bool) -> None:
    """Ablate, write the files, print the report."""
    loss.check(setting.positions)
    folder, positions = setting.folder("ablate"), positions_of(setting.positions)
    with staged(folder) as staging, ProgressBars() as progress, naming_options():
        model, pairs, metric = setting.prepare(progress)
        options = {"positions": positions, "seed": setting.prompts.seed, "budget": setting.budget}
        found = loss.measure(model, pairs, metric, progress, **options) if loss.nodes else None
        repair = loss.repair(model, pairs, progress)
        if found is not None:
            found = setting.noted(found, model, pairs)
            found.save(staging / "ablation.json")
        files = _write(found, repair, staging, f"Self-repair by layer of {model.name}")
    if as_json:
        print_json(_contents(found, repair, folder, files))
        return
    parts = _report(found) if found is not None else []
    if repair:
        where = f"{len(pairs)} prompts ({one_line(setting.prompts.describe())})"
        parts += [
            f"{one_line(model.name)}: layers replaced ({loss.kind}) in clean runs, effect on the logit difference; {where}"
        ]
    parts += [_repair_report(one) for one in repair]
    steps = paired("Try next", _next(loss, setting))
    typer.echo("\n\n".join([*parts, _listed(folder, files), steps]))


def reopen(file: Path, *, out: Path | None, as_json: bool) -> None:
    """Print a saved ablation again, and write its table and picture beside it, or into `out`."""
    found, folder = Ablation.load(file), file.parent if out is None else out
    if not len(found) or not len(found.whole):
        raise FileFormatError(f"{file}: holds no ablation")
    with staged(folder) as staging:
        files = _write(found, [], staging, "")
    if as_json:
        print_json(_contents(found, [], folder, files))
    else:
        typer.echo("\n\n".join([*_report(found), _listed(folder, files)]))


def _write(found: Ablation | None, repair: Sequence[SelfRepair], folder: Path, title: str) -> list[str]:
    """Write the tables and the pictures; returns the names of all files that are there."""
    if found is not None:
        found.to_dataframe().to_csv(folder / "ablation.csv", index=False)
        save_figure(ablation_figure(found), folder / "ablation.png")
    if repair:
        pd.DataFrame(_repair_rows(repair)).to_csv(folder / "self_repair.csv", index=False)
        save_figure(self_repair_figure(*repair, title=title), folder / "self_repair.png")
    return [name for name in FILES if (folder / name).is_file()]


def _repair_rows(repair: Sequence[SelfRepair]) -> list[dict[str, Any]]:
    return [{"part": one.part, "kind": one.kind, **row} for one in repair for row in one.to_dataframe().to_dict("records")]


def _contents(found: Ablation | None, repair: Sequence[SelfRepair], folder: Path, files: Sequence[str]) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if found is not None:
        names = ("model", "metric", "kind", "freeze_patterns", "source")
        about = {name: found.metadata.get(name) for name in names} | {"prompts": len(found.whole)}
        about["ablations"] = found.to_dataframe().drop(columns="prompts").to_dict("records")
    if repair:
        about["self_repair"] = _repair_rows(repair)
    return {**about, "files": {name: str(folder / name) for name in files}}


def _report(found: Ablation) -> list[str]:
    about = found.metadata
    metric = one_line(about.get("metric", "metric")).replace("_", " ")
    frozen = ", attention patterns frozen" if about.get("freeze_patterns") else ""
    heading = (
        f"{one_line(about.get('model', 'model'))}: nodes replaced ({one_line(about.get('kind', ''))}{frozen}) in clean runs\n"
        f"{prompts_of(found)}: mean {metric} {float(found.whole.mean()):.4g} with the whole model"
    )
    rows = list(zip(found.names, found.intervals(), found.scores.mean(dim=1).tolist(), strict=True))
    rows.sort(key=lambda row: -abs(row[1].effect))
    more = f"\n... and {len(rows) - _MOST_ROWS:,} more in ablation.csv" if len(rows) > _MOST_ROWS else ""
    count = len(found.whole)
    header = ("without", f"change of {metric}" + " [95 % interval]" * (count > 1), "what is left")
    cells = [(_short(name), interval(effect, count), f"{left:.4g}") for name, effect, left in rows[:_MOST_ROWS]]
    return [heading, table(header, cells, indent=0) + more]


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:40]}... ({name.count('+') + 1} nodes)"


def _repair_report(report: SelfRepair) -> str:
    rows = [
        (f"layer {layer}", *(f"{value:+.3f}" for value in values))
        for layer, *values in report.to_dataframe().itertuples(index=False)
    ]
    what = "attention" if report.part == "attention" else "MLP"
    header = (f"without the {what} of", "direct", "total", "compensation by later layers")
    return table(header, rows, indent=0)


def _listed(folder: Path, files: Sequence[str]) -> str:
    return paired(f"Files in {one_line(folder)}", [(name, FILES[name]) for name in files])


def _next(loss: Loss, setting: Setting) -> list[tuple[str, str]]:
    """What to try after this."""
    names, steps = list(loss.nodes), []
    kind = [] if loss.kind == "mean" else ["--kind", loss.kind]
    if names and not loss.freeze_patterns:
        words = setting.command("ablate", *names, *kind, *(["--each"] if loss.each else []), "--freeze-patterns")
        steps.append((words, "only what they write, not where others look"))
    if len(names) > 1 and not loss.each:
        steps.append((setting.command("ablate", *names, *kind, "--each"), "each by itself"))
    if not loss.self_repair:
        plain = dataclasses.replace(setting, positions=None, metric="logit_difference")
        steps.append((plain.command("ablate", "--self-repair"), "whether later layers make up for a loss"))
    if names:
        steps.append(setting.opening("ablate", "ablation.json"))
    else:
        steps.append((setting.command("ablate", "heads", "--each"), "every head by itself"))
    return steps
