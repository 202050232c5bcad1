"""Structural probes, as they are written and printed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.reports.tree_text import tree_text
from circuits.cli.text import filled, one_line
from circuits.plots.tree_arcs import tree_arcs_figure
from circuits.probes import TreeProbes
from circuits.probes.results import SURE

_NOTE = (
    "UUAS: the share of relations between words that are no punctuation which the minimum spanning tree of the distances has; "
    "DSpr, NSpr: rank correlations of distances and of depths; root: sentences whose word of least depth is the root. ±: half "
    "of a 95 % interval, sentences taken whole."
)

_NONSENSE = (
    "pseudo-words: how much smaller UUAS is where content words of the same sentences are pronounceable strings with the same "
    "endings, which the probes never saw; ± by sentence, each its own comparison."
)


def write(found: TreeProbes, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "trees.csv", index=False)
    save_figure(found.plot(), folder / "trees.png")
    if found.shown:
        save_figure(tree_arcs_figure(found), folder / "tree_arcs.png")


def tree_report(found: TreeProbes, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Every place beside its baselines."""
    rows = []
    for place, row in enumerate(found.to_dataframe().to_dict("records")):
        uuas = [_share(row["uuas"], row["standard_error"]), _share(row["random"], row["random_error"])]
        rest = (_number(row["dspr"]), _number(row["nspr"]), _share(row["root"], row["root_error"]))
        rest = (*rest, _share(row["drop"], row["drop_error"])) if found.drops else rest
        rows.append((f"{row['site']}{' *' if place == found.best else ''}", *uuas, *rest))
    chain = found.chain
    header = ("place", "UUAS", "random weights", "DSpr", "NSpr", "root", *(["pseudo-words: less"] if found.drops else []))
    below = (
        f"  * the most relations; each word attached to the next one: UUAS {_share(chain['uuas'], chain['error'])}, "
        f"DSpr {_number(chain['distance'])}"
    )
    data = {"model": found.model, "pooling": found.pooling, "rank": found.rank, "best": found.sites[found.best]}
    data |= {"judged": found.judged, "relations": found.relations, "trained": found.trained, "seed": found.seed}
    more = found.details
    data |= {"geometry": more.geometry if more else "euclidean", "by_rank": _ranks(found)}
    parts: list[Part] = [Table(header, rows, below=below)]
    parts += [_tried(found)] if _ranks(found) else []
    parts += [f"a judged sentence, read off {found.sites[found.best]}:\n{tree_text(found.shown[0])}"] if found.shown else []
    parts += [filled(f"{_NONSENSE} Such a sentence: {one_line(more.nonsense)}")] if more and more.drops else []
    return Report(
        heading=f"trees read off {one_line(found.model)}: {found.relations:,} relations of {found.judged:,} sentences judged, "
        f"{found.trained:,} trained on",
        parts=[*parts, filled(_NOTE)],
        data={**data, "chain": chain, "places": records(found.to_dataframe())},
        files=files,
        next=steps,
    )


def _tried(found: TreeProbes) -> str:
    """The ranks that were tried, on a line."""
    said = [f"{row['rank']}: {_share(row['uuas'], row['standard_error'])}" for row in _ranks(found)]
    return f"UUAS at {found.sites[found.best]} by rank: {', '.join(said)}"


def _ranks(found: TreeProbes) -> list[dict[str, Any]]:
    by_rank = () if found.details is None else found.details.by_rank
    return [{"rank": rank, "uuas": share, "standard_error": error} for rank, share, error in by_rank]


def _share(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%} ± {SURE * error:.1%}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
