"""`circuits features circuit`: the features that do a task, judged on prompts that they were not chosen on."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    AnySeed,
    Count,
    DictionaryAt,
    DictionaryPaths,
    MetricName,
    Open,
    PromptFile,
    Several,
    SkipBad,
    Task,
)
from circuits.cli.prompts import Behaviour, PromptOptions
from circuits.cli.questions.features import DictionaryFiles
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError, PromptError

FILES = {
    "feature-circuit.json": "the circuit with its verdict; circuits features circuit --open shows it again",
    "feature-circuit.csv": "faithfulness over the number of nodes",
    "feature-circuit.png": "the nodes, and what they keep beside random features",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits features circuit` writes, and what for."""


@app.command("features circuit")
@with_setting("features", memory=True)
def features_circuit(
    context: Context,
    files: DictionaryPaths = None,
    at: DictionaryAt = None,
    size: Annotated[int | None, typer.Option(min=1, help="Nodes of the circuit.", show_default="as few as keep --keep")] = None,
    keep: Annotated[float, typer.Option(min=0, max=1, help="Share of the behaviour to keep where it is chosen.")] = 0.8,
    errors: Annotated[bool, typer.Option(help="Whether what dictionaries leave over may be in it.")] = True,
    outside: Annotated[
        str, typer.Option(metavar="corrupt|mean", help="What nodes outside have: the corrupt prompts' values, or their mean.")
    ] = "corrupt",
    method: Annotated[
        str, typer.Option(metavar="METHOD", help="eap: the gradient on the clean run; default: its mean along the way.")
    ] = "eap-ig",
    steps: Annotated[int, typer.Option(min=1, help="Points of that mean.")] = 10,
    random_sets: Annotated[
        int, typer.Option("--random", min=0, help="Random sets of as many features that it is held against.")
    ] = 100,
    task: Task = None,
    prompts: PromptFile = None,
    count: Count = None,
    several: Several = None,
    skip_bad: SkipBad = False,
    metric: MetricName = "logit_difference",
    top: Annotated[int, typer.Option(min=1, help="Nodes to print.")] = 12,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
) -> None:
    """Find the features that do a task.

    Nodes are features and what dictionaries leave over. They are chosen by attribution on half of the prompts, as many as it
    takes to keep a share of the behaviour, and judged on the other half, run by themselves with all else as in the corrupt
    prompts: faithfulness, what the model keeps without them, as many random features, and faithfulness over sizes.

    \b
    Examples:
      circuits features circuit dictionary.safetensors --task facts
      circuits features circuit layers.2.mlp layers.3 --task ioi --count 128
      circuits features circuit sae_folder --size 20 --no-errors
      circuits features circuit --open out/features-mini/feature-circuit.json
    """
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    rows = PromptOptions(task=task, prompts=prompts, count=count, seed=seed, several=several, skip_bad=skip_bad)
    about: dict[str, Any] = {"size": size, "faithfulness": keep, "errors": errors, "outside": outside, "method": method}
    about |= {"steps": steps, "random_sets": random_sets, "seed": seed}
    run(DictionaryFiles(files=files or (), at=at), Behaviour(prompts=rows, metric=metric), setting, about, top=top)


def run(given: DictionaryFiles, asked: Behaviour, setting: Setting, about: dict[str, Any], *, top: int) -> None:
    """Find and judge, write the files, print the report."""
    from circuits.attribution.rules import feature_rule
    from circuits.cli.reports.feature_nodes import circuit_report, write_circuit

    feature_rule(about["method"])
    if about["outside"] not in ("corrupt", "mean"):
        raise CircuitsError(f"--outside is {about['outside']!r}: expected corrupt or mean")
    if not about["faithfulness"]:
        raise CircuitsError("--keep is 0: expected a share above 0, up to 1")
    asked.check(least=4)
    dictionaries = given.read()
    with setting.parts(FILES, below="circuit", options="--count, --memory") as work:
        model, pairs, metric, _ = asked.look(work, check=lambda model: given.check(model, dictionaries), least=4)
        half = len(pairs) // 2
        if half < 2:
            raise PromptError(f"{len(pairs)} prompts: expected 4 or more, half to choose on and half to judge on")
        found = circuits.concepts.find_feature_circuit(
            model,
            dictionaries,
            pairs[:half],
            metric,
            held_out=pairs[half:],
            **about,
            budget=setting.budget,
            progress=work.progress,
        )
        found = found.noted(source=asked.prompts.describe(), question=asked.prompts.question)
        found.save(work.staging / "feature-circuit.json")
        work.publish()
        write_circuit(found, work.staging)
    setting.answer(circuit_report(found, top, work.written, [setting.opening("feature-circuit.json", "circuit")]))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print a saved circuit again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.feature_nodes import circuit_report, write_circuit

    found = opened(circuits.concepts.FeatureCircuit, file)
    setting, files = written_again(found, file, setting, write_circuit, FILES)
    setting.answer(circuit_report(found, top, files))
