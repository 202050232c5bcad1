"""What is in a file or a folder that a command wrote, in a line each."""

from pathlib import Path
from typing import Any

from circuits.cli.report import Pairs, Report
from circuits.cli.saved import Kind, load_saved
from circuits.cli.settings import Setting
from circuits.cli.text import filled, one_line, quoted
from circuits.errors import CircuitsError, FileFormatError
from circuits.files.unfinished import load_mark, marks

_READ = (".json", ".safetensors")


def result_report(file: Path, kind: Kind, found: Any, setting: Setting) -> Report:
    """A saved result: what it is, in words, and how to see more of it."""
    command = [word for word in kind.command.split() if word]
    shown = setting.command(*command, str(file), model=False) if command else ""
    cls = f"circuits.{kind.cls}"
    return Report(
        heading=f"{one_line(file)}: {kind.what}",
        parts=[filled(found.summary)],
        data={"file": str(file), "format": type(found).FORMAT, "class": cls, "summary": one_line(found.summary)},
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
    if not rows and not unfinished:
        raise FileFormatError(f"{folder}: a folder without a saved result; name a file, or a folder that a command wrote")
    return Report(
        heading=f"{one_line(folder)}: {len(rows)} saved result{'' if len(rows) == 1 else 's'}",
        parts=[*unfinished, Pairs("Results", rows)] if rows else unfinished,
        data={"folder": str(folder), "results": dict(rows), "unfinished": unfinished},
        next=[(Setting(job="info").command("info", str(folder / name), model=False), "more of one") for name, _ in rows[:1]],
    )


def _in_a_line(file: Path) -> str:
    """What a file holds; nothing for one of another program."""
    try:
        kind, found = load_saved(file)
    except CircuitsError:
        return ""
    words = one_line(found.summary)
    return f"{kind.what}: {words if len(words) <= 160 else words[:159] + '…'}"
