"""What a file may ask for, looked at before it is read: bytes, the memory that its values would take, and how deep they nest.

A file is gone through piece by piece, at some hundred megabytes a second and in the memory of one piece, so that one that was
made to fill the memory, or is none of the kind, is refused before anything of it is held.
"""

import codecs
import dataclasses
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from circuits.errors import FileFormatError

Kind = Literal["json", "rows", "text"]
"""What is counted: values of one JSON document; rows of JSON Lines, of a JSON list or of CSV; nothing but bytes."""
DEEPEST = 100
"""Lists and objects in JSON within one another, give or take those that a few rounds of looking at closed ones pass over."""
_ROUNDS = 4
_PIECE = 2**20
_LARGEST_HEADER = 32 * 2**20
_FREE = 40 * 2**20
_DENSEST = 12
"""Bytes of memory that the values of a file may take: so many, and so many a byte of it. Numbers and words as programs write
them take two to ten; a file of `[],[],[]` takes thirty."""
_LIST, _OBJECT, _VALUE, _TEXT, _LINE, _CELL = 72, 200, 32, 60, 400, 70
"""Bytes that Python takes for an empty list, an object of a few keys, a number with its place in a list, a text beside its
letters; and here for a row of a table and a cell."""
_STRING = re.compile(rb'"[^"\n\x01]*"?')
_OTHERS = bytes(set(range(256)) - set(b'"[]{},:\n\x01'))
_STEP = [0] * 256
_STEP[ord("[")] = _STEP[ord("{")] = 1
_STEP[ord("]")] = _STEP[ord("}")] = -1


