"""`circuits compose`: neurons as logical forms over concepts, and how far these fit by chance."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import Open, Seed
from circuits.cli.questions.compose import ComposeQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import CircuitsError

FILES = {
    "forms.json": "every neuron's form; circuits compose --open shows it again",
    "forms.csv": "the same as a table",
    "forms.png": "how well forms fit, beside chance, and what the neurons do for the model",
}
"""What `circuits compose` writes, and what for."""


@app.command()
@with_setting("compose", memory=True)
def compose(
    context: Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NEURON|LAYER", help="Neurons (m3.n457) or layers (m3).", show_default=False),
    ] = None,
    concepts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Annotated text (CoNLL-U), or a lexicon (JSON: a list of words a concept), or one of each.",
            show_default="how tokens are written",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The text, where none is annotated.", show_default="what the model writes itself"),
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="upos, xpos, deprel, feats, lemma, 'after upos'; word, class, first, after, 'after class', start, end.",
            show_default="all but start and end; of a lexicon alone none; of no file all",
        ),
    ] = None,
    words: Annotated[int, typer.Option(min=100, help="Stop reading after so many words, or tokens of a text.")] = 20_000,
    least: Annotated[int, typer.Option(min=1, help="Leave out concepts that fewer words have.")] = 10,
    share: Annotated[
        float | None,
        typer.Option(help="A neuron is active at this share of words, those it answers to most.", show_default="0.005"),
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="A neuron is active above this; 0 for ReLU.", show_default="by --share")
    ] = None,
    length: Annotated[int, typer.Option(min=1, max=10, help="Concepts of a form, at most.")] = 5,
    beam: Annotated[int, typer.Option(min=1, max=1000, help="Forms that are kept at each length.")] = 10,
    penalty: Annotated[float, typer.Option(help="What each further concept multiplies the fit by.")] = 0.99,
    moves: Annotated[
        int | None,
        typer.Option(min=0, help="Searches with the neuron's mask moved.", show_default="99; 3 of more than 20 neurons"),
    ] = None,
    use: Annotated[
        int, typer.Option(min=0, help="Of how many neurons, drawn, to measure the loss without them; 0 = none.")
    ] = 32,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Say what neurons do as logical forms over concepts.

    A neuron is active at some words of a text, a concept holds at some. The form of concepts joined by AND, OR and AND NOT
    whose words overlap most with the neuron's is searched (Mu & Andreas 2020). The best of many fits well by chance: beside it
    stands what the same search finds for the neuron moved along the text, and how well a form that is chosen on half of the
    documents fits the others. Is a neuron that is well explained also one that the model needs?

    \b
    Examples:
      circuits compose m3.n457
      circuits compose m3.n457 m3.n12 --concepts en_ewt-ud-dev.conllu
      circuits compose m3 --concepts en_ewt-ud-dev.conllu -m gpt2
      circuits compose m3.n457 --concepts lexicon.json --text book.txt
      circuits compose --open out/compose-mini/forms.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if not names:
        raise CircuitsError("name neurons or a layer, such as circuits compose m3.n457")
    where: dict[str, Any] = {"names": tuple(names), "concepts": tuple(concepts or ()), "text": text, "kinds": kinds}
    how: dict[str, Any] = {"share": share, "above": above, "length": length, "beam": beam, "penalty": penalty}
    question = ComposeQuestion(**where, **how, words=words, least=least, moves=moves, use=use, seed=seed)
    question.check()
    run(question, setting)


def run(question: ComposeQuestion, setting: Setting) -> None:
    """Search, write the files, print the report."""
    from circuits.cli.reports.compose import compose_report, write

    given = question.read()
    with setting.parts(FILES, options="--words, --memory") as work:
        model = setting.load(work.progress)
        question.check_with(model)
        units = question.units(model, given, work.progress)
        masks = question.masks(units, given)
        activity = question.activity(model, units, setting.budget, work.progress)
        opening = question.opening(model, units, masks)
        work.say(opening)
        found = question.compose(model, units, masks, activity, setting.budget, work.progress)
        found.save(work.staging / "forms.json")
        work.publish()
        write(found, work.staging)
    setting.answer(compose_report(found, work.written, [setting.opening("forms.json")], said=opening))


def reopen(file: Path, setting: Setting) -> None:
    """Print saved forms again, and write their table and picture beside them, or into the folder asked for."""
    from circuits.cli.reports.compose import compose_report, write

    found = opened(circuits.concepts.NeuronForms, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(compose_report(found, files))
