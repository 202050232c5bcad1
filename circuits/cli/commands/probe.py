"""`circuits probe`: what activations encode of a property of words, beside baselines, and whether the model uses it."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import KeepActivations, Open, Pooled, ProbeData, ProbeLayers, ProbeSites, ProbeWords, RandomWeights
from circuits.cli.questions.probe import ProbeQuestion, activations_folder, numbers_of, passed_over
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.cli.starting import announce
from circuits.errors import CircuitsError

FILES = {
    "probes.json": "every place beside its baselines; circuits probe --open shows it again",
    "probes.csv": "the same as a table",
    "classes.csv": "each class at every place",
    "probes.png": "the same as a picture",
    "use.json": "what the model loses without what the probes read",
    "use.csv": "the same as a table",
    "use.png": "the same as a picture",
}
"""What `circuits probe` writes, and what for."""
OF_USE = ("use.json", "use.csv", "use.png")


@app.command()
@with_setting("probe", memory=True)
def probe(
    context: Context,
    former: Annotated[list[Path] | None, typer.Argument(hidden=True, metavar="")] = None,
    data: ProbeData = None,
    column: Annotated[
        str,
        typer.Option(
            "--property",
            metavar="NAME",
            help="upos, xpos, relation, deprel, depth, head, lemma, feats, or a feature such as Number.",
        ),
    ] = "upos",
    layers: ProbeLayers = None,
    sites: ProbeSites = None,
    pooling: Pooled = "last",
    words: ProbeWords = 25_000,
    least: Annotated[int, typer.Option(min=1, help="Leave out classes that fewer words have.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many times words are split and control tasks drawn.")] = 3,
    hidden: Annotated[
        str, typer.Option(help="Units of a hidden layer, tried at the best place; several: 64,256; 0 = none.")
    ] = "256",
    ranks: Annotated[
        str | None, typer.Option(metavar="LIST", help="Linear probes through so few directions, tried there: 2,4,8.")
    ] = None,
    random_weights: RandomWeights = True,
    use: Annotated[
        bool, typer.Option("--use/--no-use", help="Also erase what probes read, and see what the model loses.")
    ] = True,
    keep: KeepActivations = None,
    open_file: Open = None,
    minimal_pairs: Annotated[list[Path] | None, typer.Option("--minimal-pairs", hidden=True)] = None,
    facts: Annotated[list[Path] | None, typer.Option("--facts", hidden=True)] = None,
    *,
    setting: Setting,
) -> None:
    """Probe what activations encode, layer by layer.

    A linear probe learns to read a property of words (part of speech, relation, depth in the tree) off the residual stream
    before each layer, and is judged on other sentences. Beside it stand what needs no model (each word's most frequent class,
    a window of words), the embeddings, the same architecture with random weights, and a control task that can only be learnt by
    heart. Then what the probe reads is erased: encoded is not yet used.

    \b
    Examples:
      circuits probe
      circuits probe --data en_ewt-ud-dev.conllu -m gpt2
      circuits probe --data en_ewt-ud-dev.conllu --property relation
      circuits probe --data en_ewt-ud-dev.conllu --property Number
      circuits probe --data en_ewt-ud-dev.conllu --layers 0,2,4 --no-use
      circuits probe --sites heads --no-random
      circuits probe --layers 2 --hidden 16,256 --ranks 1,2,4
      circuits probe --open out/probe-mini/probes.json
    """
    if former or minimal_pairs or facts:
        raise CircuitsError(
            "circuits probe is now circuits behaviour, with the same options and files, where it scored pairs and facts: "
            "circuits behaviour --help says more; sentences to probe on are named by --data"
        )
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    where: dict[str, Any] = {"data": data, "column": column, "layers": layers, "sites": sites, "pooling": pooling}
    how: dict[str, Any] = {"words": words, "least": least, "seeds": seeds, "keep": keep}
    how |= {"hidden": numbers_of("--hidden", hidden), "ranks": numbers_of("--ranks", ranks)}
    question = ProbeQuestion(**where, **how, random_weights=random_weights, use=use)
    question.check()
    run(question, setting)


def run(question: ProbeQuestion, setting: Setting) -> None:
    """Probe, erase, write the files, print the report."""
    from circuits.cli.reports.probe import next_steps, without_model, write
    from circuits.probes.probing import answer
    from circuits.probes.question import Question
    from circuits.probes.reading import WordText
    from circuits.probes.sites import sites_of

    sentences = question.read()
    setting.said.extend(passed_over(question.data, sentences))
    expected = [name for name in FILES if question.use or name not in OF_USE]
    with (
        setting.parts(FILES, expected=expected, options="--words, --memory") as work,
        activations_folder(question.keep) as folder,
    ):
        model = setting.load(work.progress)
        sites_of(model, question.places)  # what is wrong about them is said before anything else
        text = WordText.of(model, sentences, words=question.words)
        asked = Question.of(text, question.column, seeds=question.seeds, least=question.least)
        tokens = sum(len(one.ids) for one in text.aligned)
        announce(work.progress, model, "sentences", len(text.aligned), tokens, budget=setting.budget)
        work.say(without_model(model.name, asked, question.describe()))
        about: dict[str, Any] = {"folder": folder, "budget": setting.budget, "progress": work.progress}
        found = answer(model, asked, **question.options, **about, found=lambda part: _note(part, question, work))
        _note(found, question, work)
        write(found, None, work.staging)
        work.publish()
        use = circuits.property_use(model, text, found, **about) if question.use and _streams(found) else None
        if use is None:
            work.files.drop(*OF_USE)
        else:
            use.save(work.staging / "use.json")
            write(None, use, work.staging)
    _say(found, use, setting, work.written, next_steps(found, question, setting))


def _note(found: "circuits.Probes", question: ProbeQuestion, work: Work) -> None:
    """What is found so far appears."""
    lacking = [] if found.random or not question.random_weights else ["random weights"]
    lacking += [] if len(found.hidden) == question.others else ["other probes at the best place"]
    found.save(work.staging / "probes.json")
    work.publish(lacking=", ".join(lacking))


def _streams(found: "circuits.Probes") -> bool:
    """Whether residual streams besides the embeddings were probed."""
    return sum(name.startswith("resid") for name in found.sites) > 1


def reopen(file: Path, setting: Setting) -> None:
    """Print saved probes again, with what erasing costs where that lies beside them, and write tables and pictures beside them,
    or into the folder asked for."""
    from circuits.cli.reports.probe import write

    found, beside = opened(circuits.Probes, file), file.with_name("use.json")
    use = circuits.probes.PropertyUse.load(beside) if beside.is_file() else None
    setting, files = written_again(found, file, setting, lambda probes, folder: write(probes, use, folder), FILES)
    _say(found, use, setting, files)


def _say(
    found: "circuits.Probes",
    use: "circuits.probes.PropertyUse | None",
    setting: Setting,
    files: dict[str, str],
    steps: list[tuple[str, str]] | None = None,
) -> None:
    from circuits.cli.reports.probe import probe_report

    setting.answer(dataclasses.replace(probe_report(found, use), files=files, next=steps or []))
