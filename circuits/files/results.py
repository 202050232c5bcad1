"""Results on disk: one JSON document each, of a named format, version 1."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from circuits.errors import CircuitsError, FileFormatError
from circuits.files.reading import read_document
from circuits.files.writing import write_whole

Result = TypeVar("Result")
_WRONG = (CircuitsError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, OverflowError)


def save_result(path: str | Path, kind: str, fields: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write plain values as a document of format `kind`; the file appears whole or not at all. Raises ValueError for NaN and
    infinities."""
    document = {"format": kind, "version": 1, **fields}
    write_whole(Path(path), json.dumps(document, allow_nan=False, indent=indent).encode())


def load_result(
    path: str | Path, kind: str, what: str, build: Callable[[dict[str, Any]], Result], *, max_bytes: int = 2**29
) -> Result:
    """What `build` makes of the document of format `kind` in a file. Raises FileFormatError for any other file, and where its
    parts do not fit together, `what` said as in "the curve does"."""
    data = read_document(path, kind, max_bytes=max_bytes)
    try:
        return build(data)
    except _WRONG as error:
        raise FileFormatError(f"{path}: {what} not fit together: {' '.join(str(error).split())[:150]}") from None
