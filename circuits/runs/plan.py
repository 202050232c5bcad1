"""What a run is: the same plan means the same shards, byte by byte."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError

_ELSEWHERE = ("model", "keep", "statistics")
"""Options whose files are no part of a plan: a model's weights are in `about`, the others grow while the run goes on."""


def plan_of(command: str, options: Mapping[str, Any], about: Mapping[str, str]) -> dict[str, Any]:
    """The plan of a command: its options, with the digests of the files that they name, and `about`: versions, the model."""
    given, files = {}, {}
    for name, value in sorted(options.items()):
        given[name] = value if isinstance(value, (bool, int, float)) or value is None else str(value)
        for one in _named(value) if name not in _ELSEWHERE else ():
            if digest := _digest(Path(one)):
                files[one] = digest
    return {"command": command, "options": given, "files": files, "about": dict(about)}


def _named(value: Any) -> list[str]:
    """What may be paths in an option's value: each of several, and what stands between commas."""
    texts = [str(one) for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, (str, Path))]
    return [name for text in texts for name in dict.fromkeys([text, *text.split(",")]) if name]


def _digest(path: Path) -> str | None:
    """Of a file's content, or of those of all files in a folder; None for what is no path."""
    try:
        if path.is_dir():
            inside = [(one.name, _digest(one)) for one in sorted(path.iterdir()) if one.is_file()]
            return hashlib.sha256(repr(inside).encode()).hexdigest()
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # a prompt is no path, and what cannot be read is for its reader to say
        return None


def require_same(path: Path, theirs: Mapping[str, Any], plan: Mapping[str, Any], kept: str) -> None:
    """Raise FileFormatError, with the first difference, where a journal is that of another run; `kept`: what it holds."""
    apart = difference(theirs, plan)
    if apart is not None:
        raise FileFormatError(
            f"{path.parent}: {kept} of another run is kept there ({theirs.get('command')}): {apart}; "
            "go on with that command, name another folder with --out, or give it up with --fresh"
        )


def difference(theirs: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
    """The first difference between two plans, in words; None where they are of the same run."""
    for part in ("options", "files", "about"):
        there, here = theirs.get(part, {}), plan[part]
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                said = [_short(one.get(name)) for one in (there, here)]
                return f"{name.replace('_', ' ')} is {said[0]} there and {said[1]} here"
    return None


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
