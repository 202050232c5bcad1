"""Typed and trained prompts, as they are written and printed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.probes import PromptProbes
from circuits.probes.prompts.results import KINDS
from circuits.probes.results import SURE

_NOTE = (
    "Shares of facts that nothing was trained on, answers restricted to the relation's objects; ±: half of a 95 % interval, a "
    "fact's several seeds taken together. trained: vectors learnt from the frozen model's answers to other such facts; "
    "random weights, random embeddings: the same of models that know nothing; majority: the most frequent object. hard facts: "
    "those that none of these three gets right."
)


def write(found: PromptProbes, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "prompts.csv", index=False)
    save_figure(found.plot(), folder / "prompts.png")


def prompts_report(found: PromptProbes, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = ()) -> Report:
    """Relations, with each kind of prompts beside the others."""
    rows = []
    for row in found.to_dataframe().to_dict("records"):
        shares = [_share(row[kind.replace(" ", "_")], row[f"{kind.replace(' ', '_')}_error"]) for kind in KINDS]
        rows.append((one_line(row["relation"]) or "no relation", f"{row['facts']:,}", f"{row['objects']:,}", *shares))
    left = "; ".join(f"{number:,}: {why}" for why, number in found.left_out.items())
    data = {"model": found.model, "vectors": found.vectors, "epochs": found.epochs, "seeds": list(found.seeds)}
    data |= {"left_out": found.left_out, "relations": records(found.to_dataframe())}
    for name in ("only_trained", "beyond_random"):
        share, error = getattr(found, name)
        data[name] = None if math.isnan(share) else {"share": share, "standard_error": error}
    return Report(
        heading=f"facts that {one_line(found.model)} completes: {len(found.subjects):,} of {len(found.relations)} relations, "
        f"{found.vectors} prompt vectors, {len(found.seeds)} seeds",
        parts=[
            f"facts left out: {left or 'none'}",
            Table(("relation", "judged", "objects", *KINDS), rows, below=f"  {_only(found)}"),
            filled(_NOTE),
        ],
        data=data,
        files=files,
        next=steps,
    )


def _only(found: PromptProbes) -> str:
    beyond = _share(*found.beyond_random)
    said = f"right by the trained prompt, wrong by the typed one: {_share(*found.only_trained)}"
    return f"{said}; and wrong by random weights too: {beyond}" if beyond else said


def _share(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%} ± {SURE * error:.1%}"
