"""Structural probes, as they are written and printed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.probes import TreeProbes
from circuits.probes.results import SURE

_NOTE = (
    "UUAS: the share of relations between words that are no punctuation which the minimum spanning tree of the distances has; "
    "DSpr, NSpr: rank correlations of distances and of depths; root: sentences whose word of least depth is the root. ±: half "
    "of a 95 % interval, sentences taken whole."
)


def write(found: TreeProbes, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "trees.csv", index=False)
    save_figure(found.plot(), folder / "trees.png")


def tree_report(found: TreeProbes, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Every place beside its baselines."""
    rows = []
    for place, row in enumerate(found.to_dataframe().to_dict("records")):
        uuas = [_share(row["uuas"], row["standard_error"]), _share(row["random"], row["random_error"])]
        rest = (_number(row["dspr"]), _number(row["nspr"]), _share(row["root"], row["root_error"]))
        rows.append((f"{row['site']}{' *' if place == found.best else ''}", *uuas, *rest))
    chain = found.chain
    header = ("place", "UUAS", "random weights", "DSpr", "NSpr", "root")
    below = (
        f"  * the most relations; each word attached to the next one: UUAS {_share(chain['uuas'], chain['error'])}, "
        f"DSpr {_number(chain['distance'])}"
    )
    data = {"model": found.model, "pooling": found.pooling, "rank": found.rank, "best": found.sites[found.best]}
    data |= {"judged": found.judged, "relations": found.relations, "trained": found.trained, "seed": found.seed}
    return Report(
        heading=f"trees read off {one_line(found.model)}: {found.relations:,} relations of {found.judged:,} sentences judged, "
        f"{found.trained:,} trained on",
        parts=[Table(header, rows, below=below), filled(_NOTE)],
        data={**data, "chain": chain, "places": records(found.to_dataframe())},
        files=files,
        next=steps,
    )


def _share(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%} ± {SURE * error:.1%}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
