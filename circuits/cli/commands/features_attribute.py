"""`circuits features attribute`: what an answer, or another feature, owes to each feature."""

from pathlib import Path
from typing import Annotated, Any

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
    DictionaryAt,
    DictionaryPaths,
    Distractor,
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

FILES = {
    "features.json": "every kept node's numbers; circuits features attribute --open shows them again",
    "features.csv": "the same as a table",
    "features.png": "the largest, estimated and measured, and at which tokens",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits features attribute` writes, and what for."""


@app.command("features attribute")
@with_setting("features", memory=True)
def features_attribute(
    context: Context,
    files: DictionaryPaths = None,
    at: DictionaryAt = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FEATURE", help="Another feature in place of the answer, such as resid3.f12.", show_default="the answer"
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="METHOD", help="eap: the gradient on the clean run; default: its mean along the way.")
    ] = "eap-ig",
    steps: Annotated[int, typer.Option(min=1, help="Points of that mean.")] = 10,
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
    keep: Annotated[int, typer.Option(min=1, help="Nodes to keep, those of largest score.")] = 200,
    exact: Annotated[int, typer.Option(min=0, help="Of how many of them the effect is also measured.")] = 20,
    top: Annotated[int, typer.Option(min=1, help="Nodes to print.")] = 12,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
) -> None:
    """See what the answer owes to each feature.

    A dictionary takes what stands at a place of the model apart into features and an error, which add up to it exactly. By
    how much would the answer move if one of these took its value from the corrupt prompt? To first order for all, from the
    gradient; the largest are measured too. With --to: by how much another feature would.

    \b
    Examples:
      circuits features attribute dictionary.safetensors --task facts
      circuits features attribute sae_folder -m /models/smollm --task ioi
      circuits features attribute layers.2.mlp layers.3 --to resid4.f12
      circuits features attribute --open out/features-mini/features.json
    """
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "distractor": distractor}
    rows = PromptOptions(task=task, prompts=prompts, **texts, count=count, seed=seed, several=several, skip_bad=skip_bad)
    asked = Behaviour(prompts=rows, metric=metric)
    about: dict[str, Any] = {"to": to, "method": method, "steps": steps, "keep": keep, "exact": exact, "seed": seed}
    run(DictionaryFiles(files=files or (), at=at), asked, setting, about, top=top)


def run(given: DictionaryFiles, asked: Behaviour, setting: Setting, about: dict[str, Any], *, top: int) -> None:
    """Attribute, write the files, print the report."""
    from circuits.attribution.rules import feature_rule
    from circuits.cli.reports.feature_nodes import scores_report, write_scores
    from circuits.cli.reports.look import figures

    feature_rule(about["method"])
    asked.check()
    dictionaries = given.read()
    with setting.parts(FILES, below="attribute", options="--count, --memory") as work:
        model, pairs, metric, look = asked.look(work, check=lambda model: given.check(model, dictionaries, about["to"]))
        found = circuits.concepts.attribute_features(
            model, dictionaries, pairs, metric, **about, budget=setting.budget, progress=work.progress
        )
        found = found.noted(source=asked.prompts.describe(), question=asked.prompts.question, look=figures(look))
        found.save(work.staging / "features.json")
        work.publish()
        write_scores(found, work.staging)
    best = next((name for name in found.names if ".f" in name), None)
    steps = [setting.opening("features.json", "attribute")]
    if best is not None and len(given.files) == 1:
        number = best.partition(".f")[2]
        again = setting.command("features", "dictionary", str(given.files[0]), "--feature", number, *given.again)
        steps.insert(0, (again, f"what {best} looks for and writes"))
    setting.answer(scores_report(found, top, work.written, steps))


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print saved scores again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.feature_nodes import scores_report, write_scores

    found = opened(circuits.concepts.FeatureScores, file)
    setting, files = written_again(found, file, setting, write_scores, FILES)
    setting.answer(scores_report(found, top, files))
