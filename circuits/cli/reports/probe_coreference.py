"""Probes of coreference, as they are written and printed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.probes import CoreferenceProbes
from circuits.probes.results import SURE

_NOTE = (
    "Shares of pronouns that point to an earlier mention of what they mean, of all nouns, names and pronouns before them, in "
    "passages that no map was trained on; ±: half of a 95 % interval, passages taken whole."
)


def write(found: CoreferenceProbes, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "coreference.csv", index=False)
    save_figure(found.plot(), folder / "coreference.png")


def coreference_report(found: CoreferenceProbes, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Every place beside its baselines."""
    rows = []
    for place, row in enumerate(found.to_dataframe().to_dict("records")):
        shares = (_share(row["accuracy"], row["standard_error"]), _share(row["random"], row["random_error"]))
        rows.append((f"{row['site']}{' *' if place == found.best else ''}", *shares))
    left = ", ".join(f"{count:,} {why}" for why, count in found.left_out.items())
    beside = ", ".join(f"{name} {_share(*shares)}" for name, shares in found.baselines.items())
    data = {"model": found.model, "pooling": found.pooling, "rank": found.rank, "best": found.sites[found.best]}
    data |= {"judged": found.judged, "trained": found.trained, "passages": found.passages, "seeds": list(found.seeds)}
    data |= {"passage": found.passage, "candidates": found.candidates, "left_out": found.left_out}
    shares = {name: {"accuracy": share, "standard_error": error} for name, (share, error) in found.baselines.items()}
    return Report(
        heading=f"what pronouns refer to, read off {one_line(found.model)}: {found.judged:,} pronouns judged, "
        f"{found.trained:,} trained on, {found.passages:,} passages, {found.candidates:.1f} candidates each",
        parts=[
            f"pronouns left out: {left or 'none'}",
            Table(("place", "pointer", "random weights"), rows, below=f"  * the most accurate; without a model: {beside}"),
            filled(_NOTE),
        ],
        data={**data, "baselines": shares, "places": records(found.to_dataframe())},
        files=files,
        next=steps,
    )


def _share(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%} ± {SURE * error:.1%}"
