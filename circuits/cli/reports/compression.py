"""The ranks that heads need, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import one_line
from circuits.heads import Compression

_FIELDS = ("model", "tolerance", "tokens", "loss", "joint_loss", "parameters", "whole_parameters")


def write(found: Compression, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "compression.csv", index=False)
    save_figure(found.plot(), folder / "compression.png")


def compression_report(
    found: Compression, files: Mapping[str, str], source: str = "", steps: Sequence[tuple[str, str]] = ()
) -> Report:
    """The smallest rank of each part, and the loss with all cut at once; `source`: whose tokens were read."""
    heading = (
        f"Smallest ranks of {one_line(found.model)}'s heads (of {found.d_head}) on {found.tokens:,} tokens{source}\n"
        f"each part by itself costs at most {found.tolerance:g} nats a token; loss of the whole model {found.loss:.3f}"
    )
    pairs = list(zip(found.parts[::2], found.parts[1::2], strict=True))
    cells = [(qk.head, str(qk.rank), f"{qk.change:+.4f}", str(ov.rank), f"{ov.change:+.4f}") for qk, ov in pairs]
    share = found.parameters / found.whole_parameters
    joint = (
        f"all at once: loss {found.joint_loss:.3f} ({found.joint_loss - found.loss:+.3f}), "
        f"{found.parameters:,} of {found.whole_parameters:,} numbers ({share:.0%})"
    )
    header = ("head", "rank of W_QK", "loss", "rank of W_OV", "loss")
    data = {**{name: getattr(found, name) for name in _FIELDS}, "parts": records(found.to_dataframe())}
    return Report(heading=heading, parts=[Table(header, cells), joint], data=data, files=files, next=steps)
