"""Logical forms of neurons, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Part, Report, Table
from circuits.cli.reports.neuron import shortened, write_table
from circuits.cli.text import filled, one_line, printable
from circuits.concepts import NeuronForm, NeuronForms
from circuits.probes.results import SURE

_MOST, _TOLD, _WIDE = 20, 5, 76
"""Neurons of a table; neurons up to which each is told by itself; characters of a form there."""
_NOTE = (
    "IoU: words (tokens) where neuron and form hold, over those where either does. alone: of the best single concept. moved: "
    "the mean IoU that the same search finds for the neuron's mask moved along the text. held out: of the best form on half of "
    "the documents, on the others (by chance: over all moves of the mask there; p: the share of moves that reach it, for all "
    "neurons asked about, Benjamini-Hochberg). rise: of the next token's loss (nats) with the neuron at its mean, ± its 95 %."
)


def write(found: NeuronForms, folder: Path) -> None:
    """Write the table and the picture."""
    write_table(found.to_dataframe(), folder / "forms.csv")
    save_figure(found.plot(), folder / "forms.png")


def compose_report(
    found: NeuronForms, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = (), *, said: str = ""
) -> Report:
    """The neurons that are explained best, then the few asked about one by one."""
    best = found.ranked[:_MOST]
    header = ("neuron", "IoU", "alone", "moved", "held out", "by chance", "p", "rise", "form")
    rows = [(*_row(one), one_line(one.form) if len(found.neurons) > _TOLD else "") for one in best]
    rows = rows if len(found.neurons) > _TOLD else [row[:-1] for row in rows]
    shown = (
        f"the {len(best)} of {len(found.neurons):,} neurons that are explained best" if len(best) < len(found.neurons) else ""
    )
    table = Table(header[: len(rows[0])], rows, title=shown, below="  * fits held-out text by more than chance")
    parts: list[Part] = [said] if said else []
    parts += [table, *([part for one in best for part in _told(one, found)] if len(found.neurons) <= _TOLD else [])]
    parts += [filled(_NOTE), *map(filled, _asides(found)), filled(found.summary)]
    heading = (
        f"neurons of {one_line(found.model)} as forms of up to {found.length} of {found.concepts:,} concepts "
        f"({one_line(found.source)})\nactive: {one_line(found.rule)}; {found.words:,} {found.unit}, moved {found.moves} times"
    )
    return Report(heading=heading, parts=parts, data=found.as_json(), files=files, next=steps)


def _row(one: NeuronForm) -> tuple[str, ...]:
    """A neuron's numbers."""
    rise = "" if one.rise is None or one.rise_error is None else f"{one.rise:+.2g} ± {SURE * one.rise_error:.1g}"
    return (
        f"{one.neuron}{' *' if one.sure else ''}",
        f"{one.iou:.2f}",
        f"{one.concept_iou:.2f}",
        _shown(one.null),
        _shown(one.held_iou),
        _shown(one.held_null, 3),
        "" if one.held_adjusted is None else f"{one.held_adjusted:.2g}",
        rise,
    )


def _told(one: NeuronForm, found: NeuronForms) -> list[Part]:
    """One neuron: its form, the words that decide, and examples."""
    null = "" if one.null is None else f"; moved {one.null:.2f}, at most {one.null_high:.2f}, p = {one.p_value:.2g}"
    rows = [
        ("form", printable(one.form)),
        ("", f"IoU {one.iou:.2f}: {one.both:,} of its {one.active:,} and the form's {one.holds:,} {found.unit}{null}"),
        ("best alone", f"{printable(one.concept)} ({one.concept_iou:.2f})"),
        ("on half", f"{printable(one.half_form)} ({one.half_iou:.2f} there, {_shown(one.held_iou) or 'none'} on the others)"),
        ("both", _counted(one.words)),
        ("neuron alone", _counted(one.neuron_alone)),
        ("form alone", _counted(one.form_alone)),
    ]
    examples = [(what, shortened(text, _WIDE)) for what, text in one.examples]
    parts: list[Part] = [Pairs(one.neuron, [row for row in rows if row[1]])]
    return [*parts, Pairs(f"{one.neuron}, some places", examples)] if examples else parts


def _counted(words: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{printable(word) or '␣'} ({count})" for word, count in words)


def _asides(found: NeuronForms) -> list[str]:
    """What else is to be said."""
    lines = []
    if found.agreement is not None:
        one = found.agreement
        lines.append(
            f"Explained well and needed: Spearman's correlation of the held-out IoU with the rise in loss is {one.effect:+.2f} "
            f"[{one.low:.2f}, {one.high:.2f}] (the whole model's loss is {found.loss:.2f} on {found.loss_tokens:,} tokens)."
        )
    if found.silent:
        lines.append(f"{len(found.silent):,} neurons are active nowhere, or everywhere, such as {found.silent[0]}: left out.")
    if found.left_out:
        lines.append("Concepts left out: " + ", ".join(f"{count:,} {why}" for why, count in found.left_out.items()) + ".")
    return lines


def _shown(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
