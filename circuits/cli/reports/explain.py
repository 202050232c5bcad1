"""Explanations as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table
from circuits.cli.reports.neuron import shortened, write_table
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line, printable
from circuits.lenses import Explanations, ModuleExplanation, NeuronExplanation
from circuits.lenses.explaining.excerpts import Excerpt
from circuits.lenses.explaining.scores import Correlation

_SHOWN, _CONTEXT = 4, 60
"""Excerpts of each kind, and characters of one, that are printed."""


def write_explanation(found: NeuronExplanation, folder: Path) -> None:
    """Write one neuron's table and picture."""
    write_table(found.to_dataframe(), folder / "simulated.csv")
    if found.held:
        save_figure(found.plot(), folder / "explanation.png")


def write_explanations(found: Explanations, folder: Path) -> None:
    """Write the table and the picture of many."""
    write_table(found.to_dataframe(), folder / "explanations.csv")
    if found.scores:
        save_figure(found.plot(), folder / "explanations.png")


def write_module(found: ModuleExplanation, folder: Path) -> None:
    """Write a module's table and picture."""
    write_table(found.to_dataframe(), folder / "sasc.csv")
    save_figure(found.plot(), folder / "sasc.png")


def explanation_heading(found: NeuronExplanation) -> str:
    """What a neuron looks for, in one line."""
    return f"{one_line(found.model)}: {found.neuron} looks for {one_line(found.explanation)}"


def explanation_report(
    found: NeuronExplanation, files: Mapping[str, str], setting: Setting, *, said: Sequence[str] = ()
) -> Report:
    """What the neuron looks for, how well that foretells it, and on which excerpts; `said`: the text, as words of a command."""
    kinds = (("top", found.score.top), ("random", found.score.random), ("together", found.score.together))
    scores = [(kind, *_numbers(score), str(score.excerpts), f"{score.tokens:,}") for kind, score in kinds]
    rows = []
    for kind in ("top", "random"):
        pairs = [pair for pair in zip(found.held, found.simulated, strict=True) if pair[0].kind == kind]
        rows += [_excerpt_row(excerpt, simulated) for excerpt, simulated in pairs[:_SHOWN]]
    by = f"by {one_line(found.explainer)}, simulated by {one_line(found.simulator)}; 10 is an activation of {found.scale:.2f}"
    parts: list[Part] = [
        Table(("held out", "correlation", "95 % interval", "excerpts", "tokens"), scores, f"Explained {by}"),
        Table(("excerpt, its largest activation marked", "kind", "activation", "simulated"), rows, "Held-out excerpts"),
    ]
    parts += [filled(f"{one.capitalize()}.") for one in _undefined(kinds)]
    parts += [filled(_without_answer(found.unanswered))] if found.unanswered else []
    parts += [filled(f"Stopped early: {found.stopped}")] if found.stopped else []
    steps = [(setting.command("neuron", found.neuron, *said), "the same neuron from all sides")]
    return Report(heading=explanation_heading(found), parts=parts, data=found.as_json(), files=files, next=steps)


def explanations_report(
    found: Explanations, files: Mapping[str, str], setting: Setting, *, shown: int = 20, said: Sequence[str] = ()
) -> Report:
    """The neurons that are explained best; `said`: which text, as words of a command."""
    best = sorted(found.neurons, key=lambda one: -2.0 if one.score.together.value is None else one.score.together.value)
    best = best[::-1][:shown]
    rows = [
        (
            one.neuron,
            *_numbers(one.score.together),
            _numbers(one.score.top)[0],
            _numbers(one.score.random)[0],
            one_line(one.explanation)[:72],
        )
        for one in best
    ]
    header = ("neuron", "correlation", "95 % interval", "top", "random", "looks for")
    scores = found.scores
    mean = f"mean correlation {sum(scores) / len(scores):.2f}" if scores else "no correlation is defined"
    heading = f"{one_line(found.model)}: {len(found.neurons):,} of {found.asked:,} neurons explained, {mean}"
    undefined = len(found.neurons) - len(scores)
    parts: list[Part] = [Table(header, rows, f"The {len(rows)} that are explained best")]
    parts += [f"{undefined} have no correlation: they, or what is simulated, are the same at every token."] if undefined else []
    parts += _lacking(found)
    steps = [(setting.command("explain", one.neuron, *said), "one neuron with its excerpts") for one in best[:1]]
    return Report(heading=heading, parts=parts, data=found.as_json(), files=files, next=steps)


def _lacking(found: Explanations) -> list[str]:
    """Excerpts and neurons that there is no usable answer for, and the one at which the work was stopped."""
    few = sum(one.unanswered > 0 for one in found.neurons)
    lines = [f"{few} are scored on fewer excerpts: not every answer can be used."] if few else []
    if found.unexplained:
        neuron, why = next(iter(found.unexplained.items()))
        lines.append(f"No answer can be used for {len(found.unexplained)} neurons, such as {neuron}: {one_line(why)}")
    if found.begun is not None:
        lines.append(f"Stopped at {found.begun.neuron}: {one_line(found.begun.stopped)}")
    return [filled(line) for line in lines]


def _without_answer(unanswered: Sequence[str]) -> str:
    return f"Without a usable answer for {len(unanswered)} further excerpts, such as: {one_line(unanswered[0])}"


def module_report(found: ModuleExplanation, files: Mapping[str, str], *, shown: int = 10) -> Report:
    """What the module does most on, and how the explanations do on texts made for them."""
    tops = [(printable(repr(text)), f"{value:.3f}") for text, value in found.ngrams[:shown]]
    rows = [
        (one_line(one.explanation)[:72], f"{one.score:.2f}", f"[{one.low:.2f}, {one.high:.2f}]", one_line(one.example[0])[:40])
        for one in found.candidates
    ]
    title = f"Of {found.counted:,} groups of words (mean {found.mean:.3f}, sigma {found.sigma:.3f}), it does most on"
    parts: list[Part] = [Table(("words", found.reads), tops, title)]
    if rows:
        header = ("explanation", "score", "95 % interval", "a text with it")
        parts.append(Table(header, rows, f"Texts with less texts without, in sigma; {found.texts} of each, by {found.author}"))
    else:
        parts.append("No explanation: no rule holds where it does most.")
    if found.untested:
        words, why = next(iter(found.untested.items()))
        parts.append(filled(f"Not tested: {len(found.untested)}, such as {one_line(words)[:72]}: {one_line(why)}"))
    heading = f"{one_line(found.model)}: what does {one_line(found.module)} answer to?"
    return Report(heading=heading, parts=parts, data=found.as_json(), files=files)


def _numbers(score: Correlation) -> tuple[str, str]:
    """A correlation and its interval in two cells."""
    if score.value is None:
        return "undefined", ""
    return f"{score.value:.2f}", "" if score.low is None else f"[{score.low:.2f}, {score.high:.2f}]"


def _undefined(kinds: Sequence[tuple[str, Correlation]]) -> list[str]:
    return [f"{kind}: {score.undefined}" for kind, score in kinds if score.undefined]


def _excerpt_row(excerpt: Excerpt, simulated: Sequence[float]) -> tuple[str, str, str, str]:
    at = max(range(len(excerpt.tokens)), key=lambda place: excerpt.activations[place])
    before, here, after = "".join(excerpt.tokens[:at]), excerpt.tokens[at], "".join(excerpt.tokens[at + 1 :])
    text = shortened(f"{before}[[{here}]]{after}", _CONTEXT)
    return text, excerpt.kind, f"{round(excerpt.activations[at], 2) + 0.0:.2f}", f"{simulated[at]:.1f}"
