"""`circuits ablate`: what nodes are worth, and whether later layers make up for their loss."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.commands.patch import check_names
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    Answer,
    AnySeed,
    AsJson,
    Clean,
    Corrupt,
    Count,
    Device,
    Distractor,
    Dtype,
    Memory,
    MetricName,
    ModelName,
    Open,
    PromptFile,
    Task,
    folder,
)
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import Behaviour, PromptOptions, names_of, positions_of
from circuits.cli.report import written
from circuits.cli.settings import Setting
from circuits.errors import CircuitsError, FileFormatError

FILES = {
    "ablation.json": "every prompt's numbers; circuits ablate --open shows them again",
    "ablation.csv": "every change with its interval",
    "ablation.png": "the changes as bars",
    "self_repair.csv": "direct effect, total effect and compensation by layer",
    "self_repair.png": "the same as bars",
}
"""What `circuits ablate` writes, and what for; self_repair with --self-repair alone."""

KINDS = ("zero", "mean", "resample", "noise", "optimal")
REPAIR_KINDS = ("zero", "mean", "resample")


@app.command()
def ablate(
    context: Context,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="NODES", help="Nodes, sites or groups, such as a0.h5 m2 heads.", show_default=False),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            metavar="zero|mean|resample|noise|optimal",
            help="What stands in for them: 0; the mean over the corrupt prompts; the value of the corrupt prompt; their own "
            "value with noise as large as they are; the constant that hurts least.",
        ),
    ] = "mean",
    freeze_patterns: Annotated[
        bool, typer.Option("--freeze-patterns", help="Hold attention patterns: only what nodes write changes.")
    ] = False,
    each: Annotated[bool, typer.Option("--each", help="Each node by itself instead of all together.")] = False,
    self_repair: Annotated[
        bool, typer.Option("--self-repair", help="Also ablate layer by layer: do later layers make up for the loss?")
    ] = False,
    positions: Annotated[
        str | None, typer.Option(help="Where: last, subject_last, or a column.", show_default="everywhere")
    ] = None,
    task: Task = None,
    prompts: PromptFile = None,
    clean: Clean = None,
    corrupt: Corrupt = None,
    answer: Answer = None,
    distractor: Distractor = None,
    count: Count = None,
    metric: MetricName = "logit_difference",
    out: Annotated[Path | None, folder("ablate")] = None,
    open_file: Open = None,
    memory: Memory = 256,
    seed: AnySeed = 0,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Take nodes out of the model, and see what that costs.

    The change is the metric without the nodes minus the metric of the whole model: negative where they were helping. Small
    changes can hide nodes that matter, where others stand in for them: ablate sets, and look at --self-repair (direct: what a
    layer adds to the logit difference itself; total: what is lost without it; compensation: what later layers add instead).

    \b
    Examples:
      circuits ablate a0.h5 a0.h6
      circuits ablate a0.h5 a0.h6 --freeze-patterns
      circuits ablate heads --each --kind zero
      circuits ablate m2 m3 --task facts --positions subject_last
      circuits ablate --self-repair --kind resample
      circuits ablate --open out/ablate-mini/ablation.json
    """
    setting = Setting(job="ablate", model=model, device=device, dtype=dtype, memory=memory, out=out, as_json=as_json)
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "distractor": distractor}
    asked = Behaviour(prompts=PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed), metric=metric)
    names = [name for text in nodes or () for name in names_of(text)]
    loss = Loss(nodes=names, kind=kind, freeze_patterns=freeze_patterns, each=each, self_repair=self_repair)
    run(loss, asked, setting, positions=positions)


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
        if self.kind not in KINDS:
            raise CircuitsError(f"unknown kind of ablation {self.kind!r}: expected {', '.join(KINDS)}")
        if self.self_repair and self.kind not in REPAIR_KINDS:
            raise CircuitsError(f"--self-repair ablates by {', '.join(REPAIR_KINDS)}, not by {self.kind}")

    def measure(
        self, model: "circuits.Model", pairs: "circuits.PromptPairs", metric: Any, progress: ProgressBars, **options: Any
    ) -> "circuits.patching.Ablation":
        """Take the nodes out. Raises GraphError for names that the model lacks."""
        import torch

        from circuits.patching.engine.sites import find_sites

        check_names(model, self.nodes)
        sets = [[site.name] for site in find_sites(model, self.nodes)] if self.each else [list(self.nodes)]
        options |= {"kind": self.kind, "freeze_patterns": self.freeze_patterns}
        if self.kind != "optimal":
            return circuits.ablate(model, pairs, metric, sets, progress=progress, **options)
        found: list[circuits.patching.Ablation] = []
        for place, one in enumerate(sets):  # each takes a while, so that progress is worth showing
            progress("finding optimal constants", place, len(sets))
            found.append(circuits.ablate(model, pairs, metric, [one], **options))
        progress("finding optimal constants", len(sets), len(sets))
        names = tuple(name for one in found for name in one.names)
        return dataclasses.replace(found[0], names=names, scores=torch.cat([one.scores for one in found]))

    def repair(
        self, model: "circuits.Model", pairs: "circuits.PromptPairs", progress: ProgressBars
    ) -> "list[circuits.patching.SelfRepair]":
        """The self-repair reports, of attention and of MLPs where there are some; none where none was asked for."""
        if not self.self_repair:
            return []
        parts = ["attention", "mlp"] if model.d_mlp else ["attention"]
        options: list[dict[str, Any]] = [{"part": part, "kind": self.kind} for part in parts]
        return [circuits.self_repair(model, pairs, progress=progress, **one) for one in options]


def run(loss: Loss, asked: Behaviour, setting: Setting, *, positions: str | None) -> None:
    """Ablate, write the files, print the report."""
    from circuits.cli.reports.ablate import ablate_report, next_steps, write
    from circuits.cli.reports.measured import noted

    loss.check(positions)
    places = positions_of(positions)
    with setting.work() as (staging, progress):
        model, pairs, metric = asked.prepare(setting, progress)
        options = {"positions": places, "seed": asked.prompts.seed, "budget": setting.budget}
        found = loss.measure(model, pairs, metric, progress, **options) if loss.nodes else None
        repair = loss.repair(model, pairs, progress)
        if found is not None:
            found = noted(found, asked.prompts, model, pairs)
            found.save(staging / "ablation.json")
        write(found, repair, staging, f"Self-repair by layer of {model.name}")
        files = written(staging, FILES)
    where = f"{len(pairs)} prompts ({asked.prompts.describe()})"
    repaired = f"{model.name}: layers replaced ({loss.kind}) in clean runs, effect on the logit difference; {where}"
    steps = next_steps(loss, asked, setting, positions)
    setting.answer(ablate_report(found, repair, repaired, files, steps))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved ablation again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.ablate import ablate_report, write

    found, setting = circuits.patching.Ablation.load(file), setting.beside(file)
    if not len(found) or not len(found.whole):
        raise FileFormatError(f"{file}: holds no ablation")
    with setting.work() as (staging, _):
        write(found, [], staging, "")
        files = written(staging, FILES)
    setting.answer(ablate_report(found, [], "", files))
