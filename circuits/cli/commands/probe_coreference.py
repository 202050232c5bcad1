"""`circuits probe coreference`: what pronouns refer to, read off how like they are to the words before them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import KeepActivations, Open, Pooled, ProbeLayers, ProbeSites, ProbeWords, RandomWeights
from circuits.cli.questions.probe import activations_folder, places_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import PromptError

FILES = {
    "coreference.json": "every place beside its baselines; circuits probe coreference --open shows it again",
    "coreference.csv": "the same as a table",
    "coreference.png": "the same as a picture",
}
"""What `circuits probe coreference` writes, and what for."""


@app.command("probe coreference")
@with_setting("probe", memory=True)
def probe_coreference(
    context: Context,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", help="CoNLL-U with Entity= in MISC (CorefUD).", show_default="made by a small grammar"
        ),
    ] = None,
    layers: ProbeLayers = None,
    sites: ProbeSites = None,
    pooling: Pooled = "last",
    words: ProbeWords = 25_000,
    passage: Annotated[int, typer.Option(min=1, help="Put sentences of a document together up to so many words.")] = 60,
    rank: Annotated[int, typer.Option(min=1, help="Directions of the maps at most.")] = 32,
    epochs: Annotated[int, typer.Option(min=1, help="How often each pronoun is trained on at most.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many times passages are split and maps drawn.")] = 3,
    random_weights: RandomWeights = True,
    keep: KeepActivations = None,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Read off what pronouns refer to.

    At each place two maps are learnt, so that a pronoun is most like the words that mean the same as it, among all nouns, names
    and pronouns before it (Sorodoc et al. 2020); it is judged on other passages. Beside it stand the nearest noun, a candidate
    drawn at random, the embeddings, and the same architecture with random weights.

    \b
    Examples:
      circuits probe coreference
      circuits probe coreference --data en_gum-corefud-dev.conllu -m gpt2
      circuits probe coreference --layers 0,2,4 --rank 8
      circuits probe coreference --open out/probe-mini/coreference.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if pooling not in ("last", "mean"):
        raise PromptError(f"--pooling {pooling}: expected last or mean")
    where: dict[str, Any] = {"sites": places_of(layers, sites), "pooling": pooling, "words": words, "passage": passage}
    how: dict[str, Any] = {"rank": rank, "epochs": epochs, "seeds": seeds, "random_weights": random_weights}
    made = circuits.tasks.coreference_sentences() if data is None else circuits.tasks.read_conllu(data)
    if not any("Entity=" in word.misc for sentence in made for word in sentence.words):
        raise PromptError(f"{data}: no word has Entity= in MISC, as CorefUD marks mentions")
    run(made, setting, keep, {**where, **how})


def run(sentences: "Sequence[circuits.tasks.Sentence]", setting: Setting, keep: Path | None, options: dict[str, Any]) -> None:
    """Probe, write the files, print the report."""
    from circuits.cli.reports.probe_coreference import coreference_report, write

    with setting.parts(FILES, below="coreference", options="--words, --memory") as work, activations_folder(keep) as folder:
        model = setting.load(work.progress)
        about: dict[str, Any] = {"folder": folder, "budget": setting.budget, "progress": work.progress}
        about["found"] = lambda part: _note(part, work)
        found = circuits.probes.probe_coreference(model, sentences, **options, **about)
        found.save(work.staging / "coreference.json")
        work.publish()
        write(found, work.staging)
    setting.answer(coreference_report(found, work.written, [setting.opening("coreference.json", "coreference")]))


def _note(found: "circuits.probes.CoreferenceProbes", work: Work) -> None:
    """What is found so far appears."""
    found.save(work.staging / "coreference.json")
    work.publish(lacking="random weights")


def reopen(file: Path, setting: Setting) -> None:
    """Print saved probes again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.probe_coreference import coreference_report, write

    found = opened(circuits.probes.CoreferenceProbes, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(coreference_report(found, files))
