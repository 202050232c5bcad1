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
    "with its 95 % bootstrap interval over texts; * surely not 0. all: everything takes what it says of the swapped text."
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
        rows = [("all", _said(found.whole_before[at]), _said(found.whole_after[at]), "")]
        for place in strongest.tolist():
            change = _said(Effect(*(float(getattr(found, name)[at, place]) for name in ("change", "low", "high"))))
            mark = " *" if bool(found.sure[at, place]) else ""
            rows.append(
                (found.nodes[place], f"{found.before[at, place]:+.3f}", f"{found.after[at, place]:+.3f}", change + mark)
            )
        title = f"{one_line(kind)}, {found.texts[at]} texts"
        title += f" (strongest edges shared: {found.shared_edges[at]:.0%})" if found.shared_edges else ""
        parts.append(Table(("node", "before", "after", "change"), rows, title=title))
    parts += [filled(_NOTE), filled(found.summary)]
    data = {"model": found.model, "words": list(found.words), "kinds": list(found.kinds), "texts": list(found.texts)}
    data |= {"whole_before": [vars(one) for one in found.whole_before], "whole_after": [vars(one) for one in found.whole_after]}
    data |= {"shared_edges": list(found.shared_edges), "nodes": records(found.to_dataframe())}
    heading = f"what carries {' and '.join(map(one_line, found.kinds))} in a classifier on {one_line(found.model)}"
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def _said(effect: Effect) -> str:
    return f"{effect.effect:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"
