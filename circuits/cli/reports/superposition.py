"""What toy models pack, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled
from circuits.concepts import Superposition

_NOTE = (
    "kept: features given back by at least half. packed: |W|², the sum of their squared lengths. dimensionality: what share of "
    "a dimension a kept feature has, from the least to the most: 1 of its own, 1/2 in an antipodal pair, 2/5 in a pentagon."
)


def write(found: Superposition, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "superposition.csv", index=False)
    save_figure(found.plot(), folder / "superposition.png")


def superposition_report(found: Superposition, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """A table a kind of model, one row a sparsity."""
    parts: list = []
    for kind, name in enumerate(found.kinds):
        rows = []
        for place in found.sparsity.argsort().tolist():
            shares = found.dimensionality[kind, place][found.norms[kind, place] >= 0.5]
            reach = f"{float(shares.min()):.2f} to {float(shares.max()):.2f}" if len(shares) else "none"
            packed, kept = float(found.packed[kind, place]), int(found.represented[kind, place])
            loss = float(found.loss[kind, place].min())
            rows.append((f"{float(found.sparsity[place]):.0%}", str(kept), f"{packed:.2f}", reach, f"{loss:.3g}"))
        parts.append(Table(("zero", "kept", "packed", "dimensionality", "loss"), rows, title=f"with {name}"))
    hidden, features = found.W.shape[-2:]
    data = {"features": features, "hidden": hidden, "seeds": found.W.shape[2], "steps": found.steps, "batch": found.batch}
    data |= {"seed": found.seed, "rows": records(found.to_dataframe())}
    heading = f"{features} features in {hidden} dimensions, the best of {found.W.shape[2]} starts"
    return Report(heading=heading, parts=[*parts, filled(_NOTE), filled(found.summary)], data=data, files=files, next=steps)
