"""`circuits features train`: a dictionary of what stands at a place of the model."""

from typing import Annotated

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.corpus import Corpus
from circuits.cli.options import Seed, Text
from circuits.cli.settings import Setting, with_setting

FILES = {
    "dictionary.safetensors": "the dictionary; circuits features dictionary reads it",
    "dictionary.json": "every feature's numbers on tokens that it was not trained on",
    "dictionary.csv": "the same as a table",
    "dictionary.png": "how often features are active, and what the loss says",
}
"""What `circuits features train` writes, and what for."""
HELD_OUT = 0.1
"""The share of the text that is not trained on."""


@app.command("features train")
@with_setting("features", memory=True, long=False)
def features_train(
    at: Annotated[
        str, typer.Argument(metavar="PLACE", help="What is taken apart: m2 (an MLP's output), resid3, mid3, attn3, a3.")
    ] = "m2",
    features: Annotated[int, typer.Option(min=2, max=2**20, help="Features.")] = 1024,
    k: Annotated[int, typer.Option("--k", min=1, help="Features that are active at a token.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens of a step.")] = 512,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 1e-3,
    text: Text = None,
    limit: Annotated[int, typer.Option(min=64, help="Tokens of the text that are read.")] = 100_000,
    seed: Seed = 0,
    *,
    setting: Setting,
) -> None:
    """Train a dictionary of a place of the model.

    A k-sparse autoencoder by eai-sparsify (Gao et al. 2024) of what the model computes on a text; a tenth of the text is kept
    to judge it on. The library comes with pip install 'transformer-circuits[dictionaries]'.

    \b
    Examples:
      circuits features train
      circuits features train m1 --features 2048 --k 8
      circuits features train resid3
      circuits features train m5 -m gpt2 --text book.txt
    """
    run(at, Corpus(text, limit, seed), setting, features=features, k=k, steps=steps, batch=batch, rate=rate)


def run(at: str, corpus: Corpus, setting: Setting, *, features: int, k: int, steps: int, batch: int, rate: float) -> None:
    """Train, judge, write the files, print the report."""
    from circuits.cli.reports.features import dictionary_report, write
    from circuits.concepts.features.training import check_training, require_library

    require_library()
    text = corpus.read()
    with setting.parts(FILES, below="train", options="--limit, --features, --memory") as work:
        model = setting.load(work.progress)
        check_training(model, at, features=features, k=k, steps=steps, batch=batch)  # a text may take minutes to write
        tokens = corpus.tokens(model, text, work.progress)
        kept = max(1, round(HELD_OUT * len(tokens)))
        found = circuits.concepts.train_dictionary(
            model,
            at,
            tokens[:-kept] if len(tokens) > kept else tokens,
            features=features,
            k=k,
            steps=steps,
            batch=batch,
            rate=rate,
            seed=corpus.seed,
            budget=setting.budget,
            progress=work.progress,
        )
        found.save(work.staging / "dictionary.safetensors")
        work.publish()
        judged = circuits.concepts.read_features(model, found, tokens[-kept:], budget=setting.budget, progress=work.progress)
        judged.save(work.staging / "dictionary.json")
        write(judged, work.staging)
    again = setting.command("features", "dictionary", str(setting.folder / "dictionary.safetensors"), "--feature", "0")
    setting.answer(dictionary_report(judged, 10, work.written, [(again, "one of its features")]))
