"""Hidden folders in which files are written before they appear; what killed processes left of theirs is swept."""

import contextlib
import fnmatch
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from circuits.errors import FileFormatError
from circuits.files.locking import locked

_HIDDEN = re.compile(r"\.[0-9a-f]{8}\.(lock|tmp)")
_OLD = 24 * 3600.0
"""Seconds after which a hidden folder that nobody ever locked is somebody's no longer."""

_TRIES = 5
"""How often a lock of its own is tried."""


@contextlib.contextmanager
def staging(directory: Path, *, names: Collection[str] = (), who: str = "") -> Iterator[Path]:
    """A hidden folder inside `directory`, which is made where it is missing; both go when the block ends, `directory` where it
    is still empty.

    It is locked while the block lasts, and no longer where the process is killed: then the next one here sweeps it. `names`:
    files of `directory` that nobody else may write meanwhile (`*` stands for any text), `who`: who writes them. Raises
    FileFormatError where another process is writing one of them, and where nothing can be written. Where the system or the disk
    knows no locks, nobody is kept out and nothing is swept.
    """
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    there = next(folder for folder in (directory, *directory.parents) if folder not in missing)
    if not there.is_dir():
        raise FileFormatError(f"{directory}: cannot be written: {'it' if there == directory else there} is a file")
    lock, folder = _names(directory)
    descriptor = None
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock, folder, descriptor = _fresh(directory)
            folder.mkdir()
            if descriptor is not None:
                os.write(descriptor, json.dumps({"who": who, "names": sorted(names)}).encode())
        except OSError as error:
            raise FileFormatError(f"{directory}: cannot be written: {error.strerror}") from None
        if descriptor is not None:
            _sweep(directory, lock, names)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            lock.unlink(missing_ok=True)
            os.close(descriptor)
        for made in missing:  # those that are empty, innermost first
            with contextlib.suppress(OSError):
                made.rmdir()


def _names(directory: Path) -> tuple[Path, Path]:
    """A lock and a hidden folder that nobody else has."""
    token = secrets.token_hex(4)
    return directory / f".{token}.lock", directory / f".{token}.tmp"


def _fresh(directory: Path) -> tuple[Path, Path, int | None]:
    """The same, locked. A lock is made before it is held: somebody who sweeps may hold it in between, taking it for that of a
    killed process; then another one is tried."""
    for tries in range(_TRIES):
        lock, folder = _names(directory)
        try:
            return lock, folder, locked(lock)
        except BlockingIOError:
            if tries == _TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def is_hidden(path: Path) -> bool:
    """Whether a file stands in a folder of this kind, from which it still moves."""
    return any(part.endswith(".tmp") and _HIDDEN.fullmatch(part) for part in path.parts[:-1])


def is_staging(directory: Path, token: str) -> bool:
    """Whether the process whose hidden folder is called so still has it."""
    lock = directory / f"{token}.lock"
    if not _HIDDEN.fullmatch(lock.name):
        return False
    try:
        descriptor = locked(lock, make=False)  # one that its owner has just removed must not come back
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it is not ours to open
        return False
    if descriptor is not None:
        os.close(descriptor)
    return False


def _sweep(directory: Path, own: Path, names: Collection[str]) -> None:
    """Remove what killed processes left here; FileFormatError where a living one is writing a file of these names."""
    for lock in sorted(directory.glob(".*.lock")):
        if lock == own or not _HIDDEN.fullmatch(lock.name):
            continue
        try:
            descriptor = locked(lock, make=False)
        except BlockingIOError:
            who, claimed = _claims(lock)
            shared = sorted(name for name in names if any(_overlap(name, other) for other in claimed))
            if shared:
                raise FileFormatError(f"{directory}: another run is writing {shared[0]} there{who}: wait for it") from None
            continue
        except OSError:  # gone since, or not ours to open
            continue
        shutil.rmtree(lock.with_suffix(".tmp"), ignore_errors=True)
        lock.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)
    for folder in directory.glob(".*.tmp"):  # from before there were locks
        if _HIDDEN.fullmatch(folder.name) and folder.is_dir() and not folder.with_suffix(".lock").exists():
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _OLD:
                    shutil.rmtree(folder, ignore_errors=True)


def _overlap(name: str, other: str) -> bool:
    """Whether a file can have both names, of which either may be a pattern."""
    return fnmatch.fnmatchcase(name, other) or fnmatch.fnmatchcase(other, name)


def _claims(lock: Path) -> tuple[str, set[str]]:
    """Who holds a lock, in words, and the files that are theirs to write; none while they have not said so."""
    try:
        said = json.loads(lock.read_bytes())
        return f" ({said['who']})" if said["who"] else "", set(said["names"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", set()
