"""Whether heads divide the kinds of words between them, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.concepts import Specialisation
from circuits.concepts.branches.results import BRANCHES

_SHOWN = 12
_NOTE = (
    "information: I(class; head) of the words that are looked at, as a share of the smaller entropy, with the 95 % interval "
    "over sentences; shuffled: with classes shuffled among words of the same place in their sentences, so that looking at "
    "places tells nothing. apart: nats (KL) from the mean of all heads; p of it for all heads together. Where a head looks "
    "is a hint, not what it does."
)


def write(found: Specialisation, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "specialisation.csv", index=False)
    save_figure(found.plot(), folder / "specialisation.png")


def specialisation_report(found: Specialisation, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """The whole beside chance, then the heads that differ most."""
    whole, informations = [], {}
    for at, branch in enumerate(BRANCHES):
        low, high = found.interval(branch)
        own, null = float(found.information[at]), found.null[at]
        middle, chance = float(null.mean()), float(found.chance[at])
        whole.append((branch, f"{own:.3f} [{low:.3f}, {high:.3f}]", f"{middle:.3f} ± {float(null.std()):.3f}", f"{chance:.2g}"))
        informations[branch] = {"information": own, "low": low, "high": high, "shuffled": middle, "p_value": chance}
    grouped = found.grouped
    spread = f"{float(grouped.mean()):.3f} ± {float(grouped.std()):.3f}"
    whole.append(("layer, heads shuffled", f"{float(found.information[1]):.3f}", spread, f"{found.grouped_chance:.2g}"))
    table = found.to_dataframe().sort_values("divergence", ascending=False, kind="stable").head(_SHOWN)
    mean, rows = dict(zip(found.classes, found.profile.mean(dim=(0, 1)).tolist(), strict=True)), []
    for row in table.to_dict("records"):
        most = one_line(row["most"])
        mark = " *" if row["head"] in found.specialised else ""
        looks = f"{row[row['most']]:.0%} ({mean[row['most']]:.0%})"
        rows.append((f"{row['head']}{mark}", f"{row['divergence']:.3f}", f"{row['p_value']:.2g}", most, looks))
    heads = Table(("head", "apart", "p", "looks at", "share (of all)"), rows, below="  * surely other than the rest")
    data: dict[str, Any] = {"model": found.model, "property": found.column, "classes": list(found.classes)}
    data |= {"words": int(found.counts.sum()), "sentences": found.sentences, "left_out": found.left_out, "seed": found.seed}
    data |= {"branches": informations, "specialised": list(found.specialised), "heads": records(found.to_dataframe())}
    data |= {"heads_over_layers": {"information": float(grouped.mean()), "p_value": found.grouped_chance}}
    words = f"{int(found.counts.sum()):,} words of {len(found.classes)} classes in {found.sentences:,} sentences"
    heading = f"Do heads of {one_line(found.model)} divide {one_line(found.column)} between them?\n{words}, "
    heading += f"{found.null.shape[1]} shuffles"
    first = Table(("branch", "information", "shuffled", "p"), whole)
    parts = [first, heads, filled(_NOTE), filled(found.summary)]
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)
