"""The commands `circuits patch` and `circuits ablate`: what they take and what they say of themselves."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import AsJson, Device, Dtype, ModelName, app
from circuits.cli.errors import Context, plain_errors, refuse_with_open

Task = Annotated[
    str | None,
    typer.Option(
        metavar="induction|ioi|greater-than|docstring|facts|gendered-pronoun|agreement",
        help="Prompts that are made for the model.",
        show_default="induction",
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Prompts of your own: EAP-IG CSV, AutoCircuit JSON, BLiMP JSONL, ROME or LRE JSON.",
        show_default=False,
    ),
]
Clean = Annotated[str | None, typer.Option(help="One pair of your own: the prompt.", show_default=False)]
Corrupt = Annotated[
    str | None, typer.Option(help="The prompt that calls for another answer, with as many tokens.", show_default=False)
]
Answer = Annotated[str | None, typer.Option(help="The clean prompt's answer, one token.", show_default=False)]
Distractor = Annotated[str | None, typer.Option(help="The corrupt prompt's answer, one token.", show_default=False)]
Count = Annotated[int | None, typer.Option(min=1, max=100_000, help="Prompts.", show_default="32; all of a file")]
MetricName = Annotated[
    str,
    typer.Option(
        metavar="logit_difference|log_probability|probability|rank|accuracy|kl",
        help="What is measured at the answer; kl: distance from the model's own answer to the clean prompt.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the prompts and of the intervals: the same seed gives the same files.")]
Memory = Annotated[int, typer.Option(metavar="MB", min=1, help="Memory that a pass may take, besides the model.")]
Open = Annotated[Path | None, typer.Option("--open", metavar="FILE", help="Show a saved result again; nothing is computed.")]


@app.command()
@plain_errors()
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
            help="Where: each, last, subject_last, a column (negative from the end), or several with commas between them.",
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
    metric: MetricName = "logit_difference",
    top: Annotated[int, typer.Option(min=1, help="Effects to print.")] = 12,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/patch-MODEL")] = None,
    open_file: Open = None,
    memory: Memory = 256,
    seed: Seed = 0,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
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
      circuits patch --clean "The capital of France is" --corrupt "The capital of Italy is" \\
        --answer " Paris" --distractor " Rome" --nodes residual --positions each
      circuits patch --model gpt2 --prompts ioi.csv --nodes heads --direction noising
      circuits patch --open out/patch-mini/effects.json --top 30
    """
    from circuits.cli.commands import patch as command
    from circuits.cli.measured import Setting
    from circuits.cli.prompts import PromptOptions

    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "distractor": distractor}
    asked = PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed)
    patches = command.Patches(nodes=nodes, edges=edges, paths=path or (), freeze_mlps=freeze_mlps, direction=direction)
    if open_file is not None:
        refuse_with_open(context, "top")
        command.reopen(open_file, out=out, top=top, as_json=as_json)
        return
    where = {"model": model, "device": device, "dtype": dtype, "memory": memory, "out": out}
    setting = Setting(prompts=asked, metric=metric, positions=positions, **where)
    command.run(patches, setting, top=top, as_json=as_json)


@app.command()
@plain_errors()
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
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/ablate-MODEL")] = None,
    open_file: Open = None,
    memory: Memory = 256,
    seed: Seed = 0,
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
      circuits ablate m2 m3 --task facts --metric probability --positions subject_last
      circuits ablate --self-repair --kind resample
      circuits ablate --open out/ablate-mini/ablation.json
    """
    from circuits.cli.commands import ablate as command
    from circuits.cli.measured import Setting
    from circuits.cli.prompts import PromptOptions, names_of

    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "distractor": distractor}
    asked = PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed)
    if open_file is not None:
        refuse_with_open(context)
        command.reopen(open_file, out=out, as_json=as_json)
        return
    names = [name for text in nodes or () for name in names_of(text)]
    loss = command.Loss(nodes=names, kind=kind, freeze_patterns=freeze_patterns, each=each, self_repair=self_repair)
    where = {"model": model, "device": device, "dtype": dtype, "memory": memory, "out": out}
    command.run(loss, Setting(prompts=asked, metric=metric, positions=positions, **where), as_json=as_json)
