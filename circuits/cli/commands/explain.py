"""`circuits explain`: what neurons look for, in words, and how well the words foretell them."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import AnySeed, Open
from circuits.cli.questions.explain import ExplainQuestion
from circuits.cli.questions.neuron import MOST
from circuits.cli.report import written
from circuits.cli.saved import written_again
from circuits.cli.settings import Setting, Work, with_setting
from circuits.cli.starting import announce
from circuits.errors import CircuitsError

ONE = {
    "explanation.json": "everything; circuits explain --open shows it again",
    "simulated.csv": "real and simulated activations of every held-out token",
    "explanation.png": "simulated beside real activations, in their texts",
}
MANY = {
    "explanations.json": "every neuron's explanation and scores; what circuits explain goes on from",
    "explanations.csv": "the same as a table",
    "explanations.png": "scores with intervals, the best neurons first",
}
SASC = {
    "sasc.json": "everything; circuits explain --open shows it again",
    "sasc.csv": "explanations with their scores and texts",
    "sasc.png": "the words on which it does most, and the scores",
}
_OFTEN = 2.0
"""Seconds between two times that a growing table appears in its folder."""


@app.command()
@with_setting("explain", long=True)
def explain(
    context: Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NEURON|LAYER", help="A neuron (m3.n457) or a layer (m3); with --sasc a module.", show_default=False
        ),
    ] = None,
    neurons: Annotated[
        str | None, typer.Option(metavar="0-99", help="Of a layer, these neurons alone.", show_default="all")
    ] = None,
    sasc: Annotated[bool, typer.Option("--sasc", help="Explain a module (a2.h1, m3, resid2) by words it answers to.")] = False,
    towards: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="With --sasc: what it adds to this token's logit.", show_default="its length"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to take excerpts from.", show_default="what the model writes, and facts of mini"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", min=2, help="Stop after so many tokens.", show_default=f"{MOST} of a text"),
    ] = None,
    top: Annotated[int, typer.Option(min=2, help="Excerpts with the largest activations; half are held out.")] = 20,
    explainer: Annotated[
        str, typer.Option(metavar="rule|model:DIR|endpoint:URL", help="Who explains. URL may end in #MODEL.")
    ] = "rule",
    simulator: Annotated[
        str | None,
        typer.Option(
            metavar="rule|model:DIR|endpoint:URL",
            help="Who tests: simulates, or with --sasc writes texts.",
            show_default="who explains",
        ),
    ] = None,
    open_file: Open = None,
    seed: AnySeed = 0,
    *,
    setting: Setting,
) -> None:
    """What neurons look for, in words, and a test of the words.

    An explainer sees excerpts of a text in which a neuron is most active, and others at random. A simulator, given the
    explanation alone, says for other excerpts how active the neuron is at each token. The score is the correlation with what
    the neuron does there, with an interval, for excerpts of largest activations and random ones apart and together (Bills et
    al. 2023). Rules of a few words need no model; a local model or a server that speaks OpenAI's protocol can explain and
    simulate instead. What text goes to a server is said before it goes; its key is read from OPENAI_API_KEY alone.

    A whole layer is explained neuron by neuron, into a table that grows; the same command goes on where it was stopped. With
    --sasc, a module is explained by the groups of words on which it does most, and tested on texts with and without what the
    explanation says (Singh et al. 2023).

    \b
    Examples:
      circuits explain m3.n457
      circuits explain m3 --neurons 0-99 --text book.txt
      circuits explain m3.n457 --simulator model:./SmolLM2-135M
      circuits explain m3.n457 --explainer endpoint:http://127.0.0.1:8000/v1
      circuits explain a1.h2 --sasc --towards " the"
      circuits explain --open out/explain-mini/explanation.json
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    if name is None:
        raise CircuitsError("name a neuron or a layer, such as circuits explain m3.n457")
    said = {"text": text, "limit": limit, "top": top, "explainer": explainer, "simulator": simulator, "seed": seed}
    question = ExplainQuestion(name=name, neurons=neurons, sasc=sasc, towards=towards, **said)
    question.check()
    run(question, setting)


