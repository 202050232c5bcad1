"""What changed inside of a classifier, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect
from circuits.uses import InsideChange
from circuits.uses.inside import InsideNeurons

_MOST, _MOST_NEURONS = 10, 12
_NOTE = (
    "Each head and MLP takes what it says of the text with the words swapped, while the rest runs on the text as it is; the "
    "number is by how much the margin of the class that the words speak for falls, in logits, the mean over texts. change: "
    "with its 95 % bootstrap interval over texts; * not 0 by Student's test, corrected over nodes and kinds (Holm): p below "
    "0.05. all: everything takes what it says of the swapped text. of it: the share of that, in the same classifier: "
    "classifiers may differ in the size of their logits."
)
_NEURONS = (
    "Neurons: the same, to first order on the way between both texts (EAP-IG), of those that change most, carry most before, "
    "or carry most after; patched: measured one by one, where others may stand in. * as above, corrected over all neurons "
    "(Bonferroni). active at: the words where the activation is largest, before; raises: the class that the neuron raises by "
    "itself, before."
)
_CIRCUITS = (
    "Circuits: searched by EAP-IG on half of the texts, judged on the other half: what they keep by themselves of what hangs "
    "on the words, p against random circuits of as many edges, and the largest gap to the model when sets of nodes are taken "
    "out of both. Shared edges, of all in either: a mended classifier that shares as many as it does with itself on other "
    "texts goes by the same circuit; one that shares no more than two plain trainings do goes by another."
)


def write(found: InsideChange, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "inside.csv", index=False)
    save_figure(found.plot(), folder / "inside.png")


def inside_report(found: InsideChange, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """For each kind of words the nodes and neurons that carry most of it, before or after, and the circuits."""
    parts: list[Part] = []
    for at, kind in enumerate(found.kinds):
        parts.append(_nodes(found, at))
        parts += [] if found.neurons is None else [_neurons(found.neurons, at, one_line(kind))]
    parts += [_circuits(found), _shared(found)] if found.overlaps else []
    parts.append(filled(_NOTE))
    parts += [] if found.neurons is None else [filled(_NEURONS)]
    parts += [filled(_CIRCUITS)] if found.overlaps else []
    parts.append(filled(found.summary))
    data = {"model": found.model, "words": list(found.words), "kinds": list(found.kinds), "texts": list(found.texts)}
    data |= {"whole_before": [vars(one) for one in found.whole_before], "whole_after": [vars(one) for one in found.whole_after]}
    data |= {"shared_edges": list(found.shared_edges), "overlaps": [vars(one) for one in found.overlaps]}
    data |= {"verdicts_before": [one.standing for one in found.verdicts_before]}
    data |= {"verdicts_after": [one.standing for one in found.verdicts_after], "nodes": records(found.to_dataframe())}
    heading = f"what carries {' and '.join(map(one_line, found.kinds))} in a classifier on {one_line(found.model)}"
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _nodes(found: InsideChange, at: int) -> Table:
    """The heads and MLPs that carry most of a kind."""
    strongest = found.before[at].abs().maximum(found.after[at].abs()).argsort(descending=True, stable=True)[:_MOST]
    rows = [("all", _said(found.whole_before[at]), "", _said(found.whole_after[at]), "", "")]
    shares = [found.shares(after=after)[at] for after in (False, True)]
    for place in strongest.tolist():
        change = _said(Effect(*(float(getattr(found, name)[at, place]) for name in ("change", "low", "high"))))
        mark = " *" if bool(found.sure[at, place]) else ""
        values = [f"{values[at, place]:+.3f}" for values in (found.before, found.after)]
        of = [f"{float(one[place]):.0%}" if bool(one[place].isfinite()) else "" for one in shares]
        rows.append((found.nodes[place], values[0], of[0], values[1], of[1], change + mark))
    title = f"{one_line(found.kinds[at])}, {found.texts[at]} texts"
    return Table(("node", "before", "of it", "after", "of it", "change"), rows, title=title)


def _neurons(found: InsideNeurons, at: int, kind: str) -> Table:
    """The neurons that carry most of a kind, or change most."""
    rows = []
    for place in found.order(at)[:_MOST_NEURONS]:
        change = f"{float(found.change[at, place]):+.3f}" + (" *" if bool(found.sure[at, place]) else "")
        values = [f"{values[at, place]:+.3f}" for values in (found.before, found.after)]
        patched = " → ".join(f"{values[at, place]:+.3f}" for values in (found.patched_before, found.patched_after))
        said = " ".join(map(one_line, found.active_before[place])), one_line(found.raises_before[place])
        rows.append((found.names[place], *values, change, patched, *said))
    title = f"{kind}, single neurons ({len(found.names)} of {found.scored:,}; together {found.held_before[at]:.0%} of what all "
    title += f"neurons have before, {found.held_after[at]:.0%} after)"
    return Table(("neuron", "before", "after", "change", "patched", "active at", "raises"), rows, title=title)


def _circuits(found: InsideChange) -> Table:
    """What the circuit of each kind keeps by itself."""
    rows = []
    for at, kind in enumerate(found.kinds):
        for when, one in (("before", found.verdicts_before[at]), ("after", found.verdicts_after[at])):
            p = "" if one.p_value is None else f"{one.p_value:.3g}"
            gap = "" if one.incompleteness is None else f"{one.incompleteness:.2f}"
            rows.append((f"{one_line(kind)}, {when}", str(one.edges), _said(one.faithfulness), p, gap, one.standing))
    return Table(("circuit", "edges", "keeps", "p", "gap", "verdict"), rows, title="circuits, by themselves on other texts")


def _shared(found: InsideChange) -> Table:
    """The edges that circuits share, beside what others share."""
    rows = []
    for at, kind in enumerate(found.kinds):
        one = found.overlaps[at]
        values = (found.shared_edges[at], one.control, one.apart, one.own)
        rows.append((one_line(kind), *("" if value is None else f"{value:.0%}" for value in values)))
    header = ("edges shared by", "before and after", "two plain trainings", "before and after*", "one and itself*")
    return Table(header, rows, title="circuits, what they share (*: each on other texts)")


def _said(effect: Effect) -> str:
    return f"{effect.effect:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"
