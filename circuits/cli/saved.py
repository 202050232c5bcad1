"""Results opened again: each by the command of its kind, tables and pictures beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from circuits.cli.report import written
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import FileFormatError

_Kind = TypeVar("_Kind")
OPENED_BY = {
    "circuits-ablation": "ablate --open",
    "circuits-attention": "attention --open",
    "circuits-behaviour-scores": "behaviour --open",
    "circuits-compression": "tables compress --open",
    "circuits-direct-logits": "logits --open",
    "circuits-effects": "patch --open",
    "circuits-head-labels": "attention labels --open",
    "circuits-layer-removal": "tables layers --open",
    "circuits-lens": "lens --open",
    "circuits-neuron": "neuron --open",
    "circuits-tables": "tables --open",
    "circuits-terms": "tables terms --open",
    "circuits-trace": "trace --open",
    "circuits-traces": "trace --open",
    "transformer-circuits/circuit": "info",
}
"""The format of a file → the words of the command that shows it."""


def opened(kind: type[_Kind], file: Path) -> _Kind:
    """The saved result of a file. Raises FileFormatError, which names the command that shows the file where it holds a result
    of another kind."""
    try:
        return kind.load(file)  # type: ignore[attr-defined]
    except FileFormatError as error:
        other = _format_of(file)
        words = OPENED_BY.get(other) if other != kind.FORMAT else None  # type: ignore[attr-defined]
        if words is None:
            raise
        raise FileFormatError(f"{error}; circuits {words} {one_line(file)} shows it") from None


def _format_of(file: Path) -> str:
    from circuits.files.reading import read_json
    from circuits.files.results import LARGEST_RESULT

    try:
        data = read_json(file, max_bytes=LARGEST_RESULT)
    except FileFormatError:
        return ""
    return str(data.get("format")) if isinstance(data, dict) else ""


def written_again(
    found: Any, file: Path, setting: Setting, write: Callable[[Any, Path], None], known: Mapping[str, str]
) -> tuple[Setting, dict[str, str]]:
    """Write a saved result's tables and pictures beside its file, or into the folder asked for; gives the setting of that
    folder, and of the files that a command may write (`known`) those that it wrote."""
    setting = setting.beside(file)
    with setting.work() as (staging, _):
        write(found, staging)
        return setting, written(staging, known)
