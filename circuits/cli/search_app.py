"""The commands that find circuits, judge and compare them: what they take and what they say of themselves."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from circuits.cli.app import AsJson, CircuitFile, Device, Dtype, ModelName, app
from circuits.cli.errors import plain_errors
from circuits.cli.patching_app import Memory

_TASKS = "ioi|greater-than|docstring|induction|facts|facts:RELATION|gendered-pronoun|agreement|FILE"
Task = Annotated[
    str,
    typer.Option(
        metavar=_TASKS,
        help="Prompts that are made for the model, or a file: EAP-IG CSV, AutoCircuit JSON, BLiMP JSONL, ROME or LRE JSON.",
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        metavar="logit_difference|log_probability|probability",
        help="What is measured at the answer.",
        show_default="the task's own; logit_difference for a file",
    ),
]
RandomCircuits = Annotated[int, typer.Option(help="Random circuits of as many edges that it is held against; 0 = none.")]


class WithMethods(TyperCommand):
    """A command whose help lists the search methods."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options, then the methods: their table is loaded here, so that no other help waits for it."""
        from circuits.cli.commands.discover import method_lines

        super().format_options(ctx, formatter)
        with formatter.section("Methods"):
            formatter.write_dl(method_lines())


@app.command(cls=WithMethods)
@plain_errors()
def discover(
    task: Task = "induction",
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How edges are found: see the methods below.", show_default="the one marked there"),
    ] = None,
    level: Annotated[
        str, typer.Option(metavar="heads|neurons", help="Whole MLPs, or their single neurons, where the method can.")
    ] = "heads",
    edges: Annotated[
        int, typer.Option(help="Edges to keep; with a method that cuts at a --threshold, where none is given, at most.")
    ] = 100,
    count: Annotated[
        int | None, typer.Option(help="Pairs; half of them are held out to judge on.", show_default="64; all of a file")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Points on the way from corrupt to clean.", show_default="the method's own")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="What an edge must cost to be kept, in nats.", show_default="chosen by --edges"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Patch the found edges exactly, also where others could stand in; keep what holds.")
    ] = False,
    metric: MetricName = None,
    random_circuits: RandomCircuits = 128,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/discover-MODEL")] = None,
    memory: Memory = 256,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn: the same seed gives the same files.")] = 0,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Find the circuit behind a task, and judge it on prompts it was not searched on.

    Edges are scored on half of the prompts and the strongest that lie on paths from input to logits are kept. On the other
    half the circuit runs by itself: how much of the behaviour does it keep (faithfulness), more than random circuits of as
    many edges (p), what does it miss (completeness), what could it do without (minimality)? Proven: p at most 0.05, and at
    least half of the behaviour with the whole 95 % interval.

    \b
    Examples:
      circuits discover
      circuits discover --task facts --edges 200 --verify
      circuits discover --model gpt2 --task ioi --method eap-ig --edges 200
      circuits discover --model gpt2 --task greater-than --level neurons --edges 500
      circuits discover --task docstring --method acdc --edges 50 --count 16
      circuits discover --task ioi.csv --method exact --json
    """
    from circuits.cli.asked import Asked
    from circuits.cli.commands import discover as command

    asked = Asked(
        model=model, device=device, dtype=dtype, task=task, count=count, metric=metric, seed=seed, memory=memory, out=out
    )
    search = command.Search(
        method=command.method_named(method),
        level=command.level_named(level),
        edges=edges,
        steps=steps,
        threshold=threshold,
        verify=verify,
        random_circuits=random_circuits,
    )
    command.run(search, asked, as_json=as_json)


@app.command()
@plain_errors()
def evaluate(
    file: CircuitFile,
    task: Task = "induction",
    outside: Annotated[
        str, typer.Option(metavar="corrupt|mean|zero", help="What edges outside the circuit carry.")
    ] = "corrupt",
    no_minimality: Annotated[
        bool, typer.Option("--no-minimality", help="Do not ask of each node whether it is needed; quicker.")
    ] = False,
    count: Annotated[int | None, typer.Option(help="Pairs.", show_default="64; all of a file")] = None,
    metric: MetricName = None,
    random_circuits: RandomCircuits = 128,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/evaluate-MODEL")] = None,
    memory: Memory = 256,
    seed: Annotated[int, typer.Option(help="Seed of prompts and random circuits; give another than the search had.")] = 1,
    model: ModelName = "mini",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Judge a circuit from any source on prompts: faithful, complete, minimal, better than chance?

    Faithfulness is 0 where the circuit does no better than no circuit, and 1 where it does as the whole model. Complete:
    circuit and model lose alike when sets of nodes are taken out of both. Minimal: every node is needed. The file may come
    from this package, from EAP-IG or from MIB.

    \b
    Examples:
      circuits evaluate out/discover-mini/circuit.json
      circuits evaluate ioi_circuit.mib.json --model gpt2 --task ioi
      circuits evaluate circuit.json --task facts --outside mean --no-minimality
    """
    from circuits.cli.asked import Asked
    from circuits.cli.commands import evaluate as command

    asked = Asked(
        model=model, device=device, dtype=dtype, task=task, count=count, metric=metric, seed=seed, memory=memory, out=out
    )
    command.run(file, asked, outside=outside, minimality=not no_minimality, random_circuits=random_circuits, as_json=as_json)


@app.command()
@plain_errors()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A circuit: .json or .mib.json.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same graph.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder for compare.csv.", show_default="no file")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two circuits edge by edge and node by node.

    \b
    Examples:
      circuits compare out/discover-mini/circuit.json out/discover-mini-exact/circuit.json
      circuits compare mine.json theirs.mib.json --out out/compare --json
    """
    from circuits.cli.commands import compare as command

    command.run(a, b, out=out, as_json=as_json)
