"""`circuits recall`: the search for a factual-recall circuit."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context
from circuits.cli.options import Seed, SkipBad, repeated
from circuits.cli.prompts import facts_of
from circuits.cli.settings import Setting, with_setting
from circuits.cli.starting import announce
from circuits.errors import CircuitsError

if TYPE_CHECKING:
    from circuits.tasks import Fact, PromptPairs

FILES = {
    "circuit.json": "the circuit with all its evidence; circuits.Circuit.load reads it",
    "circuit.graphml": "for Gephi, yEd, Cytoscape, networkx",
    "circuit.dot": "for Graphviz: dot -Tsvg",
    "sites.csv": "what the clean residual stream brings back, by position and layer",
    "sites.json": "the same, with every prompt's numbers; circuits patch --open shows it",
    "circuit.png": "the circuit, drawn by layer",
}


@app.command()
@with_setting("recall", memory=True)
def recall(
    context: Context,
    facts: Annotated[
        Path | None,
        typer.Option(
            help="Facts of a file: ROME's known_1000.json, CounterFact, LRE, or word pairs.", show_default="those of mini"
        ),
    ] = None,
    skip_bad: SkipBad = False,
    count: Annotated[int, typer.Option(min=2, max=100_000, help="Pairs of facts that effects are measured on.")] = 32,
    min_effect: Annotated[
        float,
        typer.Option(
            help="Share of the clean-corrupt gap that an edge must cost by itself; lower finds more, and takes longer."
        ),
    ] = 0.03,
    forwards: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Plain forwards over the pairs that all may take, about; nodes and edges of the largest estimates come first.",
            show_default="40 in models of more than 64 heads, no limit in smaller ones",
        ),
    ] = None,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Find the circuit that recalls facts.

    It is made of positions, heads and single neurons. Each fact is paired with another one of its relation, in the same
    words. The search goes backwards from the logits and takes an edge where patching it alone, exactly, costs enough of the
    difference between the two answers; neurons are screened by gradient and verified by patching. In a model of many heads
    these are screened too, and so are edges, and the search ends after so many --forwards. The found nodes are ablated
    together, beside random sets of as many.

    \b
    Examples:
      circuits recall
      circuits recall --model gpt2 --facts known_1000.json --count 64
      circuits recall --min-effect 0.1 --json
    """
    if not 0 < min_effect < float("inf"):
        raise CircuitsError(f"--min-effect is {min_effect}; expected a share of the gap above 0, such as 0.03")
    if skip_bad and facts is None:
        raise CircuitsError("--skip-bad is about rows of a file: it needs --facts")
    said = repeated(context, "min_effect")
    asked = None if facts is None else facts_of(facts, setting, skip_bad=skip_bad)
    run(setting, asked, count=count, min_effect=min_effect, forwards=forwards, seed=seed, said=said)


def run(
    setting: Setting,
    facts: "Sequence[Fact] | None",
    *,
    count: int,
    min_effect: float,
    forwards: float | None,
    seed: int,
    said: Sequence[str],
) -> None:
    """Find the circuit, write the files, print the report; `said`: how to ask for the same again."""
    from circuits.cli.reports.recall import recall_parts, recall_report, write
    from circuits.search.mechanisms.recall_search import Effort
    from circuits.tasks import fact_pairs, mini_facts

    asked = mini_facts() if facts is None else facts
    with setting.parts(FILES) as work:
        model = setting.load(work.progress)
        pairs = fact_pairs(model, asked, count=count, seed=seed)
        tokens = int(pairs.clean.mask.sum() + pairs.corrupt.mask.sum())
        announce(work.progress, model, "pairs of facts", len(pairs), tokens, budget=setting.budget)
        effort = Effort.of(model, None, None, forwards)
        if effort.screens:
            work.progress.say(_announced(model, pairs, effort.forwards), err=True)
        options: dict[str, Any] = {"min_effect": min_effect, "most_forwards": effort.forwards, "seed": seed}
        options |= {"budget": setting.budget}
        options |= {"progress": work.progress, "found": recall_parts(work)}
        circuit = circuits.find_factual_recall_circuit(model, pairs, **options)
        write(circuit, work.staging)
    setting.answer(recall_report(circuit, work.written, setting, said))


_ALL = 10_000
"""So many forwards are no limit on what is found: how long that takes, nobody can say beforehand."""


def _announced(model: "circuits.Model", pairs: "PromptPairs", forwards: float) -> str:
    """What is searched where forwards are counted, how long that takes, by the time of one run of the clean prompts, and what
    makes it less."""
    import torch

    from circuits.files.words import duration

    with torch.no_grad():
        began = time.perf_counter()
        model.run(pairs.clean, keep="logits")
        forward = 2 * (time.perf_counter() - began)
    heads, neurons = model.n_layers * model.n_heads, model.n_layers * model.d_mlp
    if not forwards < _ALL:
        return (
            f"recall: {heads:,} heads, {neurons:,} neurons and all edges between those that matter are tested, without a limit"
        )
    return (
        f"recall: of {heads:,} heads, {neurons:,} neurons and edges between them those of the largest estimates are tested, "
        f"within some {forwards:g} plain forwards over {len(pairs)} pairs, {forward:.1f} s each: about "
        f"{duration(forwards * forward)}; less with a smaller --forwards or --count"
    )
