"""A dictionary and its features, as they are written and printed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Pairs, Part, Report, Table, records
from circuits.cli.reports.neuron import shortened
from circuits.cli.text import filled, one_line, printable
from circuits.concepts import DictionaryReport, FeatureReport

_WRITTEN = 8
"""Tokens of a feature that are printed."""
_NOTE = (
    "without: by how much the loss would rise without the feature, to first order, in thousandths of a nat a token of the "
    "text; name one with --feature to see it taken out."
)


def write(found: DictionaryReport | FeatureReport, folder: Path) -> None:
    """Write the table, with all text in quotes (a token can be a carriage return), and the picture."""
    name = "feature" if isinstance(found, FeatureReport) else "dictionary"
    found.to_dataframe().to_csv(folder / f"{name}.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    save_figure(found.plot(), folder / f"{name}.png")


def dictionary_report(
    found: DictionaryReport, top: int, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()
) -> Report:
    """How well it stands for what is there, and the features that the loss hangs on most."""
    table = found.to_dataframe().sort_values("effect", ascending=False, kind="stable")
    rows = [
        (
            f"f{row['feature']}",
            f"{row['active']:.2%}",
            f"{row['mean']:.2f}",
            f"{1000 * row['effect']:+.2f}",
            printable(repr(row["trigger"])),
            printable(row["raises"]),
        )
        for row in table.head(top).to_dict("records")
    ]
    whole = [
        ("active at a token", f"{found.at_once:.2f} of {len(found.active):,} features; {found.dead:,} never are"),
        ("variance explained", f"{found.explained:.1%}"),
        ("loss", f"{found.loss:.4f} nats a token"),
        ("with its output", f"{found.loss_kept:.4f}"),
        ("with the mean there", f"{found.loss_removed:.4f} (recovered: {found.recovered:.1%})"),
    ]
    parts: list[Part] = [Pairs(f"Over {found.places:,} tokens", whole)]
    header = ("feature", "active", "mean", "without", "most at", "raises")
    parts += [Table(header, rows, title="features that the loss hangs on most"), filled(_NOTE), filled(found.summary)]
    data = {name: getattr(found, name) for name in ("model", "dictionary", "made_by", "site", "kind", "places", "at_once")}
    data |= {name: getattr(found, name) for name in ("explained", "loss", "loss_kept", "loss_removed", "dead")}
    data |= {"recovered": found.recovered if found.loss_removed != found.loss else None}
    data |= {"features": records(found.to_dataframe())}
    made = f" ({one_line(found.made_by)})" if found.made_by else ""
    heading = (
        f"{one_line(found.dictionary)}: what stands at {found.site} of {one_line(found.model)}, by {found.kind} features{made}"
    )
    return Report(heading=heading, parts=parts, data=data, files=files, next=steps)


def feature_report(found: FeatureReport, top: int, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Its triggers, what it raises and lowers, and what is lost without it."""
    rows = [
        (shortened(one.marked()), f"{one.activation:.3f}", "–" if one.following is None else printable(repr(one.following)))
        for one in found.triggers[:top]
    ]
    interval = f"[{found.cost_low:+.4f}, {found.cost_high:+.4f}]" if found.prompts > 1 else "(one prompt)"
    about = [("raises", _tokens(found.raises)), ("lowers", _tokens(found.lowers))]
    about += [
        ("without it", f"the loss changes by {found.cost:+.4f} {interval} nats where it is active, {found.whole:+.5f} overall")
    ]
    parts: list[Part] = [Table(("trigger", "activation", "next token"), rows)] if rows else ["never active"]
    parts.append(Pairs("What it writes (logits a unit of activation), and what is lost without it", about))
    heading = (
        f"{one_line(found.model)}: feature {found.feature} of {one_line(found.dictionary)}, active at {found.active:.2%} of "
        f"{found.places:,} tokens, mean {found.mean:.3f}, largest {found.largest:.3f}"
    )
    return Report(heading=heading, parts=parts, data=found.as_json(), files=files, next=steps)


def _tokens(tokens: Sequence[tuple[str, float]]) -> str:
    return "  ".join(f"{printable(repr(token))} {value:+.2f}" for token, value in tokens[:_WRITTEN])
