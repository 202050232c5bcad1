"""The journal of a run: what its shards found, one after the other, so that a run which was stopped goes on where it was."""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from circuits.errors import FileFormatError
from circuits.files.locking import locked

_OPENING = b"circuits journal 1\n"
_LENGTH, _CHECK = 8, 16
_PAUSE = 1.0
"""Seconds between two times that the disk is made to keep what was written. What a killed process wrote is kept anyway; a power
cut takes this much at most."""

Key = tuple[int, int]
"""The place of the shards in the run, and that of the shard among them."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a shard's bytes lie, of how many it is one and what they did, and how long it took."""

    what: str
    count: int
    seconds: float
    begin: int
    """Of the record."""
    start: int
    length: int


@dataclasses.dataclass(eq=False)
class Journal:
    """An open journal. Records are appended and never changed; one that is not whole, as a kill leaves it, is cut off."""

    path: Path
    plan: dict[str, Any]
    entries: dict[Key, Entry]
    file: IO[bytes]
    lock: int | None
    synced: float = 0.0
    resumed: int = 0
    """Records that were there when it was opened."""

    @classmethod
    def open(cls, path: Path, plan: Mapping[str, Any]) -> "Journal":
        """The journal there, or a new one with this plan; `plan` of the journal is that of who began it. Raises
        FileFormatError where another process has it, for a file that is none, and where nothing can be written."""
        with contextlib.ExitStack() as undo:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = locked(_lock(path))
                undo.callback(_free, path, descriptor)
                file = undo.enter_context(path.open("r+b" if path.exists() else "w+b"))
                found = cls(path, dict(plan), {}, file, descriptor)
                found._read()
            except BlockingIOError:
                raise _under_way(path) from None
            except OSError as error:
                raise FileFormatError(f"{path}: cannot be written: {error.strerror}") from None
            undo.pop_all()
        return found

    @classmethod
    def discard(cls, path: Path) -> None:
        """What is kept there goes, whatever it is. Raises FileFormatError where another process has it."""
        if not path.is_file():
            return
        try:
            descriptor = locked(_lock(path))
        except BlockingIOError:
            raise _under_way(path) from None
        path.unlink(missing_ok=True)
        _free(path, descriptor)

    @property
    def seconds(self) -> float:
        """How long what is kept took."""
        return sum((entry.seconds for entry in self.entries.values()), 0.0)

    def __len__(self) -> int:
        return len(self.entries)

    def _read(self) -> None:
        """Find every whole record, and cut off what follows the last."""
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        begun = self.file.read(len(_OPENING))
        if begun != _OPENING[: len(begun)]:
            raise FileFormatError(f"{self.path}: not a journal of this program: move it away, or name another folder")
        end, plan = len(_OPENING), None
        while (found := self._record(end, size)) is not None:
            head, start, stop = found
            if plan is None:
                plan = head
            else:
                entry = Entry(head["what"], head["count"], head["seconds"], end, start, stop - start)
                self.entries[head["place"], head["shard"]] = entry
            end = stop
        if plan is None:  # killed before it was begun
            self.file.seek(0)
            self.file.truncate()
            self.file.write(_OPENING + _framed(self.plan, b""))
            self.file.flush()
            return
        self.plan, self.resumed = plan, len(self.entries)
        self.file.truncate(end)
        self.file.seek(end)

    def _record(self, start: int, size: int) -> tuple[dict[str, Any], int, int] | None:
        """What a record says of itself, and where its bytes begin and end; None where there is no whole one."""
        self.file.seek(start)
        frame = self.file.read(_LENGTH + _CHECK)
        length = int.from_bytes(frame[:_LENGTH], "little")
        inside = start + len(frame)
        if len(frame) < _LENGTH + _CHECK or inside + length > size:
            return None
        body = self.file.read(length)
        if _check(body) != frame[_LENGTH:]:
            return None
        head, _, _ = body.partition(b"\n")
        return json.loads(head), inside + len(head) + 1, inside + length

    def add(self, key: Key, what: str, count: int, seconds: float, data: bytes) -> None:
        """Keep what a shard found. Raises OSError where the disk is full."""
        head = {"place": key[0], "shard": key[1], "what": what, "count": count, "seconds": round(seconds, 3)}
        record = _framed(head, data)
        end = self.file.seek(0, os.SEEK_END)
        try:
            self.file.write(record)
            self.file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self.file.truncate(end)
            raise
        self.entries[key] = Entry(what, count, seconds, end, end + len(record) - len(data), len(data))
        if time.monotonic() - self.synced > _PAUSE:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def cut(self, place: int) -> None:
        """Forget what was kept from this place of the run on."""
        later = [entry.begin for key, entry in self.entries.items() if key[0] >= place]
        if later:  # shards of one place come before those of the next
            self.file.truncate(min(later))
            self.entries = {key: entry for key, entry in self.entries.items() if entry.begin < min(later)}

    def data(self, key: Key) -> bytes:
        """What a shard found."""
        entry = self.entries[key]
        self.file.seek(entry.start)
        return self.file.read(entry.length)

    def close(self, *, remove: bool) -> None:
        """Let it go; `remove`: the run is at its end."""
        with contextlib.suppress(OSError):
            os.fsync(self.file.fileno())
        self.file.close()
        if remove:
            self.path.unlink(missing_ok=True)
        _free(self.path, self.lock)


def plan_in(path: Path) -> dict[str, Any]:
    """The plan of a journal that is not opened; empty where there is none."""
    try:
        with path.open("rb") as file:
            found = Journal(path, {}, {}, file, None)
            start, size = len(_OPENING), path.stat().st_size
            record = found._record(start, size) if file.read(start) == _OPENING else None
    except (OSError, ValueError):
        return {}
    return {} if record is None else record[0]


def _framed(head: Mapping[str, Any], data: bytes) -> bytes:
    body = json.dumps(head).encode() + b"\n" + data
    return len(body).to_bytes(_LENGTH, "little") + _check(body) + body


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK).digest()


def _under_way(path: Path) -> FileFormatError:
    return FileFormatError(f"{path.parent}: another run of this command is under way there: wait for it")


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _free(path: Path, descriptor: int | None) -> None:
    if descriptor is not None:
        _lock(path).unlink(missing_ok=True)
        os.close(descriptor)
