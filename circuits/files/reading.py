"""Reading text and JSON from files that may be damaged or hostile: strict, bounded, and with one kind of error."""

import io
import json
import math
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, shown
from circuits.files.limits import Kind, check_content, check_file, check_size, is_regular

LARGEST_FILE = 32 * 2**20
LARGEST_TEXT = 2**30
VERSION = 1
"""Of every format of this package."""
_MOST_DIGITS = 20


def read_json(path: Path, *, max_bytes: int = LARGEST_FILE, naming: str = "") -> object:
    """Read one JSON value from a file.

    Raises FileFormatError, with the file's name, for a file that is missing, larger than `max_bytes`, not UTF-8 or not
    JSON, and for duplicate keys, NaN, infinities, integers of more than 20 digits and nesting of more than 100; and before
    anything is parsed for what `limits.check_file` refuses.
    """
    return _parsed(path, _content(path, max_bytes, naming=naming))


def read_json_lines(path: Path, *, max_bytes: int = LARGEST_FILE) -> list[object]:
    """Read one JSON value a line from a file; empty lines are passed over. Raises FileFormatError as `read_json`, with the
    row, counted from 0."""
    content = _content(path, max_bytes, kind="rows").removeprefix(b"\xef\xbb\xbf")
    lines = (line for line in io.BytesIO(content) if line.strip())
    return [_parsed(f"{path}: row {row}", line) for row, line in enumerate(lines)]


def read_bytes(path: Path, *, max_bytes: int = LARGEST_FILE, kind: Kind = "text") -> bytes:
    """The bytes of a file, which are UTF-8. Raises FileFormatError for one that is missing, larger than `max_bytes`, not UTF-8
    or what `limits.check_file` refuses of its kind."""
    return _content(path, max_bytes, kind=kind)


def read_text(path: Path, *, max_bytes: int = LARGEST_TEXT) -> str:
    """The text of a UTF-8 file, whose lines end with a line feed. Raises FileFormatError, with the file's name, for one that is
    missing, larger than `max_bytes` or not UTF-8, with the first byte that is not."""
    text = _content(path, max_bytes, kind="text").decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def unreadable(path: Path, error: OSError, *, why: str = "") -> FileFormatError:
    """What is said of a file that cannot be opened or read, in the words that all commands share: that there is none, or the
    system's reason (`why` where it names none)."""
    said = error.strerror or why or " ".join(str(error).split())[:200]
    return FileFormatError(f"{path}: {said}" if isinstance(error, FileNotFoundError) else f"{path}: cannot be read: {said}")


def strict_decoder() -> json.JSONDecoder:
    """What decodes JSON as `read_json` does: ValueError for duplicate keys, NaN, infinities and integers of more than 20
    digits."""
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_constant, strict=True
    )


def strict_json(text: str, *, where: str = "its header") -> Any:
    """One JSON value inside a file, read as `read_json` reads a file. Raises FileFormatError."""
    content = text.encode("utf-8", "surrogatepass")
    check_content(where, content)
    return _parsed(where, content)


def _content(path: Path, max_bytes: int, *, kind: Kind = "json", naming: str = "") -> bytes:
    try:
        check_file(path, max_bytes=max_bytes, kind=kind, naming=naming)
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        check_size(path, len(content), max_bytes)
        if not is_regular(path):
            check_content(path, content, kind=kind, naming=naming)
    except OSError as error:
        raise unreadable(path, error) from None
    return content


def _parsed(where: Path | str, content: bytes) -> object:
    try:
        return strict_decoder().decode(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{where}: not UTF-8 text: byte {error.start} cannot be decoded") from None
    except RecursionError:
        raise FileFormatError(f"{where}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise FileFormatError(f"{where}: {error}") from None


def read_document(path: str | Path, kind: str, *, max_bytes: int = LARGEST_FILE) -> dict[str, Any]:
    """Read a JSON object of format `kind`, version 1, without these two keys. Raises FileFormatError as `read_json`, and for
    anything else."""
    data = read_json(Path(path), max_bytes=max_bytes, naming=kind)
    if not isinstance(data, dict) or data.pop("format", None) != kind:
        raise FileFormatError(f"{path}: not a file of format {kind}")
    check_version(path, kind, data.pop("version", None))
    return data


def check_version(path: str | Path, kind: str, version: object) -> None:
    """Raise FileFormatError where a file of a format that is known is not of the one version that there is."""
    wrong = wrong_version(kind, version)
    if wrong:
        raise FileFormatError(f"{path}: {wrong}")


def wrong_version(kind: str, version: object) -> str:
    """Why a file of a known format cannot be read, in the words that all formats share; "" where its version is the one there
    is."""
    if type(version) is int and version == VERSION:
        return ""
    newer = "; a newer transformer-circuits wrote it: update" if type(version) is int and version > VERSION else ""
    return f"version {shown(version)} of the format {kind}: this program reads version {VERSION}{newer}"


def _unique(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {shown(twice)} appears twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; expected at most {_MOST_DIGITS}")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown(digits)} is too large for a float")
    return number


def _constant(name: str) -> float:
    raise ValueError(f"holds {name}; every number must be finite")
