"""`circuits probe tree`: how much of the sentences' dependency trees activations tell."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    KeepActivations,
    Open,
    Pooled,
    ProbeData,
    ProbeLayers,
    ProbeSites,
    ProbeWords,
    RandomWeights,
    Seed,
)
from circuits.cli.prompts import names_of
from circuits.cli.questions.probe import activations_folder, places_of, sentences_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import PromptError

FILES = {
    "trees.json": "every place beside its baselines; circuits probe tree --open shows it again",
    "trees.csv": "the same as a table",
    "trees.png": "the same as a picture",
    "tree_arcs.png": "some of the judged sentences, with what is read off the best place below them",
}
"""What `circuits probe tree` writes, and what for."""


@app.command("probe tree")
@with_setting("probe", memory=True)
def probe_tree(
    context: Context,
    data: ProbeData = None,
    layers: ProbeLayers = None,
    sites: ProbeSites = None,
    pooling: Pooled = "last",
    words: ProbeWords = 25_000,
    rank: Annotated[int, typer.Option(min=1, help="Directions of the projections at most.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="How often each sentence is trained on.")] = 24,
    seed: Seed = 0,
    geometry: Annotated[
        str, typer.Option(metavar="euclidean|poincare", help="Where distances are taken; the Poincare ball has room for trees.")
    ] = "euclidean",
    ranks: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Also try these ranks at the best place: 2,8,32.", show_default="none")
    ] = None,
    jabberwocky: Annotated[
        bool, typer.Option("--jabberwocky", help="Also judge with pseudo-words in place of content words.")
    ] = False,
    random_weights: RandomWeights = True,
    keep: KeepActivations = None,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Read dependency trees off activations.

    A structural probe is a projection in which the squared distance of two words is their distance in the sentence's tree, and
    one in which a word's squared length is its depth (Hewitt & Manning 2019). Beside it stand each word attached to the next
    one, the embeddings, and the same architecture with random weights. With --jabberwocky the same probes are judged on the
    same sentences made nonsense: the drop is what they owe to knowing which words go together (Maudslay & Cotterell 2021).

    \b
    Examples:
      circuits probe tree
      circuits probe tree --data en_ewt-ud-dev.conllu -m gpt2
      circuits probe tree --data en_ewt-ud-dev.conllu --layers 0,4,8
      circuits probe tree --jabberwocky --ranks 2,8,32
      circuits probe tree --geometry poincare --rank 16
      circuits probe tree --open out/probe-mini/trees.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if pooling not in ("last", "mean"):
        raise PromptError(f"--pooling {pooling}: expected last or mean")
    if geometry not in ("euclidean", "poincare"):
        raise PromptError(f"--geometry {geometry}: expected euclidean or poincare")
    where: dict[str, Any] = {"sites": places_of(layers, sites), "pooling": pooling, "words": words}
    how: dict[str, Any] = {"rank": rank, "epochs": epochs, "seed": seed, "random_weights": random_weights}
    how |= {"geometry": geometry, "ranks": numbers_of(ranks), "jabberwocky": jabberwocky}
    run(data, setting, keep, {**where, **how})


def numbers_of(ranks: str | None) -> list[int]:
    """Ranks between commas. Raises PromptError for what is none."""
    names = [] if ranks is None else names_of(ranks)
    wrong = next((name for name in names if not name.isdecimal() or int(name) < 1), None)
    if wrong is not None:
        raise PromptError(f"--ranks {ranks}: {wrong!r} is no number of directions; expected such as 2,8,32")
    return [int(name) for name in names]


def run(data: Path | None, setting: Setting, keep: Path | None, options: dict[str, Any]) -> None:
    """Probe, write the files, print the report."""
    from circuits.cli.reports.probe_tree import tree_report, write

    sentences = sentences_of(data)
    with setting.parts(FILES, below="tree", options="--words, --memory") as work, activations_folder(keep) as folder:
        model = setting.load(work.progress)
        about: dict[str, Any] = {"folder": folder, "budget": setting.budget, "progress": work.progress}
        found = circuits.probes.probe_trees(model, sentences, **options, **about, found=lambda part: _note(part, work))
        found.save(work.staging / "trees.json")
        work.publish()
        write(found, work.staging)
    setting.answer(tree_report(found, work.written, [setting.opening("trees.json", "tree")]))


def _note(found: "circuits.probes.TreeProbes", work: Work) -> None:
    """What is found so far appears."""
    found.save(work.staging / "trees.json")
    work.publish(lacking="random weights")


def reopen(file: Path, setting: Setting) -> None:
    """Print saved probes again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.probe_tree import tree_report, write

    found = opened(circuits.probes.TreeProbes, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(tree_report(found, files))
