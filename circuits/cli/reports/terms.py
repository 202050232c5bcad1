"""The order of terms as it is written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import one_line
from circuits.patching import Terms


def write(found: Terms, folder: Path) -> None:
    """Write the tables and the picture."""
    found.heads_dataframe().to_csv(folder / "terms_heads.csv", index=False)
    found.to_dataframe().to_csv(folder / "terms.csv", index=False)
    save_figure(found.plot(), folder / "terms.png")


def terms_report(found: Terms, files: Mapping[str, str], source: str = "", steps: Sequence[tuple[str, str]] = ()) -> Report:
    """The loss of each order, and the heads whose own terms are worth most; `source`: whose tokens were read."""
    heads = found.heads_dataframe().sort_values("rise", ascending=False, kind="stable")
    said = {"frozen": ", MLPs as the run wrote them", "zero": ", MLPs left out", "none": ""}[found.mlps]
    tokens = int(found.counts.sum())
    names = ["direct path", *(_order_name(n) for n in range(1, len(found.losses)))]
    rows = [(name, f"{found.loss(n):.3f}", _gain(found, n)) for n, name in enumerate(names)]
    rows += [("the model itself", f"{found.full_loss:.3f}", ""), ("knowing nothing", f"{found.uniform:.3f}", "")]
    shown = [(row["head"], f"{row['rise']:+.3f}") for row in heads.loc[heads["order"] == 1].head(8).to_dict("records")]
    title = "Heads whose own term is worth most (rise of the loss of order 1 without it)"
    data: dict[str, Any] = {"model": found.model, "mlps": found.mlps, "tokens": tokens, "loss": found.full_loss}
    data |= {"uniform": found.uniform, "orders": [{"order": n, "loss": found.loss(n)} for n in range(len(found.losses))]}
    return Report(
        heading=f"Order of terms in {one_line(found.model)}: loss on {tokens:,} tokens{source}{said}",
        parts=[Table(("terms", "loss (nats)", "gain"), rows), Table(("head", "nats"), shown, title)],
        data={**data, "heads": records(heads)},
        files=files,
        next=steps,
    )


def _order_name(order: int) -> str:
    return {1: "+ single heads", 2: "+ virtual heads of two"}.get(order, f"+ virtual heads of {order}")


def _gain(found: Terms, order: int) -> str:
    if order == 0:
        return ""
    gain = found.loss(order - 1) - found.loss(order)
    if len(found.full) == 1:
        return f"{gain:+.3f}"
    spread = found.interval(order)
    return f"{gain:+.3f} [{spread.low:.3f}, {spread.high:.3f}]"
