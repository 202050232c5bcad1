"""`circuits patch`: activation, edge and path patching."""

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
from circuits.cli.prompts import Behaviour, PromptOptions, positions_of
from circuits.cli.questions.patch import Patches
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import FileFormatError

FILES = {
    "effects.json": "every prompt's numbers; circuits patch --open shows them again",
    "effects.csv": "every effect with its interval",
    "effects.png": "the effects as a heatmap, or the largest as bars",
    "paths.png": "the largest ones drawn through the layers",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits patch` writes, and what for; paths.png for edges and paths alone."""


@app.command()
@with_setting("patch", memory=True)
def patch(
    context: Context,
    nodes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Nodes, sites or groups, with commas between them: a0.h1, m3, m3.n7, 'a0.h1<q>', resid2, heads, mlps, q, k, "
            "v, patterns, neurons, residual, attention, middle.",
            show_default="nodes: the input, all heads and MLPs",
        ),
    ] = None,
    edges: Annotated[
        str | None,
        typer.Option(metavar="NAMES|all", help="Edges instead, such as 'm0->m3,a0.h1->a2.h0<k>'.", show_default=False),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="A path instead: 'a0.h3,a1.h2<k>,logits'; repeatable.", show_default=False),
    ] = None,
    freeze_mlps: Annotated[bool, typer.Option("--freeze-mlps", help="On a path, hold MLPs as they were.")] = False,
    positions: Annotated[
        str | None,
        typer.Option(
            help="Where: each, last, subject_last, a place (negative from each prompt's own end), or several with commas "
            "between them.",
            show_default="all together",
        ),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            metavar="denoising|noising",
            help="Clean values into corrupt runs, or corrupt values into clean runs.",
            show_default="denoising; noising for a path",
        ),
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
    top: Annotated[int, typer.Option(min=1, help="Effects to print.")] = 12,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
) -> None:
    """Patch nodes, edges or paths, and see how far the answer moves.

    Two prompts that differ a little call for different answers. Denoising runs the corrupt prompt with one value taken from
    the clean one: is it enough to bring the clean answer back? Noising does the reverse: is it needed? An effect of 1 bridges
    the whole gap between the two, 0 nothing. Edges carry a value to one reader alone; a path, from reader to reader.

    \b
    Examples:
      circuits patch
      circuits patch --nodes residual --positions each
      circuits patch --task facts --nodes heads,mlps --positions subject_last
      circuits patch --edges all --count 8
      circuits patch --path 'a0.h4,a1.h3<v>,logits' --path 'a0.h5,a1.h3<k>,logits'
      circuits patch --clean "The capital of France is" \\
        --corrupt "The capital of Italy is" --answer " Paris" \\
        --distractor " Rome" --nodes residual --positions each
      circuits patch -m gpt2 --prompts ioi.csv --nodes heads --direction noising
      circuits patch --open out/patch-mini/effects.json --top 30
    """
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "distractor": distractor}
    rows = PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed, several=several, skip_bad=skip_bad)
    asked = Behaviour(prompts=rows, metric=metric)
    patches = Patches(nodes=nodes, edges=edges, paths=path or (), freeze_mlps=freeze_mlps, direction=direction)
    run(patches, asked, setting, positions=positions, top=top)


def run(patches: Patches, asked: Behaviour, setting: Setting, *, positions: str | None, top: int) -> None:
    """Patch, write the files, print the report."""
    from circuits.cli.reports.look import figures
    from circuits.cli.reports.measured import noted
    from circuits.cli.reports.patch import next_steps, patch_report, write

    patches.check()
    places = positions_of(positions)
    with setting.parts(FILES, expected=[name for name in FILES if name != "paths.png"]) as work:
        model, pairs, metric, look = asked.look(work, positions=positions is not None, show=False)  # names may be wrong
        options = {"positions": places, "budget": setting.budget, "seed": asked.prompts.seed, "progress": work.progress}
        about = figures(look, positions=positions is not None)
        effects = noted(patches.measure(model, pairs, metric, **options), asked.prompts, model, pairs, look=about)
        effects.save(work.staging / "effects.json")
        work.publish()
        write(effects, work.staging)
    setting.answer(patch_report(effects, work.written, top, next_steps(effects, asked, setting, positions)))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print saved effects again, and write their table and pictures beside them, or into the folder asked for."""
    from circuits.cli.reports.patch import patch_report, write

    effects = opened(circuits.patching.Effects, file)
    if not len(effects) or not len(effects.clean):
        raise FileFormatError(f"{file}: holds no effects")
    setting, files = written_again(effects, file, setting, write, FILES)
    setting.answer(patch_report(effects, files, top))
