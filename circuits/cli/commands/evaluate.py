"""`circuits evaluate`: the verdict on a circuit of any origin."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import check_at_least
from circuits.cli.options import (
    OUTSIDE,
    CircuitFile,
    MinimalityOf,
    NoMinimality,
    RandomCircuits,
    SearchMetric,
    Several,
    SkipBad,
    TaskOrFile,
)
from circuits.cli.prompts import Behaviour, task_or_file
from circuits.cli.questions.discover import minimality_named
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import CircuitsError, GraphError, PromptError

FILES = {
    "verdict.json": "faithfulness, random circuits, completeness, minimality",
    "verdict.csv": "the same as a table",
    "verdict.png": "the same, drawn",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits evaluate` writes, and what for."""

COUNT = 64
"""Pairs of a task, unless the command line says how many."""


@app.command()
@with_setting("evaluate", memory=True)
def evaluate(
    file: CircuitFile,
    task: TaskOrFile = "induction",
    outside: Annotated[
        str, typer.Option(metavar="corrupt|mean|zero", help="What edges outside the circuit carry.")
    ] = "corrupt",
    minimality: MinimalityOf = None,
    no_minimality: NoMinimality = False,
    count: Annotated[int | None, typer.Option(help="Pairs.", show_default="64; all of a file")] = None,
    several: Several = None,
    skip_bad: SkipBad = False,
    metric: SearchMetric = None,
    random_circuits: RandomCircuits = 128,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Seed of prompts and random circuits; give another than the search had."),
    ] = 1,
    *,
    setting: Setting,
) -> None:
    """Judge a circuit: faithful, complete, minimal, above chance?

    Faithfulness is 0 where the circuit does no better than no circuit, and 1 where it does as the whole model. Complete:
    circuit and model lose alike when sets of nodes are taken out of both. Minimal: every node is needed. The file may come
    from this package, from EAP-IG or from MIB.

    \b
    Examples:
      circuits evaluate out/discover-mini/circuit.json
      circuits evaluate ioi_circuit.mib.json --model gpt2 --task ioi
      circuits evaluate circuit.json --task facts --outside mean --no-minimality
    """
    if outside not in OUTSIDE:
        raise CircuitsError(f"--outside is {outside!r}; expected {', '.join(OUTSIDE)}")
    check_at_least("--random-circuits", random_circuits, 0)
    prompts = task_or_file(task, count=count, seed=seed, usual=COUNT, several=several, skip_bad=skip_bad)
    asked = Behaviour(prompts=prompts, metric=metric)
    how = {"minimality": minimality_named(minimality, no_minimality), "random_circuits": random_circuits}
    run(file, asked, setting, outside=outside, **how)


def run(file: Path, asked: Behaviour, setting: Setting, *, outside: str, minimality: Any, random_circuits: int) -> None:
    """Judge the circuit, write the files, print the report."""
    from circuits.cli.circuit_files import fitted
    from circuits.cli.output import save_figure
    from circuits.cli.reports.evaluate import evaluation_report
    from circuits.cli.reports.verdict import announced
    from circuits.files.unfinished import unfinished_run
    from circuits.graph.storage import load_counted

    asked.check()
    found = load_counted(file)
    setting.said.extend(filter(None, [unfinished_run(file)]))
    with setting.parts(FILES) as work:
        model, pairs, metric, look = asked.look(
            work,
            check=lambda model: check_graph(fitted(file, found, model.graph())[0], model, file),
            fits=lambda model, pairs: check_roles(found[0], pairs, model, file),
        )
        circuit, counts = fitted(file, found, model.graph())
        options: dict[str, Any] = {"seed": asked.prompts.seed, "budget": setting.budget, "progress": work.progress}
        options["expected"] = lambda time: announced(time, work)
        options |= {"outside": outside, "minimality": minimality, "random_circuits": random_circuits}
        setting.said.extend(filter(None, [found_elsewhere(circuit, model, file)]))
        verdict = circuits.evaluate(model, circuit, pairs, metric, found=lambda first: first_part(first, work), **options)
        verdict.save(work.staging / "verdict.json")
        verdict.to_dataframe().to_csv(work.staging / "verdict.csv", index=False)
        work.publish()
        save_figure(verdict.plot(), work.staging / "verdict.png")
    how = (model.name, outside, metric, look)
    setting.answer(evaluation_report(verdict, file, asked, setting, how, work.written, counts))


def first_part(verdict: "circuits.search.Verdict", work: Work) -> None:
    """Write and say what is known before nodes are taken out, which takes longest."""
    from circuits.cli.reports.verdict import judged

    verdict.save(work.staging / "verdict.json")
    work.publish(lacking="completeness, minimality")
    work.say(judged(verdict))


def found_elsewhere(circuit: "circuits.Circuit", model: "circuits.Model", file: Path) -> str:
    """In one line, that a circuit was found in a model of the same shape with other weights; nothing where it was not, or its
    file does not say."""
    found = circuit.metadata.get("weights_sha256")
    if not isinstance(found, str) or found == model.fingerprint:
        return ""
    name = circuit.metadata.get("model")
    where = "another model" if not isinstance(name, str) or name == model.name else name
    return f"{file}: this circuit was found in {where}, with other weights than {model.name} has; it is judged in {model.name}"


def check_roles(circuit: "circuits.Circuit", pairs: "circuits.PromptPairs", model: "circuits.Model", file: Path) -> None:
    """Raise PromptError, in words about the file, for prompts that lack a role of the circuit."""
    from circuits.search.judging.evaluate import with_roles_for

    try:
        with_roles_for(circuit, pairs, model)
    except PromptError as error:
        raise PromptError(f"{file}: {error}") from error


def check_graph(circuit: "circuits.Circuit", model: "circuits.Model", file: Path) -> None:
    """Raise GraphError, in words about the file, for a circuit of another graph than the model's, or without edges."""
    graph = model.graph(neurons=circuit.graph.neurons, roles=circuit.graph.roles)
    if circuit.graph != graph:
        shapes = [one.describe().splitlines()[0] for one in (circuit.graph, graph)]
        raise GraphError(f"{file}: the circuit is one of another graph ({shapes[0]}) than that of {model.name} ({shapes[1]})")
    if not len(circuit):
        raise GraphError(f"{file}: the circuit has no edges: there is nothing to judge")
