"""The mark of a folder whose files are not all there: which run writes them, and how far it has come."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError
from circuits.files.reading import read_document
from circuits.files.staging import is_staging

FORMAT = "circuits-unfinished"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run that has begun to write its files. The mark goes when the last of them is there; where it stays, the run was
    stopped, and `ended` says by what (empty where it was killed, and while it runs)."""

    command: str
    """The command line."""
    began: str
    """When, as ISO 8601."""
    done: Mapping[str, str]
    """The files that are there, each with what is in it; all are whole, and all of this run."""
    missing: Mapping[str, str]
    """Those that were still to come, and in words what some of those that are there lack."""
    ended: str = ""
    staging: str = ""
    """Of its hidden folder, the name without suffix."""

    def save(self, path: Path) -> None:
        """Write the mark; not whole at once, so elsewhere first."""
        path.write_text(json.dumps({"format": FORMAT, "version": 1, **dataclasses.asdict(self)}, indent=1) + "\n")

    def without(self, names: set[str]) -> "Unfinished":
        """The same run, some files of which another run has written since."""
        done, missing = ({name: what for name, what in kept.items() if name not in names} for kept in (self.done, self.missing))
        return dataclasses.replace(self, done=done, missing=missing)

    def describe(self, folder: Path) -> str:
        """In one line, whether it still runs, and what is missing."""
        if self.staging and is_staging(folder, self.staging):
            how = "is still running"
        else:
            how = f"did not finish ({self.ended or 'killed'})"
        words = f"unfinished: {self.command} (begun {self.began[:16].replace('T', ' ')}) {how}{self.lacks}"
        return " ".join(words.split())

    @property
    def lacks(self) -> str:
        """What was still to be done, and the files that were still to come, in words; "" where nothing was."""
        files = [name for name in self.missing if "." in name]
        rest = [name for name in self.missing if "." not in name]
        return "".join(f"; {what}: {', '.join(names)}" for what, names in (("not done", rest), ("missing", files)) if names)


def mark_name(job: str) -> str:
    """The mark's file name for the runs of a command."""
    return f"unfinished-{job.replace(' ', '-')}.json"


def marks(folder: Path) -> Iterator[tuple[Path, Unfinished]]:
    """The marks in a folder; a damaged one is none."""
    for path in sorted(folder.glob("unfinished-*.json")):
        try:
            yield path, load_mark(path)
        except FileFormatError:
            continue


def unfinished_run(file: Path) -> str | None:
    """In one line, that the run which wrote a file did not finish; None where it did, as far as one can tell."""
    for _, mark in marks(file.parent):
        if file.name in {*mark.done, *mark.missing}:
            return mark.describe(file.parent)
    return None


def load_mark(path: Path) -> Unfinished:
    """A mark. Raises FileFormatError for any other file."""
    data: dict[str, Any] = read_document(path, FORMAT)
    texts = {name: data.get(name) for name in ("command", "began", "ended", "staging")}
    files = {name: data.get(name) for name in ("done", "missing")}
    if not all(isinstance(text, str) for text in texts.values()) or not all(isinstance(one, dict) for one in files.values()):
        raise FileFormatError(f"{path}: not a file of format {FORMAT}")
    return Unfinished(**texts, **files)  # type: ignore[arg-type]