def check_file(path: Path, *, max_bytes: int, kind: Kind = "json", naming: str = "") -> None:
    """Look a file over before it is read.

    Raises FileFormatError, with the file's name, for one of more than `max_bytes`, one that is no UTF-8, one whose values would
    take far more memory than those of a file of its size do or nest far more than 100 deep, and, where it is of some megabytes,
    one in which the word `naming` does not stand. What is no regular file can be read only once: it is passed over, and
    `check_content` is for what was read. Raises OSError where there is none.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return
    check_size(path, found.st_size, max_bytes)
    with path.open("rb") as file:
        _check(path, iter(lambda: file.read(_PIECE), b""), found.st_size, kind, naming.encode())


def check_header(path: Path) -> None:
    """The same for the header of a safetensors file: JSON after eight bytes that tell its length. Raises FileFormatError for
    one of more than 32 MiB or longer than the file, OSError where there is no file."""
    with path.open("rb") as file:
        there = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(there - 8, _LARGEST_HEADER):
            raise FileFormatError(f"{path}: no file of tensors: a header of {length:,} bytes in a file of {there:,} bytes")
        left = [min(_PIECE, length - at) for at in range(0, length, _PIECE)]
        _check(path, (file.read(count) for count in left), length, "json", b"")


def check_content(path: Path | str, content: bytes, *, kind: Kind = "json", naming: str = "") -> None:
    """The same for what was read, but for its size."""
    pieces = (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))
    _check(path, pieces, len(content), kind, naming.encode())


def check_size(path: Path | str, size: int, max_bytes: int) -> None:
    """Raise FileFormatError for more than `max_bytes`."""
    if size > max_bytes:
        raise FileFormatError(
            f"{path}: {size:,} bytes, larger than {max_bytes:,} bytes; pass a larger max_bytes if you trust the file"
        )


def is_regular(path: Path) -> bool:
    """Whether a path is that of a file that can be read twice, and no pipe. Raises OSError where there is none."""
    return stat.S_ISREG(path.stat().st_mode)


def _check(path: Path | str, pieces: Iterable[bytes], size: int, kind: Kind, naming: bytes) -> None:
    decoder, at = codecs.getincrementaldecoder("utf-8")(), 0
    counted: _Json | _Table | None = None
    named = not naming or size <= 2 * _PIECE
    before = b""
    for piece in pieces:
        _decode(path, decoder, piece, at)
        at += len(piece)
        if counted is None:
            counted = _counter(piece, kind, _FREE + _DENSEST * size)
        if counted is not None and (wrong := counted.feed(piece)):
            raise FileFormatError(f"{path}: {wrong}")
        named = named or naming in before + piece
        before = piece[-len(naming) :] if naming else b""
    _decode(path, decoder, b"", at, final=True)
    if not named:
        raise FileFormatError(f"{path}: not a file of format {naming.decode()}")


def _decode(path: Path | str, decoder: codecs.IncrementalDecoder, piece: bytes, at: int, *, final: bool = False) -> None:
    held = len(decoder.getstate()[0])
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not UTF-8 text: byte {at - held + error.start} cannot be decoded") from None


def _counter(first: bytes, kind: Kind, room: int) -> "_Json | _Table | None":
    """What counts the values of a file that begins so."""
    if kind == "text":
        return None
    begins = first.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    return _Table(room) if kind == "rows" and begins not in (b"[", b"{") else _Json(room, lines=kind == "rows")


@dataclasses.dataclass
class _Table:
    """Rows and cells of CSV."""

    room: int
    taken: int = 0

    def feed(self, piece: bytes) -> str:
        """Count one more piece; what is wrong, in words."""
        self.taken += _LINE * piece.count(b"\n") + _CELL * max(piece.count(b","), piece.count(b"\t"))
        return _too_many(self.taken, self.room)


@dataclasses.dataclass
class _Json:
    """Values of JSON and how deep they nest. A line that begins with a brace is taken for the beginning of a document, as in
    JSON Lines, so that damaged lines do not add up; strings end with their line."""

    room: int
    lines: bool
    others: int = 0
    quotes: int = 0
    colons: int = 0
    depth: int = 0
    inside: bool = False
    cut: bytes = b""
    """A backslash before a piece's end, which goes with the next one."""

    def feed(self, piece: bytes) -> str:
        """Count one more piece; what is wrong, in words."""
        bare = self._bare(piece)
        self.quotes += bare.count(b'"')
        told = b'"' + bare if self.inside else bare
        line = told[max(told.rfind(b"\n"), told.rfind(b"\x01")) + 1 :]
        self.inside = line.count(b'"') % 2 == 1
        kept = _STRING.sub(b"", told.replace(b'""', b""))  # of most strings nothing but the quotes is left by now
        self.colons += kept.count(b":")
        objects = kept.count(b"{") + kept.count(b"\x01")
        self.others += _LIST * kept.count(b"[") + _OBJECT * objects + _VALUE * kept.count(b",")
        if self.lines:
            self.others += _TEXT * (kept.count(b"\n") + kept.count(b"\x01"))
        return _too_many(self.taken, self.room) or self._nesting(kept)

    @property
    def taken(self) -> int:
        """Bytes that the values so far take; keys are kept once."""
        return self.others + _TEXT * max(self.quotes // 2 - self.colons, 0)

    def _bare(self, piece: bytes) -> bytes:
        """A piece without what is neither a bracket, a quote, a comma, a colon nor a line's end, and without quotes that are
        part of a string; a line that begins with a brace begins with byte 1."""
        piece = self.cut + piece
        odd = (len(piece) - len(piece.rstrip(b"\\"))) % 2
        piece, self.cut = (piece[:-1], b"\\") if odd else (piece, b"")
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        return piece.replace(b"\x01", b"").replace(b"\n{", b"\x01").translate(None, _OTHERS)

    def _nesting(self, kept: bytes) -> str:
        brackets = kept.translate(None, b",:\n")
        for _ in range(_ROUNDS):  # what is closed again at once is not deep, and most of a file
            before = len(brackets)
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"").replace(b"\x01}", b"")
            if len(brackets) == before:
                break
        for number, part in enumerate(brackets.split(b"\x01")):
            begun = 1 if number else self.depth
            if max(itertools.accumulate(map(_STEP.__getitem__, part), initial=begun)) > DEEPEST:
                return "nested too deeply"
            self.depth = begun + 2 * (part.count(b"[") + part.count(b"{")) - len(part)
        return ""


def _too_many(taken: int, room: int) -> str:
    if taken <= room:
        return ""
    return f"holds more values than a file of its size does: they would take over {room // 2**20:,} MiB of memory"


def lines_of(path: Path, *, max_bytes: int, longest: int = 2**20) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, each with its number from 1, without what ends it, one at a time. Raises FileFormatError for a
    file that is missing, larger than `max_bytes` or not UTF-8, and for a line of more than `longest` bytes."""
    with path.open("rb") as file:
        check_size(path, os.fstat(file.fileno()).st_size, max_bytes)
        at, number = 0, 0
        while content := file.readline(longest + 1):
            number += 1
            if len(content) > longest:
                raise FileFormatError(f"{path}: line {number}: longer than {longest:,} bytes")
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError as error:
                raise FileFormatError(f"{path}: not UTF-8 text: byte {at + error.start} cannot be decoded") from None
            at += len(content)
            yield number, (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")
