"""`circuits neuron`: one neuron from all sides, or a list of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import AnySeed, Open
from circuits.cli.progress import ProgressBars
from circuits.cli.questions.neuron import MOST, NeuronQuestion
from circuits.cli.report import written
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.cli.starting import announce

FILES = {
    "neuron.json": "everything; circuits neuron --open shows it again",
    "triggers.csv": "where it fires most and least, with the text around",
    "neuron.png": "triggers in their contexts, and the tokens that it raises and lowers",
    "clamp.json": "next-token probabilities with the neuron held",
    "clamp.png": "the same as a picture",
    "neurons.csv": "every neuron: triggers, value, agreement",
    "triggers.safetensors": "the places of all triggers",
    "agreement.json": "key-value agreement by layer, and by chance",
    "agreement.png": "the same as a picture",
    "activity.png": "how often and how strongly neurons fire",
}
"""What `circuits neuron` writes, and what for: the first ones about one neuron, the others about a list."""
CLAMPED = ("clamp.json", "clamp.png")
OF_A_LIST = ("neurons.csv", "triggers.safetensors", "agreement.json", "agreement.png", "activity.png")


@app.command()
@with_setting("neuron", long=True)
def neuron(
    context: Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NEURON|LAYER", help="A neuron (m3.n457), or a layer (m3) to list.", show_default="all neurons, listed"
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to look for triggers in.", show_default="what the model writes, and facts of mini"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", min=2, help="Stop after so many tokens.", show_default=f"{MOST} of a text"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Triggers of a neuron, or neurons of a list, to print.")] = 10,
    through: Annotated[
        str | None,
        typer.Option(metavar="HEAD", help="Read what it writes through a later head, such as a3.h1.", show_default=False),
    ] = None,
    clamp: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="Hold the neuron at this activation, and see what changes.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="The prompt on which it is held.", show_default="the text where it fires least")
    ] = None,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
) -> None:
    """What triggers a neuron, and what it writes.

    A neuron of an MLP is a key and a value: it fires where the residual stream matches its input weights, and adds its
    output weights to it. This command looks through a text for the places where the neuron fires most, reads its value as
    tokens, and says which heads and neurons stand before and behind it. With a layer, or with no name, it lists neurons,
    those first whose value names what follows their triggers, and compares with chance (Geva et al. 2021).

    \b
    Examples:
      circuits neuron m3.n457
      circuits neuron m3.n457 --text book.txt --top 20
      circuits neuron m3.n457 --clamp 8 --prompt "The capital of France is"
      circuits neuron m0.n331 --through a3.h1
      circuits neuron m3 --text book.txt --limit 1000000
      circuits neuron --model gpt2
      circuits neuron --open out/neuron-mini/neuron.json
    """
    if open_file is not None:
        refuse_with_open(context, "top")
        reopen(open_file, setting, top)
        return
    said = {"through": through, "clamp": clamp, "prompt": prompt}
    question = NeuronQuestion(name=name, text=text, limit=limit, top=top, **said, seed=seed)
    question.check()
    run(question, setting)


def run(question: NeuronQuestion, setting: Setting) -> None:
    """Look at the neurons, write the files, print the report."""
    from circuits.tasks.sources.corpus import read_text

    words = None if question.text is None else read_text(question.text)
    single = question.node is not None and question.node.kind == "neuron"
    files = {name: what for name, what in FILES.items() if (name in OF_A_LIST) != single}
    clamped = question.clamp is not None
    expected = [name for name in files if clamped or name not in CLAMPED]
    with setting.parts(files, expected=expected, below="" if single else "list", options="--limit") as work:
        model = setting.load(work.progress)
        question.check_with(model)
        corpus = question.corpus(model, words, work.progress)
        announce(work.progress, model, "rows of text", len(corpus), int(corpus.mask.sum()))
        look = _one if single else _many
        report = look(question, model, corpus, setting, work.staging, work.progress)
    setting.answer(report)


def reopen(file: Path, setting: Setting, top: int) -> None:
    """Print a saved report again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports.neuron import neuron_report, write_neuron

    found = opened(circuits.NeuronReport, file)
    setting = setting.of_saved(found.model)
    setting, files = written_again(found, file, setting, lambda found, folder: write_neuron(found, None, folder), FILES)
    setting.answer(neuron_report(found, None, files, setting, top=top))


def _one(
    question: NeuronQuestion, model: "circuits.Model", corpus: Any, setting: Setting, staging: Path, progress: ProgressBars
) -> Any:
    """One neuron, held where that was asked for."""
    from circuits.cli.reports.neuron import neuron_report, write_neuron
    from circuits.models.choosing import parse_neuron

    node = parse_neuron(model, question.name or "")
    found = circuits.neuron(model, node, corpus, top=question.top, through=question.through, progress=progress)
    held = None
    if question.clamp is not None:
        prompt: Any = question.prompt
        if prompt is None:
            place = found.lowest[0]
            row = corpus.ids[place.prompt, : place.position + 1]
            prompt = row[corpus.mask[place.prompt, : place.position + 1]]
        held = circuits.clamp(model, prompt, {str(node): question.clamp})
    found.save(staging / "neuron.json")
    write_neuron(found, held, staging)
    return neuron_report(found, held, written(staging, FILES), setting, top=question.top, said=question.words())


def _many(
    question: NeuronQuestion, model: "circuits.Model", corpus: Any, setting: Setting, staging: Path, progress: ProgressBars
) -> Any:
    """A list of neurons, beside what chance gives."""
    from circuits.cli.reports.neurons import neurons_report, write_neurons
    from circuits.lenses.neurons.listing import list_neurons

    names = None if question.name is None else [question.name]
    found = circuits.find_triggers(model, corpus, neurons=names, progress=progress)
    values = circuits.read_values(model, names, progress=progress)
    progress("comparing with chance", 0, 1)
    agreement = circuits.key_value_agreement(model, found, corpus, seed=question.seed, values=values)
    progress("comparing with chance", 1, 1)
    listed = list_neurons(model, found, values, corpus, progress=progress)
    write_neurons(found, agreement, listed, staging)
    return neurons_report(listed.head(question.top), agreement, written(staging, FILES), setting, question.words())
