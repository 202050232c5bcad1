"""What a GGUF file says before its tensors: values and tensor table, read strictly.

The libraries that read the tensors trust these numbers: a wrong count has them run for hours or allocate without end. Here
every length is held against the file's size first. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import ModelError, shown

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Kind of a value → how `struct` reads it."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_SHORT = 1024
"""Longest array of numbers whose values are kept."""


@dataclasses.dataclass(frozen=True)
class Array:
    """An array among a file's values: its length, and its numbers where they are few."""

    length: int
    numbers: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor's name, its shape in PyTorch's order, its number format by ggml's name, and where it lies behind the header."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    nbytes: int


@dataclasses.dataclass(frozen=True)
class GGUFHeader:
    """Values by key, tensors by name, and the place where the header ends and the tensors begin."""

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    start: int

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the model's family."""
        return str(self.values["general.architecture"])

    @property
    def stored(self) -> str:
        """The number formats of the tensors, by the bytes they take: "Q4_1, Q8_0, F32"."""
        taken = Counter[str]()
        for tensor in self.tensors.values():
            taken[tensor.kind] += tensor.nbytes
        return ", ".join(kind for kind, _ in taken.most_common())


def read_header(path: Path) -> GGUFHeader:
    """The header of a GGUF file. Raises ModelError for a file that is none, or is cut or damaged."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            return _parse(_Cursor(held), path)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ModelError(f"{path} cannot be read as a GGUF file: {error}") from None
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ModelError(f"{path}: the file is cut or damaged: its header ends early or is no text") from None


@dataclasses.dataclass
class _Cursor:
    """A place in the file; reading moves it on and never beyond the end."""

    held: mmap.mmap
    at: int = 0

    @property
    def left(self) -> int:
        """Bytes behind this place."""
        return len(self.held) - self.at

    def numbers(self, form: str, count: int = 1) -> tuple[Any, ...]:
        """The next numbers of a struct format. Raises struct.error beyond the end."""
        width = struct.calcsize(f"<{form}")
        if count * width > self.left:
            raise struct.error("beyond the end")
        self.at += count * width
        return struct.unpack_from(f"<{count}{form}", self.held, self.at - count * width)

    def number(self, form: str) -> Any:
        """The next one."""
        return self.numbers(form)[0]

    def skip(self, count: int) -> None:
        """Move on. Raises struct.error beyond the end."""
        if count > self.left:
            raise struct.error("beyond the end")
        self.at += count

    def text(self) -> str:
        """The next text: its length, then its bytes."""
        length = self.number("Q")
        self.skip(length)
        return self.held[self.at - length : self.at].decode("utf-8")


def _parse(cursor: _Cursor, path: Path) -> GGUFHeader:
    magic = bytes(cursor.numbers("B", 4))
    if magic != b"GGUF":
        raise ModelError(f"{path} is no GGUF file: it begins with {magic!r}, expected b'GGUF'")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise ModelError(f"{path}: GGUF version {version} is not read, expected one of {', '.join(map(str, _VERSIONS))}")
    n_tensors, n_values = cursor.numbers("Q", 2)
    if n_tensors * 32 + n_values * 13 > cursor.left:  # the least that a tensor and a value take
        raise ModelError(f"{path}: the file is cut or damaged: no room for {n_tensors} tensors and {n_values} values")
    values: dict[str, Any] = {}
    for _ in range(n_values):
        key = cursor.text()
        if key in values or not key.isprintable():
            what = "stands there twice" if key in values else "is no name of a value"
            raise ModelError(f"{path}: the file is damaged: {shown(key)} {what}")
        values[key] = _value(cursor, path, key)
    architecture = values.get("general.architecture")
    if not (isinstance(architecture, str) and architecture.isprintable() and 0 < len(architecture) < 100):
        raise ModelError(f"{path} names no architecture: general.architecture is {shown(architecture)}")
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment not in {2**power for power in range(3, 21)}:
        raise ModelError(f"{path}: general.alignment is {shown(alignment)}, expected a power of two from 8")
    tensors = [_tensor(cursor, path) for _ in range(n_tensors)]
    start = math.ceil(cursor.at / alignment) * alignment
    _check_places(path, tensors, start, alignment, len(cursor.held))
    return GGUFHeader(path, values, {tensor.name: tensor for tensor in tensors}, start)


def _value(cursor: _Cursor, path: Path, key: str) -> Any:
    kind = cursor.number("I")
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor, path, key)
    if kind not in _SCALARS:
        raise ModelError(f"{path}: the file is damaged: {shown(key)} is of the unknown kind {kind}")
    value = cursor.number(_SCALARS[kind])
    if isinstance(value, float) and not math.isfinite(value):
        raise ModelError(f"{path}: {shown(key)} is {value}, expected a number")
    return value


def _array(cursor: _Cursor, path: Path, key: str) -> Array:
    kind, length = cursor.number("I"), cursor.number("Q")
    if kind == _STRING:
        for _ in range(length):
            cursor.text()
        return Array(length)
    if kind not in _SCALARS:
        raise ModelError(f"{path}: the file is damaged: {shown(key)} is an array of the unknown kind {kind}")
    numbers = cursor.numbers(_SCALARS[kind], length)
    return Array(length, numbers if length <= _SHORT else ())


def _tensor(cursor: _Cursor, path: Path) -> StoredTensor:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name, rank = cursor.text(), cursor.number("I")
    if not name.isprintable():
        raise ModelError(f"{path}: the file is damaged: {shown(name)} is no name of a tensor")
    if not 1 <= rank <= 4:
        raise ModelError(f"{path}: the tensor {shown(name)} has {rank} axes, expected 1 to 4")
    shape = tuple(reversed(cursor.numbers("Q", rank)))
    number, offset = cursor.number("I"), cursor.number("Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise ModelError(f"{path}: the tensor {shown(name)} is stored in the unknown number format {number}") from None
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % per_block:
        raise ModelError(f"{path}: the tensor {shown(name)} has rows of {shape[-1]}, no whole blocks of {kind.name}")
    return StoredTensor(name, shape, kind.name, offset, math.prod(shape) // per_block * block_bytes)


def _check_places(path: Path, tensors: list[StoredTensor], start: int, alignment: int, size: int) -> None:
    """Raise ModelError unless every tensor lies whole in the file, in a place of its own."""
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ModelError(f"{path}: the file is damaged: two tensors have one name")
    free = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment or tensor.offset < free or not tensor.nbytes:
            raise ModelError(f"{path}: the file is damaged: the tensor {shown(tensor.name)} overlaps another or is empty")
        free = tensor.offset + tensor.nbytes
        if start + free > size:
            raise ModelError(f"{path}: the file is cut: {size} bytes, the tensor {shown(tensor.name)} ends at {start + free}")
