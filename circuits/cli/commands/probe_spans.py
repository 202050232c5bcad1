"""`circuits probe spans`: how well the labels of spans are told, layer by layer and off a mix of layers."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import KeepActivations, Open, Pooled, ProbeLayers, ProbeSites, ProbeWords, RandomWeights, Seed
from circuits.cli.questions.probe import activations_folder, places_of
from circuits.cli.questions.spans import spans_of
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.errors import PromptError

FILES = {
    "spans.json": "every place beside its baselines; circuits probe spans --open shows it again",
    "spans.csv": "the same as a table",
    "spans.png": "the same as a picture",
}
"""What `circuits probe spans` writes, and what for."""


@app.command("probe spans")
@with_setting("probe", memory=True)
def probe_spans(
    context: Context,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Spans with labels, .jsonl as edge probing has them, or annotated sentences, CoNLL-U.",
            show_default="made by a small grammar",
        ),
    ] = None,
    asked: Annotated[
        str | None,
        typer.Option(
            "--property",
            metavar="relation|phrase|phrase-upos",
            help="Of a tree: the relation of a word to its head, of a phrase, or the part of speech of its head.",
            show_default="relation",
        ),
    ] = None,
    layers: ProbeLayers = None,
    sites: ProbeSites = None,
    pooling: Pooled = "last",
    words: ProbeWords = 10_000,
    least: Annotated[int, typer.Option(min=1, help="Leave out labels that fewer spans have.")] = 20,
    rank: Annotated[int, typer.Option(min=1, help="Directions that spans are projected on.")] = 64,
    hidden: Annotated[int, typer.Option(min=1, help="Units of the hidden layer.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="How often each span is trained on at most.")] = 30,
    seed: Seed = 0,
    mix: Annotated[bool, typer.Option("--mix/--no-mix", help="Also read a mix of layers, whose weights are trained.")] = True,
    random_weights: RandomWeights = True,
    keep: KeepActivations = None,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Read labels of one span or two off activations.

    An edge probe projects the words of a span, pools them by attention, and tells labels by a hidden layer (Tenney et al.
    2019). Beside it stand the spans' words alone, the embeddings, and the same architecture with random weights. Probes that
    read a mix of the streams up to a layer say where in the layers the answer comes about: the centre of gravity of the
    weights, and the expected layer of what each layer adds. Spans are of words.

    \b
    Examples:
      circuits probe spans
      circuits probe spans --data en_ewt-ud-dev.conllu -m gpt2
      circuits probe spans --data en_ewt-ud-dev.conllu --property phrase
      circuits probe spans --data ner-dev.jsonl --layers 0,4,8
      circuits probe spans --open out/probe-mini/spans.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if pooling not in ("last", "mean"):
        raise PromptError(f"--pooling {pooling}: expected last or mean")
    where: dict[str, Any] = {"sites": places_of(layers, sites), "pooling": pooling, "words": words, "least": least}
    how = {"rank": rank, "hidden": hidden, "epochs": epochs, "seed": seed, "mix": mix, "random_weights": random_weights}
    run(data, asked, setting, keep, {**where, **how})


def run(data: Path | None, asked: str | None, setting: Setting, keep: Path | None, options: dict[str, Any]) -> None:
    """Probe, write the files, print the report."""
    from circuits.cli.reports.probe_spans import spans_report, write
    from circuits.probes.spans.asking import check_labels

    sentences, name = spans_of(data, asked)
    check_labels(sentences, least=options["least"])
    with setting.parts(FILES, below="spans", options="--words, --memory") as work, activations_folder(keep) as folder:
        model = setting.load(work.progress)
        about: dict[str, Any] = {"folder": folder, "budget": setting.budget, "progress": work.progress, "asked": name}
        found = circuits.probes.probe_spans(model, sentences, **options, **about, found=lambda part: _note(part, work))
        found.save(work.staging / "spans.json")
        work.publish()
        write(found, work.staging)
    setting.answer(spans_report(found, work.written, [setting.opening("spans.json", "spans")]))


def _note(found: "circuits.probes.SpanProbes", work: Work) -> None:
    """What is found so far appears."""
    found.save(work.staging / "spans.json")
    work.publish(lacking="random weights")


def reopen(file: Path, setting: Setting) -> None:
    """Print saved probes again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.probe_spans import spans_report, write

    found = opened(circuits.probes.SpanProbes, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(spans_report(found, files))
