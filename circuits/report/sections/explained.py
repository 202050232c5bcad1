"""Explanations as sections: what neurons and modules look for, and excerpts with what they do beside what is foretold."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from circuits.lenses import Explanations, ModuleExplanation, NeuronExplanation
from circuits.lenses.explaining.excerpts import LEVELS
from circuits.lenses.explaining.scores import Correlation
from circuits.report.blocks import AnyBlock, Chart, Facts, Grid, Paragraphs, Section
from circuits.report.sections.general import table_of

_EACH = 8
"""ForetoldTexts of each kind that are shown."""
_NEURONS = 40
"""Neurons of which a mark is drawn; the table has all."""


@dataclasses.dataclass(frozen=True)
class ForetoldTexts:
    """Texts token by token, and below each token what a neuron does there and what is foretold, from -10 to 10.

    A row is a mapping: `name`, `tokens`, `real`, `simulated`.
    """

    KIND: ClassVar[str] = "excerpts"
    caption: str
    rows: Sequence[Mapping[str, Any]]


def explanation_section(found: NeuronExplanation, *, title: str = "A neuron explained") -> Section:
    """What a neuron looks for, how well that foretells it, and the held-out excerpts token by token."""
    score = found.score
    rows = [("looks for", found.explanation), ("explained by", found.explainer), ("simulated by", found.simulator)]
    for name, one in (("together", score.together), ("top excerpts", score.top), ("random excerpts", score.random)):
        rows.append((f"correlation, {name}", f"{one} ({one.excerpts} excerpts, {one.tokens:,} tokens)"))
    blocks: list[AnyBlock] = [Paragraphs([found.summary]), Facts(rows)]
    lacking = [f"Stopped early: {found.stopped}."] if found.stopped else []
    lacking += [f"Without a usable answer: {len(found.unanswered)} excerpts."] if found.unanswered else []
    blocks += [Paragraphs(lacking, tone="warning")] if lacking else []
    if found.held:
        about = f"Held-out excerpts: what it does (10 is an activation of {found.scale:.2f}) beside what is foretold"
        blocks.append(ForetoldTexts(about, _excerpts(found)))
    return Section(title, blocks, _word(score.together))


def _excerpts(found: NeuronExplanation) -> list[dict[str, Any]]:
    scale = found.scale if found.scale > 0 else 1.0
    rows = []
    for kind in ("top", "random"):
        pairs = [pair for pair in zip(found.held, found.simulated, strict=True) if pair[0].kind == kind]
        for excerpt, simulated in pairs[:_EACH]:
            real = [max(-LEVELS, min(LEVELS, round(LEVELS * value / scale, 2))) for value in excerpt.activations]
            name = f"{kind}, at most {round(max(excerpt.activations), 2) + 0.0:.2f}"
            foretold = [round(value, 2) for value in simulated]
            rows.append({"name": name, "tokens": list(excerpt.tokens), "real": real, "simulated": foretold})
    return rows


def explanations_section(found: Explanations, *, title: str = "Neurons explained") -> Section:
    """The correlations of the neurons that are explained best, and every neuron in a table."""
    known = [one for one in found.neurons if one.score.together.value is not None]
    best = sorted(known, key=lambda one: -(one.score.together.value or 0.0))[:_NEURONS]
    blocks: list[AnyBlock] = [Paragraphs([found.summary])]
    lacking = [f"{neuron}: {why}" for neuron, why in found.unexplained.items()]
    lacking += [f"Stopped at {found.begun.neuron}: {found.begun.stopped}"] if found.begun is not None else []
    blocks += [Paragraphs(lacking[:8], tone="warning")] if lacking else []
    if best:
        ticks = [(float(place), one.neuron) for place, one in enumerate(best)]
        names = [f"{one.neuron}: {one.explanation}" for one in best]
        series = []
        for name, colour in (("together", "0"), ("top", "2"), ("random", "1")):
            scores: list[Correlation] = [getattr(one.score, name) for one in best]
            words = "all held-out excerpts" if name == "together" else name
            series.append(_points(words, scores, names, colour, reach=name == "together"))
        caption = "Correlation of simulated and real activations, the best first"
        blocks.append(Chart(caption, series, "", "correlation", lines_at=(0.0,), x_ticks=ticks))
    return Section(title, [*blocks, table_of(found)])


def _points(name: str, scores: Sequence[Correlation], names: Sequence[str], colour: str, *, reach: bool) -> dict[str, Any]:
    """A mark a neuron that has such a score, with intervals where all have one."""
    there = [place for place, one in enumerate(scores) if one.value is not None]
    found: dict[str, Any] = {"name": name, "look": "points", "colour": colour, "names": [names[place] for place in there]}
    found |= {"x": [float(place) for place in there], "y": [scores[place].value for place in there]}
    if reach and all(scores[place].low is not None for place in there):
        found |= {side: [getattr(scores[place], side) for place in there] for side in ("low", "high")}
    return found


def module_section(found: ModuleExplanation, *, title: str = "A module explained") -> Section:
    """The groups of words on which a module does most, and the scores of the explanations with their intervals."""
    words = [(_seen(text), value) for text, value in found.ngrams]
    blocks: list[AnyBlock] = [Paragraphs([found.summary])]
    if found.candidates:
        scores = {side: [getattr(one, side) for one in found.candidates] for side in ("score", "low", "high")}
        places = [float(place) for place in range(len(found.candidates))]
        names = [one.explanation for one in found.candidates]
        series = {"name": "explanations", "look": "points", "x": places, "y": scores["score"], "names": names, "colour": "0"}
        series |= {"low": scores["low"], "high": scores["high"]}
        ticks = [(place, str(int(place) + 1)) for place in places]
        caption = f"Texts with each explanation less texts without, {found.texts} each, by {found.author}"
        blocks.append(Chart(caption, [series], "explanation", "sigma", lines_at=(0.0,), x_ticks=ticks))
    if found.untested:
        blocks.append(Paragraphs([f"Not tested: {words}: {why}" for words, why in found.untested.items()], tone="warning"))
    title_of_words = f"{found.reads}: of {found.counted:,} groups of words it does most on (mean {found.mean:.3g})"
    blocks.append(Grid(("words", found.reads), words, title_of_words, folded=True))
    return Section(title, [*blocks, table_of(found, folded=False)])


def _word(score: Correlation) -> str:
    return "no correlation" if score.value is None else f"correlation {score.value:.2f}"


def _seen(text: str) -> str:
    return text.replace("\n", "↵").replace("\t", "⇥")
