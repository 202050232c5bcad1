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
from circuits.files.locking import clear_half_written, locked
from circuits.files.writing import settle, write_whole

_OPENING = b"circuits journal 1\n"
_LENGTH, _CHECK = 8, 16
_PAUSE = 1.0
"""Seconds between two times that the disk is made to keep what was written. What a killed process wrote is kept anyway; a power
cut takes this much at most, for what took longer goes there at once."""

Key = tuple[int, int]
"""The place of the shards in the run, and that of the shard among them."""
SO_FAR = -1
"""In place of a shard: what the only one of its place has come to so far."""


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


@dataclasses.dataclass(frozen=True)
class SoFar:
    """What a shard on its way has come to: the place of the run that it is the only one of, and how long that took."""

    place: int
    what: str
    seconds: float


@dataclasses.dataclass(eq=False)
class Journal:
    """An open journal. Records are appended and never changed; one that is not whole, as a kill leaves it, is cut off. What a
    long shard has come to so far stands in a file beside it, which is replaced as a whole."""

    path: Path
    plan: dict[str, Any]
    entries: dict[Key, Entry]
    file: IO[bytes]
    """Without a buffer: what could not be written is not tried again when it is closed."""
    lock: int | None
    synced: float = 0.0
    resumed: int = 0
    """Records that were there when it was opened."""
    kinds: dict[int, tuple[str, int]] = dataclasses.field(default_factory=dict)
    """What the shards of each place do, and how many there are."""
    so_far: SoFar | None = None
    """Of the shard that was under way last."""

    @classmethod
    def open(cls, path: Path, plan: Mapping[str, Any]) -> "Journal":
        """The journal there, or a new one with this plan; `plan` of the journal is that of who began it. Raises
        FileFormatError where another process has it, for a file that is none, and where nothing can be written."""
        with contextlib.ExitStack() as undo:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = locked(_lock(path))
                undo.callback(_free, path, descriptor)
                file = undo.enter_context(path.open("r+b" if path.exists() else "w+b", buffering=0))
                found = cls(path, dict(plan), {}, file, descriptor)
                found._read()
                found._read_so_far()
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
        _remove(path)
        _free(path, descriptor)

    @property
    def seconds(self) -> float:
        """How long what is kept took."""
        so_far = 0.0 if self.so_far is None else self.so_far.seconds
        return sum((entry.seconds for entry in self.entries.values()), so_far)

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
                self.kinds[head["place"]] = (entry.what, entry.count)
            end = stop
        if plan is None:  # killed before it was begun
            self.file.seek(0)
            self.file.truncate()
            self._write(_OPENING + _framed(self.plan, b""))
            settle([self.path.parent])
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
            self._write(record)
        except OSError:
            with contextlib.suppress(OSError):
                self.file.truncate(end)
            raise
        self.entries[key] = Entry(what, count, seconds, end, end + len(record) - len(data), len(data))
        self.kinds[key[0]] = (what, count)
        if seconds > _PAUSE or time.monotonic() - self.synced > _PAUSE:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()
        if self.so_far is not None and self.so_far.place == key[0]:
            self._forget()

    def _write(self, data: bytes) -> None:
        """Write all of it where the file stands, and not less without a word."""
        left = memoryview(data)
        while left:
            left = left[self.file.write(left) :]

    def keep(self, place: int, what: str, seconds: float, data: bytes) -> None:
        """Keep what the only shard of a place has come to so far, in place of what it or another had. Raises FileFormatError
        where the disk is full."""
        head = {"run": self._run, "place": place, "what": what, "seconds": round(seconds, 3)}
        write_whole(_beside(self.path), _framed(head, data))
        self.so_far = SoFar(place, what, head["seconds"])

    def kept(self, place: int, what: str) -> bytes | None:
        """What the only shard of a place had come to; None where there is nothing of it."""
        if self.so_far is None or (self.so_far.place, self.so_far.what) != (place, what):
            return None
        found = _unframed(_beside(self.path))
        return None if found is None else found[1]

    def cut(self, place: int) -> None:
        """Forget what was kept from this place of the run on."""
        if self.so_far is not None and self.so_far.place >= place:
            self._forget()
        later = [entry.begin for key, entry in self.entries.items() if key[0] >= place]
        if later:  # shards of one place come before those of the next
            self.file.truncate(min(later))
            self.entries = {key: entry for key, entry in self.entries.items() if entry.begin < min(later)}
            self.kinds = {there: kind for there, kind in self.kinds.items() if there < place}

    def data(self, key: Key) -> bytes:
        """What a shard found."""
        entry = self.entries[key]
        self.file.seek(entry.start)
        return self.file.read(entry.length)

    def close(self, *, remove: bool) -> None:
        """Let it go; `remove`: the run is at its end."""
        try:
            with contextlib.suppress(OSError):
                os.fsync(self.file.fileno())
            with contextlib.suppress(OSError):
                self.file.close()
            if remove:
                _remove(self.path)
        finally:
            _free(self.path, self.lock)

    @property
    def _run(self) -> str:
        """Which run this is, in a word: no other has the same plan begun at the same time."""
        return _check(json.dumps(self.plan, sort_keys=True).encode()).hex()

    def _read_so_far(self) -> None:
        """Find what a shard had come to, where that is of this run."""
        clear_half_written(_beside(self.path))
        head, _ = _unframed(_beside(self.path)) or ({}, b"")
        if head.get("run") == self._run:
            self.so_far = SoFar(head["place"], head["what"], head["seconds"])
            self.resumed += 1

    def _forget(self) -> None:
        """What a shard had come to goes."""
        self.so_far = None
        _beside(self.path).unlink(missing_ok=True)


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


def _unframed(path: Path) -> tuple[dict[str, Any], bytes] | None:
    """What is in a file of one record; None where there is none, or it is not whole."""
    try:
        frame = path.read_bytes()
    except OSError:
        return None
    body = frame[_LENGTH + _CHECK :]
    if len(body) != int.from_bytes(frame[:_LENGTH], "little") or _check(body) != frame[_LENGTH : _LENGTH + _CHECK]:
        return None
    head, _, data = body.partition(b"\n")
    return json.loads(head), data


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK).digest()


def _under_way(path: Path) -> FileFormatError:
    return FileFormatError(f"{path.parent}: another run of this command is under way there: wait for it")


def _beside(path: Path) -> Path:
    """Where a shard on its way has what it has come to, of a journal."""
    return path.with_name(f"{path.name}.state")


def _remove(path: Path) -> None:
    """A journal goes, and what stands beside it."""
    for one in (_beside(path), path):
        one.unlink(missing_ok=True)


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _free(path: Path, descriptor: int | None) -> None:
    if descriptor is not None:
        _lock(path).unlink(missing_ok=True)
        os.close(descriptor)