def run(question: ExplainQuestion, setting: Setting) -> None:
    """Explain, write the files, print the report."""
    from circuits.tasks.sources.corpus import read_text

    words = None if question.text is None else read_text(question.text)
    files, below, explained = (SASC, "sasc", _module) if question.sasc else (MANY, "layer", _many)
    if question.single:
        files, below, explained = ONE, "", _one
    with setting.parts(files, below=below, options="--limit, --top") as work:
        model = setting.load(work.progress)
        question.check_with(model)
        corpus = question.corpus(model, words, work.progress)
        announce(work.progress, model, "rows of text", len(corpus), int(corpus.mask.sum()))
        for line in question.sent():
            work.progress.say(line, err=True)
        report = explained(question, model, corpus, work)
    setting.answer(report)


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved result again, and write its table and picture beside it, or into the folder asked for."""
    from circuits.cli.reports import explain as reports
    from circuits.lenses import Explanations, ModuleExplanation, NeuronExplanation
    from circuits.report.kinds import load_saved

    kind, result = load_saved(file)
    found: Any = result
    shown = {
        NeuronExplanation: (ONE, reports.write_explanation, lambda files, own: reports.explanation_report(found, files, own)),
        Explanations: (MANY, reports.write_explanations, lambda files, own: reports.explanations_report(found, files, own)),
        ModuleExplanation: (SASC, reports.write_module, lambda files, own: reports.module_report(found, files)),
    }
    if type(found) not in shown:
        other = f"; circuits {kind.command} {file} shows it" if kind.command else ""
        raise CircuitsError(f"{file}: holds {kind.what}, not an explanation{other}")
    known, write, report = shown[type(found)]
    own, files = written_again(found, file, setting.of_saved(found.model), write, known)
    own.answer(report(files, own))


def _one(question: ExplainQuestion, model: "circuits.Model", corpus: Any, work: Work) -> Any:
    """One neuron; where the work is stopped half-way, what was scored is there, and the same command goes on from it."""
    from circuits.cli.reports.explain import explanation_heading, explanation_report, write_explanation

    def hear(part: "circuits.NeuronExplanation") -> None:
        """Say the explanation when it is there; write what there is."""
        work.say(explanation_heading(part))
        part.save(work.staging / "explanation.json")
        if part.held:
            write_explanation(part, work.staging)
        work.publish(lacking="" if part.held and not part.stopped else "simulated excerpts")

    known = _known(circuits.NeuronExplanation, work.setting, "explanation.json")
    options = {"known": known, "found": hear, "progress": work.progress, **_options(question)}
    found = circuits.explain(model, question.name, corpus, **options)
    return explanation_report(found, work.written, work.setting, said=_text_words(question))


def _many(question: ExplainQuestion, model: "circuits.Model", corpus: Any, work: Work) -> Any:
    """Neurons of a layer, into a table that grows."""
    from circuits.cli.reports.explain import explanations_report, write_explanations

    last = [time.monotonic()]
    tables = list["circuits.Explanations"]()

    def publish(lacking: str = "") -> None:
        """The table so far appears."""
        tables[-1].save(work.staging / "explanations.json")
        write_explanations(tables[-1], work.staging)
        work.publish(lacking=lacking)
        last[0] = time.monotonic()

    def hear(table: "circuits.Explanations") -> None:
        """Keep the table, and publish it now and then."""
        tables[:] = [table]
        if time.monotonic() - last[0] > _OFTEN:
            publish("further neurons")

    known = _known(circuits.Explanations, work.setting, "explanations.json")
    options = {"known": known, "progress": work.progress, **_options(question)}
    try:
        tables[:] = [circuits.explain_neurons(model, question.chosen(), corpus, found=hear, **options)]
    except BaseException:
        if tables:
            publish("further neurons")
        raise
    publish()
    return explanations_report(tables[0], work.written, work.setting, said=_text_words(question))


def _module(question: ExplainQuestion, model: "circuits.Model", corpus: Any, work: Work) -> Any:
    """One module by SASC."""
    from circuits.cli.reports.explain import module_report, write_module

    options = {"explainer": question.explainer, "author": question.simulator, "seed": question.seed, "progress": work.progress}
    found = circuits.explain_module(model, question.name, corpus, direction=question.direction(model), **options)
    found.save(work.staging / "sasc.json")
    write_module(found, work.staging)
    return module_report(found, written(work.staging, SASC))


def _options(question: ExplainQuestion) -> dict[str, Any]:
    return {name: getattr(question, name) for name in ("top", "explainer", "simulator", "seed")}


def _text_words(question: ExplainQuestion) -> list[str]:
    """The text again, as words of a command line."""
    said = {"--text": question.text, "--limit": question.limit, "--seed": question.seed or None}
    return [word for name, value in said.items() if value is not None for word in (name, str(value))]


def _known(kind: Any, setting: Setting, name: str) -> Any:
    """What an earlier run has left: rows of the same table, and answers of a server, which are not asked for twice. None where
    that is of another kind, or nothing, or is not to be gone on with."""
    if "--fresh" in setting.words:
        return None
    try:
        return kind.load((setting.whole or setting.folder) / name)
    except CircuitsError:
        return None
