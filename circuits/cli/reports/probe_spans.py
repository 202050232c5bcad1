"""Edge probes, as they are written and printed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.probes import ScalarMix, SpanProbes
from circuits.probes.results import SURE

_NOTE = (
    "F1: over all spans and labels together. ±: half of a 95 % interval, sentences taken whole. weight: of the stream in the "
    "mix of all; up to here: F1 of a mix of the streams up to this one. Spans are made of words, each with one vector."
)
_MOST = 12
"""Labels that are shown."""


def write(found: SpanProbes, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "spans.csv", index=False)
    save_figure(found.plot(), folder / "spans.png")


def spans_report(found: SpanProbes, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Every place beside its baselines, the mix, and labels one by one."""
    rows = []
    for place, row in enumerate(found.to_dataframe().to_dict("records")):
        shares = [_share(row["f1"], row["standard_error"]), _share(row["random"], row["random_error"])]
        mixed = [
            "" if math.isnan(row["weight"]) else f"{row['weight']:.3f}",
            _share(row["cumulative"], row["cumulative_error"]),
        ]
        rows.append((f"{row['site']}{' *' if place == found.best else ''}", *shares, *mixed))
    beside = ", ".join(f"{name} {_share(*values)}" for name, values in found.baselines.items())
    header = ("place", "F1", "random weights", "weight", "up to here")
    parts: list[Any] = [Table(header, rows, below=f"  * the largest; without any model: {beside}"), filled(_NOTE)]
    if found.mix is not None:
        parts.insert(1, Pairs("mix of layers:", _mixed(found.mix)))
    parts.append(_by_label(found))
    data = {"model": found.model, "asked": found.asked, "labels": list(found.labels), "spans": found.spans}
    data |= {"pooling": found.pooling, "best": found.sites[found.best], "trained": found.trained, "judged": found.judged}
    data |= {"sentences": found.sentences, "left_out": found.left_out, "seed": found.seed, "baselines": found.baselines}
    data |= {"mix": None if found.mix is None else _mix_data(found.mix), "places": records(found.to_dataframe())}
    span = "one span each" if found.spans == 1 else "two spans each"
    return Report(
        heading=f"spans ({one_line(found.asked)}) read off {one_line(found.model)}: {found.judged:,} judged of {span}, "
        f"{len(found.labels)} labels, {found.trained:,} trained on",
        parts=parts,
        data=data,
        files=files,
        next=steps,
    )


def _mixed(mix: ScalarMix) -> list[tuple[str, str]]:
    expected = "none: layers above the first gain nothing sure"
    if mix.expected is not None:
        expected = f"{mix.expected.effect:.2f} [{mix.expected.low:.2f}, {mix.expected.high:.2f}]"
    all_layers = _share(mix.cumulative[-1], mix.errors[-1])
    return [("F1 of all layers", all_layers), ("centre of gravity", f"{mix.centre:.2f}"), ("expected layer", expected)]


def _mix_data(mix: ScalarMix) -> dict[str, Any]:
    expected = None if mix.expected is None else mix.expected.as_json()
    return {"f1": mix.cumulative[-1], "error": mix.errors[-1], "centre": mix.centre, "expected": expected}


def _by_label(found: SpanProbes) -> Table:
    """F1 of the most frequent labels, at the best place and in the embeddings."""
    first = found.sites.index("resid0") if "resid0" in found.sites else found.best
    rows = []
    for column, label in enumerate(found.labels[:_MOST]):
        values = [float(found.by_label[place, column]) for place in (found.best, first)]
        rows.append((one_line(label), *("" if math.isnan(value) else f"{value:.1%}" for value in values)))
    more = len(found.labels) - len(rows)
    header = ("label", f"F1 at {found.sites[found.best]}", f"at {found.sites[first]}")
    return Table(header, rows, below=f"  … and {more} rarer ones" if more else "")


def _share(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%} ± {SURE * error:.1%}"
