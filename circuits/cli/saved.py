"""Results opened again: each by the command of its kind, tables and pictures beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from circuits.cli.output import pictured
from circuits.cli.report import written
from circuits.cli.settings import Setting
from circuits.cli.text import one_line
from circuits.errors import FileFormatError
from circuits.report.kinds import KINDS, format_of

_Kind = TypeVar("_Kind")
OPENED_BY = {name: kind.command for name, kind in KINDS.items() if kind.command and kind.command != "lens --tuned"}
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
    try:
        return format_of(file)
    except FileFormatError:
        return ""


def shown_again(known: Mapping[str, str], file: Path, setting: Setting) -> tuple[list[str], list[str]]:
    """`replacing` and `names` for `Setting.work`, where a saved result's tables and pictures are written again: in another
    folder than the result's, those of an earlier run there go."""
    drawn = [name for name in known if Path(name).suffix in (".csv", ".png", ".svg", ".pdf")]
    beside = setting.folder.resolve() == file.parent.resolve()
    return ([], drawn) if beside else (drawn, [])


def written_again(
    found: Any, file: Path, setting: Setting, write: Callable[[Any, Path], None], known: Mapping[str, str]
) -> tuple[Setting, dict[str, str]]:
    """Write a saved result's tables and pictures beside its file, or into the folder asked for; gives the setting of that
    folder, and of the files that a command may write (`known`) those that it wrote."""
    setting = setting.beside(file)
    replacing, names = shown_again(known, file, setting)
    with setting.work(replacing=replacing, names=names) as (staging, _):
        write(found, staging)
        every = {one: what for name, what in known.items() for one in pictured([name])}
        return setting, written(staging, every)
