"""Pictures in files: PNG, SVG and PDF from one call, in one look, and the same bytes from the same picture."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.files.writing import write_whole

FORMATS = ("png", "svg", "pdf")
"""What a picture can be saved as."""
_DOTS_PER_INCH = 150
_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",  # text that can be searched, selected and edited, not outlines
    "svg.hashsalt": "circuits",  # else ids are drawn at random, and no two files are alike
    "pdf.fonttype": 42,  # letters embedded as TrueType, which journals ask for and editors can edit
}
_UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What would tell when, or by which version, a file was made."""


def save(figure: Figure, path: str | Path, *, formats: Sequence[str] = (), dots_per_inch: int = _DOTS_PER_INCH) -> list[Path]:
    """Write a picture in one format or in several, each file whole or not at all; gives the files. Text stays text in SVG, and
    in PDF its letters are embedded; equal pictures are equal bytes, as no file says when it was made. Raises CircuitsError for
    a format that there is none of, FileFormatError where nothing can be written.

    Args:
        figure: what `result.plot()` gives.
        path: where to; of several formats, each takes its own suffix in place of this one's.
        formats: png, svg, pdf (default: what the path's suffix says).
        dots_per_inch: of PNG; the others are drawn as lines.

    >>> import circuits, tempfile
    >>> graph = circuits.Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=0)
    >>> figure = circuits.Circuit(graph, ["input->a0.h0<v>", "a0.h0->logits"]).plot()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in circuits.plots.save(figure, f"{folder}/circuit.png", formats=("png", "svg", "pdf"))]
    ['circuit.png', 'circuit.svg', 'circuit.pdf']
    """
    path = Path(path)
    wanted = list(formats) or [path.suffix.lower().removeprefix(".")]
    for name in wanted:
        if name not in FORMATS:
            raise CircuitsError(f"{path}: pictures are saved as {', '.join(FORMATS)}, got {name!r}")
    written = []
    for name in wanted:
        file, content = path.with_suffix(f".{name}") if formats else path, io.BytesIO()
        with mpl.rc_context(_LOOK):
            figure.savefig(content, format=name, dpi=dots_per_inch, metadata=_UNDATED[name])
        write_whole(file, content.getvalue())
        written.append(file)
    return written
