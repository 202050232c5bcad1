"""Surprisal gaps by layer, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.probes import Anomalies
from circuits.probes.results import SURE
from circuits.statistics import share_interval

_NOTE = (
    "gap: by how many nats the wrong sentence of a pair surprises the layer more than the right one, ± half of a 95 % interval "
    "over pairs; d: in standard deviations of pairs; pairs: those whose wrong sentence surprises more (chance: half); p: the "
    "chance of such a gap anywhere in the layers, by shuffled pairs."
)
_MOST = 6
"""Groups that are printed layer by layer."""


def write(found: Anomalies, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "anomalies.csv", index=False)
    save_figure(found.plot(), folder / "anomalies.png")


def anomaly_report(found: Anomalies, where: str, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Of each group where it first stands out; then layer by layer."""
    rows = []
    for number, (group, count) in enumerate(zip(found.groups, found.counts, strict=True)):
        first, most = found.first(number), int(found.effects[number].argmax())
        gap = f"{float(found.gaps[number, most]):+.2f} ± {SURE * float(found.errors[number, most]):.2f}"
        first_site = "nowhere" if first is None else found.sites[first]
        rest = (f"{found.effects[number, most]:.2f}", f"{found.shares[number, most]:.1%}")
        rows.append((one_line(group), str(count), first_site, found.sites[most], gap, *rest))
    header = ("group", "count", "first beyond chance", "most at", "gap there, nats", "d", "pairs")
    parts: list[Part] = [Table(header, rows), filled(_NOTE)]
    parts += [_layers(found, number) for number in range(min(_MOST, len(found.groups)))]
    data = {"model": found.model, "groups": list(found.groups), "counts": list(found.counts), "tokens": found.tokens}
    data |= {"left_out": found.left_out, "shuffles": found.shuffles, "seed": found.seed}
    more = f"; {found.left_out} pairs left out" if found.left_out else ""
    return Report(
        heading=f"wrong sentences in the layers of {one_line(found.model)}: Gaussians of {found.tokens:,} tokens{where}{more}",
        parts=parts,
        data={**data, "places": records(found.to_dataframe())},
        files=files,
        next=steps,
    )


def _layers(found: Anomalies, number: int) -> Table:
    rows = []
    for place, site in enumerate(found.sites):
        gap = f"{float(found.gaps[number, place]):+.2f} ± {SURE * float(found.errors[number, place]):.2f}"
        within = share_interval(float(found.shares[number, place]), found.counts[number])
        share = f"{within.effect:.1%} [{within.low:.1%}, {within.high:.1%}]"
        rest = (f"{found.effects[number, place]:.2f}", f"± {found.null[number, place]:.2f}", share)
        rows.append((site, gap, *rest, f"{found.p_values[number, place]:.3f}"))
    header = ("place", "gap, nats", "d", "shuffled", "pairs", "p")
    return Table(header, rows, title=f"{one_line(found.groups[number])}, {found.counts[number]} pairs")
