"""`circuits discover`: from prompts to a judged circuit."""

import dataclasses
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    MinimalityOf,
    NoMinimality,
    Open,
    RandomCircuits,
    SearchMetric,
    Seed,
    Several,
    SkipBad,
    TaskOrFile,
)
from circuits.cli.prompts import Behaviour, task_or_file
from circuits.cli.questions import repeated as repeated_search
from circuits.cli.questions.discover import COUNT, SPELLED, Search, level_named, level_with_roles, minimality_named
from circuits.cli.settings import Setting, with_setting

FILES = {
    "circuit.json": "the circuit; circuits.Circuit.load reads it",
    "circuit.mib.json": "the same nodes and edges for MIB and EAP-IG",
    "circuit.graphml": "for Gephi, yEd, Cytoscape, networkx",
    "circuit.dot": "for Graphviz: dot -Tsvg",
    "scores.json": "the score of every edge, of refine what it began with (negative supports); EdgeScores.load reads it",
    "edges.csv": "the circuit's edges with their scores",
    "tested.csv": "every edge that was patched exactly, confirmed or not",
    "verdict.json": "faithfulness, random circuits, completeness, minimality",
    "curve.json": "faithfulness of the strongest edges over sizes",
    "curve.csv": "the same as a table",
    "circuit.png": "the circuit, drawn by layer",
    "curve.png": "faithfulness over sizes, beside random circuits",
    "verdict.png": "the verdict, drawn",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits discover` writes, and what for; some with some options alone."""


def method_lines() -> list[tuple[str, str]]:
    """Every search method and what it does and takes, in a line each, for the help."""
    from circuits.search.methods.method import LEVELS
    from circuits.search.methods.table import DEFAULT, METHODS, OTHERWISE

    lines = []
    for method in METHODS.values():
        takes = [SPELLED[name] for name in method.options]
        takes += [SPELLED[level] for level in method.levels if level != LEVELS[0]]
        takes += [SPELLED["verify"]] if method.estimates else []
        takes += [] if method.gives_circuit else ["--by" if method.signed else "--by size"]
        usual = {DEFAULT: " (the default)", OTHERWISE: f" (taken where {DEFAULT} does not take what is asked)"}
        default = usual.get(method.name, "")
        lines.append((method.name, f"{method.summary}{default}{'; takes ' if takes else ''}{', '.join(takes)}"))
    return lines


class WithMethods(TyperCommand):
    """A command whose help lists the search methods."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options, then the methods: their table is loaded here, so that no other help waits for it."""
        super().format_options(ctx, formatter)
        with formatter.section("Methods"):
            formatter.write_dl(method_lines())


@app.command(cls=WithMethods)
@with_setting("discover", memory=True)
def discover(
    context: Context,
    task: TaskOrFile = "induction",
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How edges are found: see the methods below.", show_default="the one marked there"),
    ] = None,
    level: Annotated[
        str, typer.Option(metavar="heads|neurons", help="Whole MLPs, or their single neurons, where the method can.")
    ] = "heads",
    edges: Annotated[
        str | None,
        typer.Option(
            metavar="N|N%",
            help="Edges to keep, or their share of all such as 2%; with a method that cuts at a --threshold, where none is "
            "given, at most.",
            show_default="100, or 2% where that is more; 100 of neurons and with --verify",
        ),
    ] = None,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Edges between roles of tokens (S2, end): those of the task, of the file, or found."),
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="size|support",
            help="Of scored edges keep the strongest, or those that most support the metric. The latter overshoot: they leave "
            "out what is against it, and did 2 times what a model of 135M does with names swapped (docs/measured.md).",
            show_default="size",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Pairs; half of them are held out to judge on.", show_default=f"{COUNT}; all of a file")
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
    several: Several = None,
    skip_bad: SkipBad = False,
    metric: SearchMetric = None,
    random_circuits: RandomCircuits = 128,
    minimality: MinimalityOf = None,
    no_minimality: NoMinimality = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Search with so many seeds, on other samples of the prompts: which edges return, beside chance?",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="halves|parts|bootstrap|all",
            help="With --seeds, what each searches on: two random halves of the prompts, some of its own, some drawn with "
            "replacement, all.",
            show_default="halves",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="With --seeds, also another model of the same shape; several times.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Find the circuit behind a task, and judge it on other prompts.

    Edges are scored on half of the prompts; those are kept, all on paths from input to logits, that together come nearest to
    the model (refine), or the strongest. On the other half the circuit runs by itself: how much of the behaviour does it keep
    (faithfulness), more than random circuits of as many edges (p), what does it miss (completeness), what could it do without
    (minimality)? Proven: p at most 0.05, and at
    least half of the behaviour with the whole 95 % interval, on five prompts or more that share nothing (pairs that share a
    prompt count as one, and stay in one half).

    With --seeds the search is repeated instead: which edges return, how far the circuits meet, beside chance, and what the
    edges that hold keep by themselves.

    \b
    Examples:
      circuits discover
      circuits discover --task facts --edges 200 --verify
      circuits discover --task ioi:swap --edges 0.6%
      circuits discover --model gpt2 --task ioi --method eap-ig --edges 200
      circuits discover --task greater-than --level neurons --edges 500
      circuits discover --task docstring --method acdc --edges 50 --count 16
      circuits discover --task ioi --roles --edges 200
      circuits discover --task ioi.csv --method exact --json
      circuits discover --task ioi --method eap --seeds 5
      circuits discover --open out/discover-mini/stability.json
    """
    how = {"size": edges, "by": by, "steps": steps, "threshold": threshold, "verify": verify}
    how |= {"random_circuits": random_circuits, "minimality": minimality_named(minimality, no_minimality)}
    if open_file is not None:
        refuse_with_open(context)
        repeated_search.reopen(open_file, setting)
        return
    search = Search(name=method, level=level_with_roles(level_named(level), roles), **how)
    search.check(metric)
    repeated = repeated_search.Repeated(seeds=seeds, sample=sample, against=tuple(against or ()))
    repeated.check()
    prompts = task_or_file(task, count=count, seed=seed, usual=COUNT, several=several, skip_bad=skip_bad)
    asked = Behaviour(prompts=prompts, metric=metric)
    if repeated.seeds is None:
        run(search, asked, setting)
    else:
        repeated_search.run(repeated, search, asked, setting)


def run(search: Search, asked: Behaviour, setting: Setting) -> None:
    """Search, judge, write the files, print the report."""
    from circuits.cli.reports.discover import discovery_report, write
    from circuits.cli.reports.discover_parts import DiscoveryParts, noted
    from circuits.cli.reports.look import figures
    from circuits.cli.reports.verdict import announced, named
    from circuits.search.discover import split
    from circuits.tasks.roles import required_roles, role_tokens

    asked.check(least=2)
    with setting.parts(FILES, expected=expected(search)) as work:
        checks: dict[str, Any] = {"fits": search.sized_between} if search.roles else {"check": search.sized}
        model, pairs, metric, look = asked.look(work, **checks, least=2)
        pairs = required_roles(pairs, causal=model.weights.causal) if search.roles else pairs
        search = search.sized_between(model, pairs) if search.roles else search.sized(model)
        pairs, held_out = split(pairs, asked.prompts.seed)
        measured = {"model": model.name, "metric": named(metric)}
        measured |= {"prompts_searched": len(pairs), "prompts_held_out": len(held_out), "look": figures(look)}
        options = {"seed": asked.prompts.seed, "budget": setting.budget, "progress": work.progress}
        options["expected"] = lambda time: announced(time, work)
        tokens = role_tokens(model, pairs) if search.roles else None
        options["found"] = DiscoveryParts(work, search, asked, measured, tokens).add
        found = search.run(model, pairs, metric, held_out, **options)
        circuit = noted(found.circuit, found.verdict, search, asked, tokens)
        found = dataclasses.replace(found, circuit=circuit)
        write(found, work.staging, f"{asked.prompts.name} in {model.name}: circuit by {search.describe(found.circuit)}")
    setting.answer(discovery_report(found, search, asked, setting, measured, work.written))


def expected(search: Search) -> list[str]:
    """The files that a search writes, as far as its options say."""
    from circuits.cli.reports.discover_parts import CURVE

    without = ["circuit.mib.json", "scores.json", *CURVE] if search.neurons else []
    without += ["circuit.mib.json", *CURVE] if search.roles else []
    return [name for name in FILES if name not in (*without, *([] if search.verify else ["tested.csv"]))]
