"""`circuits classify amplify`: a small classifier's words as rationales in the prompt of a larger model."""

from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import ClassifierFile, LabelledCount, LabelledData, LabelledTests, LabelNames, Open, Seed
from circuits.cli.questions.classify import Labelled, asked_and_pool, classifier_of, labelled_of, larger_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.cli.text import one_line

FILES = {
    "amplified.json": "every answer; circuits classify amplify --open shows it again",
    "amplified.csv": "the same as a table",
    "amplified.png": "the same as a picture",
    "prompt.txt": "the texts as they are shown with their rationales",
}
"""What `circuits classify amplify` writes, and what for."""


@app.command("classify amplify")
@with_setting("classify", memory=True, long=False)
def classify_amplify(
    context: Context,
    classifier: ClassifierFile = None,
    data: LabelledData = None,
    test: LabelledTests = None,
    rename: LabelNames = None,
    count: LabelledCount = None,
    larger: Annotated[
        str | None,
        typer.Option(metavar="model:DIR|endpoint:URL", help="Who is asked. URL may end in #MODEL.", show_default="the model"),
    ] = None,
    asked: Annotated[int, typer.Option("--texts", min=1, help="Texts held out that are asked about.")] = 40,
    shots: Annotated[int, typer.Option(min=1, help="Texts of each class that are shown.")] = 4,
    words: Annotated[int, typer.Option(min=1, help="Words of each text in its rationale.")] = 3,
    method: Annotated[
        str, typer.Option(metavar="direct|integrated|gradient|attention|rollout", help="How the words are picked.")
    ] = "direct",
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Words as rationales for a larger model.

    The texts that the classifier gets wrong most confidently are shown to a larger model with their classes, each with the
    words that speak most for its class as a rationale; then it is asked for the classes of other texts. Beside it stand the
    same texts without rationales and with as many of their other words, drawn (AMPLIFY, Ma et al. 2023). The published gain is
    that of models much larger than those that fit here. What goes to a server is said before it goes; its key is read from
    OPENAI_API_KEY alone.

    \b
    Examples:
      circuits classify amplify
      circuits classify amplify --larger model:./SmolLM2-135M --texts 100
      circuits classify amplify --data sst2.tsv --rename 0=bad --rename 1=good
      circuits classify amplify --larger endpoint:http://127.0.0.1:8000/v1
      circuits classify amplify --open out/classify-mini/amplified.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    how = circuits.uses.Attributing(method=method)
    labelled = labelled_of(data, test or (), count=count, seed=seed, rename=rename or ())
    run(setting, labelled, classifier, larger, how, asked=asked, shots=shots, words=words, seed=seed)


def run(
    setting: Setting,
    labelled: Labelled,
    file: Path | None,
    larger: str | None,
    how: "circuits.uses.Attributing",
    *,
    asked: int,
    shots: int,
    words: int,
    seed: int,
) -> None:
    """Show, ask, write the files, print the report."""
    from circuits.cli.reports.classify_amplify import amplified_report, write
    from circuits.uses.attributing.prompted import PromptedEndpoint

    with setting.parts(FILES, below="amplify", options="--texts, --memory") as work:
        base = setting.load(work.progress)
        who, name = larger_of(larger, base)
        found = classifier_of(setting, file, labelled, seed=seed, progress=work.progress)
        judged, pool, named = asked_and_pool(labelled, found, asked, seed=seed)
        if isinstance(who, PromptedEndpoint):
            sent = f"{2 * shots} texts with labels and rationales, and {len(judged)} texts to classify, three times each"
            work.progress.say(f"To {one_line(who.endpoint.url)} go of {one_line(labelled.name)}: {sent}", err=True)
        options = {"shown": shots, "words": words, "how": how, "seed": seed, "budget": setting.budget}
        options |= {"name": name, "chosen_from": named, "progress": work.progress}
        result = circuits.uses.amplify(found, pool, judged, who, **options)
        result.save(work.staging / "amplified.json")
        work.publish()
        write(result, work.staging)
    setting.answer(amplified_report(result, work.written, [setting.opening("amplified.json", "amplify")]))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved answers again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.classify_amplify import amplified_report, write

    found = opened(circuits.uses.Amplified, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(amplified_report(found, files))
