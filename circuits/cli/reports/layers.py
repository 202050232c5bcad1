"""The loss without each layer, as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.patching import LayerRemoval

_PARTS = {"attention": "attention", "mlp": "MLP", "both": "layer"}
_NOTE = (
    "direct, total: the true next token's logit, what the part writes itself and what is lost without it; compensation: "
    "what later layers add when it is gone (below 0: they needed it). total has the final norm's scale without the part, the "
    "others that of the whole model: they need not add up."
)


def write(found: LayerRemoval, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "layers.csv", index=False)
    save_figure(found.plot(), folder / "layers.png")


def layers_report(
    found: LayerRemoval, files: Mapping[str, str], source: str = "", steps: Sequence[tuple[str, str]] = ()
) -> Report:
    """What is lost without each layer; `source`: whose tokens were read."""
    rows, tokens = records(found.to_dataframe()), int(found.counts.sum())
    stand = "0" if found.kind == "zero" else "its mean"
    cells = []
    for row in rows:
        values = [f"{row[name]:+.3f}" for name in ("loss", "direct", "total", "compensation")]
        cells.append((f"{_PARTS[row['part']]} {row['layer']}", *values))
    data: dict[str, Any] = {"model": found.model, "kind": found.kind, "tokens": tokens, "loss": found.full_loss}
    return Report(
        heading=f"{one_line(found.model)} without each layer ({stand} in its place), on {tokens:,} tokens{source}\n"
        f"loss of the whole model {found.full_loss:.3f} nats a token",
        parts=[Table(("removed", "loss", "direct", "total", "compensation"), cells), filled(_NOTE)],
        data={**data, "layers": rows, "later": found.later.tolist()},
        files=files,
        next=steps,
    )
