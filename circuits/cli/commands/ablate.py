"""`circuits ablate`: what nodes are worth, and whether later layers make up for their loss."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    Answer,
    AnySeed,
    Clean,
    Corrupt,
    Count,
    Distractor,
    MetricName,
    Open,
    PromptFile,
    Several,
    SkipBad,
    Task,
)
from circuits.cli.prompts import Behaviour, PromptOptions, names_of, positions_of
from circuits.cli.questions.ablate import AblateQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import FileFormatError

FILES = {
    "ablation.json": "every prompt's numbers; circuits ablate --open shows them again",
    "ablation.csv": "every change with its interval",
    "ablation.png": "the changes as bars",
    "self_repair.csv": "direct effect, total effect and compensation by layer",
    "self_repair.png": "the same as bars",
}
"""What `circuits ablate` writes, and what for; self_repair with --self-repair alone."""


@app.command()
@with_setting("ablate", memory=True)
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
        str | None,
        typer.Option(help="Where: last, subject_last, or a place (-1: the last).", show_default="everywhere"),
    ] = None,
    task: Task = None,
    prompts: PromptFile = None,
    clean: Clean = None,
    corrupt: Corrupt = None,
    answer: Answer = None,
    distractor: Distractor = None,
    count: Count = None,
    several: Several = None,
    skip_bad: SkipBad = False,
    metric: MetricName = "logit_difference",
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
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
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "distractor": distractor}
    rows = PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed, several=several, skip_bad=skip_bad)
    asked = Behaviour(prompts=rows, metric=metric)
    names = [name for text in nodes or () for name in names_of(text)]
    loss = AblateQuestion(nodes=names, kind=kind, freeze_patterns=freeze_patterns, each=each, self_repair=self_repair)
    run(loss, asked, setting, positions=positions)


def run(loss: AblateQuestion, asked: Behaviour, setting: Setting, *, positions: str | None) -> None:
    """Ablate, write the files, print the report."""
    from circuits.cli.reports.ablate import ablate_report, next_steps, write
    from circuits.cli.reports.measured import noted

    loss.check(positions)
    places = positions_of(positions)
    wanted = {"ablation": bool(loss.nodes), "self_repair": loss.self_repair}
    with setting.parts(FILES, expected=[name for name in FILES if wanted[name.partition(".")[0]]]) as work:
        model, pairs, metric = asked.prepare(setting, work.progress)
        options = {"positions": places, "seed": asked.prompts.seed, "budget": setting.budget}
        found = loss.measure(model, pairs, metric, work.progress, **options) if loss.nodes else None
        if found is not None:
            found = noted(found, asked.prompts, model, pairs)
            found.save(work.staging / "ablation.json")
            work.publish()
        repair = loss.repair(model, pairs, work.progress)
        write(found, repair, work.staging, f"Self-repair by layer of {model.name}")
    where = f"{len(pairs)} prompts ({asked.prompts.describe()})"
    repaired = f"{model.name}: layers replaced ({loss.kind}) in clean runs, effect on the logit difference; {where}"
    steps = next_steps(loss, asked, setting, positions)
    setting.answer(ablate_report(found, repair, repaired, work.written, steps))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved ablation again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.ablate import ablate_report, write

    found = opened(circuits.patching.Ablation, file)
    if not len(found) or not len(found.whole):
        raise FileFormatError(f"{file}: holds no ablation")
    setting, files = written_again(found, file, setting, lambda found, folder: write(found, [], folder, ""), FILES)
    setting.answer(ablate_report(found, [], "", files))
