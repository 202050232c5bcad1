"""What changed inside of a classifier, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.statistics import Effect
from circuits.uses import InsideChange

_MOST = 10
_NOTE = (
    "Each head and MLP takes what it says of the text with the words swapped, while the rest runs on the text as it is; the "
    "number is by how much the margin of the class that the words speak for falls, in logits, the mean over texts. change: "
    "with its 95 % bootstrap interval over texts; * not 0 by Student's test, corrected over nodes and kinds (Holm): p below "
    "0.05. all: everything takes what it says of the swapped text. of it: the share of that, in the same classifier: "
    "classifiers may differ in the size of their logits. Edges shared say little without those of two plain trainings. Heads "
    "and MLPs are looked at, not single neurons."
)


def write(found: InsideChange, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "inside.csv", index=False)
    save_figure(found.plot(), folder / "inside.png")


def inside_report(found: InsideChange, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """For each kind of words the nodes that carry most of it, before or after."""
    parts: list[Part] = []
    for at, kind in enumerate(found.kinds):
        strongest = found.before[at].abs().maximum(found.after[at].abs()).argsort(descending=True, stable=True)[:_MOST]
        rows = [("all", _said(found.whole_before[at]), "", _said(found.whole_after[at]), "", "")]
        shares = [found.shares(after=after)[at] for after in (False, True)]
        for place in strongest.tolist():
            change = _said(Effect(*(float(getattr(found, name)[at, place]) for name in ("change", "low", "high"))))
            mark = " *" if bool(found.sure[at, place]) else ""
            values = [f"{values[at, place]:+.3f}" for values in (found.before, found.after)]
            of = [f"{float(one[place]):.0%}" if bool(one[place].isfinite()) else "" for one in shares]
            rows.append((found.nodes[place], values[0], of[0], values[1], of[1], change + mark))
        title = f"{one_line(kind)}, {found.texts[at]} texts"
        title += f" (strongest edges shared: {found.shared_edges[at]:.0%})" if found.shared_edges else ""
        parts.append(Table(("node", "before", "of it", "after", "of it", "change"), rows, title=title))
    parts += [filled(_NOTE), filled(found.summary)]
    data = {"model": found.model, "words": list(found.words), "kinds": list(found.kinds), "texts": list(found.texts)}
    data |= {"whole_before": [vars(one) for one in found.whole_before], "whole_after": [vars(one) for one in found.whole_after]}
    data |= {"shared_edges": list(found.shared_edges), "nodes": records(found.to_dataframe())}
    heading = f"what carries {' and '.join(map(one_line, found.kinds))} in a classifier on {one_line(found.model)}"
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _said(effect: Effect) -> str:
    return f"{effect.effect:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"
