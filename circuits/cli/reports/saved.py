"""What is in a file or a folder that a command wrote, in a line each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circuits.cli.report import Pairs, Report
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line, quoted
from circuits.errors import CircuitsError, FileFormatError
from circuits.files.unfinished import load_mark, marks
from circuits.files.words import counted
from circuits.report.kinds import KINDS, Kind, format_of, load_saved, origin_in

_READ = (".json", ".safetensors")
_LARGEST_LOOK = 64 * 2**20
"""Bytes of a file in a folder below that is read to count it."""


def result_report(file: Path, kind: Kind, found: Any, setting: Setting) -> Report:
    """A saved result: what it is, in words, and how to see more of it."""
    command = [word for word in kind.command.split() if word]
    shown = setting.command(*command, str(file), model=False) if command else ""
    cls, made = f"circuits.{kind.cls}", origin_in(file)
    return Report(
        heading=f"{one_line(file)}: {kind.what}",
        parts=[filled(found.summary), *([f"made by: {one_line(made)}"] if made else [])],
        data={"file": str(file), "format": type(found).FORMAT, "class": cls, "summary": one_line(found.summary)}
        | {"command": made or None},
        next=[
            *([(shown, "all of it")] if shown else []),
            (f"python -c {quoted(f'import circuits; print({cls}.load({str(file)!r}).to_dataframe())')}", "as a table"),
        ],
    )


def mark_report(file: Path) -> Report:
    """The mark of a run that did not finish: which one, what is there, and what is missing."""
    mark = load_mark(file)
    said = one_line(mark.describe(file.parent))
    there = [(one_line(name), one_line(what)) for name, what in mark.done.items()]
    parts = [Pairs("There, each of them whole", there)] if there else []
    return Report(
        heading=f"{one_line(file)}: the mark of a run whose files are not all there",
        parts=[said, *parts],
        data={"file": str(file), "unfinished": said, "command": mark.command, "ended": mark.ended}
        | {"done": [*mark.done], "missing": [*mark.missing]},
        next=[(one_line(mark.command), "the whole run again")],
    )


def folder_report(folder: Path) -> Report:
    """The results of a folder, a line each, and whether the runs that wrote them finished. Raises FileFormatError for a folder
    that holds none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _READ and not path.name.startswith("."))
    rows = [(one_line(path.name), said) for path in files if (said := _in_a_line(path))]
    unfinished = [one_line(mark.describe(folder)) for _, mark in marks(folder)]
    below = {f"{one.name}/": said for one in sorted(folder.iterdir()) if one.is_dir() and (said := _of_folder(one))}
    if not rows and not unfinished and not below:
        for path in files:
            if _is_result(path):  # one of a later version, or a damaged one, says why it is not read
                load_saved(path)
        raise FileFormatError(f"{folder}: a folder without a saved result; name a file, or a folder that a command wrote")
    lists = [Pairs(what, held) for what, held in (("Results", rows), ("Folders", list(below.items()))) if held]
    more = f", and {counted(len(below), 'folder')} with more" if below else ""
    return Report(
        heading=f"{one_line(folder)}: {counted(len(rows), 'saved result')}{more}",
        parts=[*unfinished, *lists],
        data={"folder": str(folder), "results": dict(rows), "folders": below, "unfinished": unfinished},
        next=_next(folder, [name for name, _ in rows], list(below)),
    )


def _next(folder: Path, files: Sequence[str], folders: Sequence[str]) -> list[tuple[str, str]]:
    """The page of all, and more of one file or folder."""
    setting = Setting(job="info")
    page = [(setting.command("report", str(folder), model=False), "all of it as one page")] if files else []
    one = [setting.command("info", str(folder / name), model=False) for name in [*files[:1], *folders[:1]]]
    return [*page, *((line, "more of one") for line in one)]


def _of_folder(folder: Path) -> str:
    """What is in a folder below; nothing where it holds no result, or cannot be looked into."""
    if folder.name.startswith("."):
        return ""
    try:
        studied = folder / "studied.json"
        if studied.is_file() and (said := _in_a_line(studied)):
            return said
        count = sum(_is_result(path) for path in folder.iterdir() if path.suffix.lower() in _READ)
    except OSError:
        return ""
    return counted(count, "saved result") if count else ""


def _is_result(file: Path) -> bool:
    """Whether a file is a result; one too large to be read for that alone is not looked into."""
    try:
        return file.stat().st_size <= _LARGEST_LOOK and format_of(file) in KINDS
    except FileFormatError:
        return False


def _in_a_line(file: Path) -> str:
    """What a file holds; nothing for one of another program."""
    try:
        kind, found = load_saved(file)
    except CircuitsError:
        return ""
    words = one_line(found.summary)
    return f"{kind.what}: {words if len(words) <= 160 else words[:159] + '…'}"
