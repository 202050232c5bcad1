"""`circuits neurons`: which neurons know a property of words, by several rankings, and what the model loses without them."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open
from circuits.cli.questions.neurons import NeuronsQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting

FILES = {
    "rankings.safetensors": "every neuron in every order; circuits neurons --open shows it again",
    "rankings.csv": "what a probe tells from the first neurons of each ranking",
    "rankings.png": "the same as a picture",
    "circuit.json": "the first neurons of the best ranking, for every other command",
    "knockout.json": "what the model loses without the first, the last and random neurons",
    "knockout.csv": "the same as a table",
    "knockout.png": "the same as a picture",
}
"""What `circuits neurons` writes, and what for."""
OF_KNOCKOUT = ("knockout.json", "knockout.csv", "knockout.png")


@app.command()
@with_setting("neurons", memory=True)
def neurons(
    context: Context,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Annotated sentences, CoNLL-U.", show_default="made by a small grammar"),
    ] = None,
    property: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="upos, xpos, relation, deprel, depth, head, lemma, feats, or a feature such as Number.",
        ),
    ] = "upos",
    by: Annotated[
        str,
        typer.Option(
            metavar="lca|gaussian|probeless|raw|agreement|all",
            help="Weights of a sparse classifier; chosen singly by Gaussians; distance of the classes' means, in deviations "
            "or as they are; what other models share.",
        ),
    ] = "all",
    other: Annotated[list[str] | None, typer.Option(metavar="MODEL", help="A model that agreement compares with.")] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="The neurons of these layers: 0,5,10.", show_default="all")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Neurons of the circuit that is saved.")] = 20,
    pooling: Annotated[
        str, typer.Option(metavar="last|mean", help="What stands for a word of several tokens: the last one, or their mean.")
    ] = "last",
    words: Annotated[int, typer.Option(min=100, help="Stop reading sentences after so many words.")] = 5_000,
    least: Annotated[int, typer.Option(min=1, help="Leave out classes that fewer words have.")] = 20,
    count: Annotated[int, typer.Option("--sentences", min=2, help="Sentences on which neurons are taken out.")] = 48,
    knockout: Annotated[
        bool, typer.Option("--knockout/--no-knockout", help="Also take neurons out, and see what the model loses.")
    ] = True,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep activations here: the next property of the same text reads nothing again."),
    ] = None,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Which neurons know a property of words?

    Every neuron is ranked in several ways, a probe is judged on the first of each ranking alone, and rankings are held against
    each other. Then the first neurons are taken out of the model, beside the last and random ones: known is not yet used.

    \b
    Examples:
      circuits neurons
      circuits neurons --data en_ewt-ud-dev.conllu --property Number
      circuits neurons --data en_ewt-ud-dev.conllu -m gpt2 --layers 6 --by lca
      circuits neurons --by agreement --other gpt2 -m distilgpt2
      circuits neurons --open out/neurons-mini/rankings.safetensors
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    where: dict[str, Any] = {"data": data, "property": property, "layers": layers, "pooling": pooling, "words": words}
    how: dict[str, Any] = {"by": by, "others": tuple(other or ()), "top": top, "least": least, "keep": keep}
    question = NeuronsQuestion(**where, **how, knockout=knockout, count=count)
    question.check()
    run(question, setting)


def run(question: NeuronsQuestion, setting: Setting) -> None:
    """Rank, take out, write the files, print the report."""
    from circuits.cli.questions.probe import activations_folder, passed_over
    from circuits.cli.reports.neuron_rankings import neurons_report, next_steps, write
    from circuits.probes.ranking.circuit import neuron_circuit
    from circuits.probes.ranking.rank import ranked_layers
    from circuits.probes.reading import WordText

    sentences = question.read()
    setting.said.extend(passed_over(question.data, sentences))
    expected = [name for name in FILES if question.knockout or name not in OF_KNOCKOUT]
    with (
        setting.parts(FILES, expected=expected, options="--words, --layers, --memory") as work,
        activations_folder(question.keep) as folder,
    ):
        model = setting.load(work.progress)
        ranked_layers(model, question.chosen_layers)  # what is wrong about them is said before anything else
        others = [circuits.load_model(name, device=model.device, dtype=model.dtype) for name in question.others]
        text = WordText.of(model, sentences, words=question.words)
        about: dict[str, Any] = {"folder": folder, "budget": setting.budget, "progress": work.progress}
        found = circuits.rank_neurons(model, text, question.property, **question.options, others=others, **about)
        circuit = neuron_circuit(model, found, found.best[0], question.top)
        found.save(work.staging / "rankings.safetensors")
        circuit.save(work.staging / "circuit.json")
        write(found, None, work.staging)
        work.publish()
        lost = circuits.knock_out(model, text, found, count=question.count, **about) if question.knockout else None
        if lost is not None:
            lost.save(work.staging / "knockout.json")
            write(None, lost, work.staging)
    steps = next_steps(found, question, setting)
    setting.answer(neurons_report(found, lost, question.describe(), files=work.written, steps=steps))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved rankings again, with the knockout that lies beside them, and write tables and pictures beside them, or into
    the folder asked for."""
    from circuits.cli.reports.neuron_rankings import neurons_report, write

    found, beside = opened(circuits.probes.NeuronRankings, file), file.with_name("knockout.json")
    lost = circuits.probes.NeuronKnockout.load(beside) if beside.is_file() else None
    setting, files = written_again(found, file, setting, lambda rankings, folder: write(rankings, lost, folder), FILES)
    setting.answer(neurons_report(found, lost, "", files=files))
