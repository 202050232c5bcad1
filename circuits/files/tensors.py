"""Records in safetensors files: arrays as they are, all other fields as one JSON text in the file's header."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from circuits.errors import CircuitsError, FileFormatError
from circuits.files import arrays, fields
from circuits.files.limits import check_header
from circuits.files.origins import origin, origin_of, without_origin
from circuits.files.reading import LARGEST_FILE, VERSION, strict_json, unreadable, wrong_version
from circuits.files.writing import write_whole

if TYPE_CHECKING:
    from torch import Tensor

Record = TypeVar("Record")


def save_tensors(path: Path, kind: str, record: Any, *, beside: "Mapping[str, Tensor] | None" = None) -> None:
    """Write a record whole or not at all; equal records are equal bytes. `beside`: further tensors for the same file.

    The header has one key, `kind`: several would be written in any order, and equal records as different bytes.
    """
    from safetensors.torch import save

    document, tensors = _apart(record)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in {**tensors, **(beside or {})}.items()}
    text = json.dumps({"version": VERSION, **origin(), **document}, sort_keys=True, allow_nan=False)
    write_whole(path, save(plain, metadata={kind: text}))


def load_tensors(path: Path, kind: str, cls: type[Record]) -> "tuple[Record, dict[str, Tensor]]":
    """A record of a class, and the tensors beside it. Raises FileFormatError for any other file."""
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            document = _document(dict(file.metadata() or {}), kind, cls)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return _together(cls, document, tensors), tensors
    except OSError as error:
        raise unreadable(path, error, why="no file of tensors") from None
    except (SafetensorError, CircuitsError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        words = " ".join(str(error).split())[:200]
        raise FileFormatError(f"{path}: not a file of format {kind}, or it does not fit together: {words}") from None


def format_of_tensors(path: Path) -> str:
    """The format that a safetensors file of this package names in its header; empty for another one. Raises FileFormatError
    where it cannot be read."""
    return next((key for key in _header(path) if key.startswith("circuits-")), "")


def origin_of_tensors(path: Path) -> str:
    """The command line that a safetensors file of this package names; "" where it names none. Raises FileFormatError where it
    cannot be read."""
    header = _header(path)
    text = next((text for key, text in header.items() if key.startswith("circuits-")), "")
    try:
        return origin_of(strict_json(text)) if len(text) <= LARGEST_FILE else ""
    except (ValueError, RecursionError):
        return ""


def _header(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise unreadable(path, error) from None
    except SafetensorError as error:
        raise FileFormatError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _check_header(path: Path) -> None:
    try:
        check_header(path)
    except OSError as error:
        raise unreadable(path, error, why="no file of tensors") from None


def _apart(record: Any, prefix: str = "") -> "tuple[dict[str, Any], dict[str, Tensor]]":
    """The plain fields of a record, and its arrays; those of records inside by dotted names."""
    document: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for field, how, key in fields.fields_of(type(record)):
        kind, value = fields.present(field.type), getattr(record, field.name)
        if how.optional and fields.is_default(field, value):
            continue
        if _holds_arrays(kind):
            if value is not None:
                inner, more = ({}, {f"{prefix}{key}": value}) if arrays.is_array(kind) else _apart(value, f"{prefix}{key}.")
                document |= inner
                tensors |= more
        else:
            document[f"{prefix}{key}"] = fields.to_plain(field.type, value, where=key, missing=how.missing)
    return document, tensors


def _together(cls: type[Record], document: dict[str, Any], tensors: "dict[str, Tensor]", prefix: str = "") -> Record:
    """A record from its plain fields and its arrays, which are taken out of `tensors`."""
    values: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for field, how, key in fields.fields_of(cls):
        kind, name = fields.present(field.type), f"{prefix}{key}"
        if how.optional and name not in document and name not in tensors:
            continue
        if arrays.is_array(kind):
            values[field.name] = _checked(kind, tensors.pop(name), sizes, name, missing=how.missing)
        elif _holds_arrays(kind):
            there = kind is field.type or any(one.startswith(f"{name}.") for one in tensors)
            values[field.name] = _together(kind, document, tensors, f"{name}.") if there else None
        else:
            values[field.name] = fields.from_plain(field.type, document.pop(name), sizes=sizes, where=name, missing=how.missing)
    if document and not prefix:
        raise FileFormatError(f"it has unknown {', '.join(sorted(document))}")
    return cls(**values)


def _holds_arrays(kind: Any) -> bool:
    """Whether a field's type is an array, or a record with arrays."""
    if arrays.is_array(kind):
        return True
    inside = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return any(arrays.is_array(fields.present(field.type)) for field in inside)


def _checked(kind: Any, tensor: "Tensor", sizes: dict[str, int], where: str, *, missing: bool) -> "Tensor":
    number = "float" if tensor.is_floating_point() else "bool" if str(tensor.dtype) == "torch.bool" else "int"
    if number != arrays.number_of(kind) or tensor.is_complex():
        raise FileFormatError(f"{where} holds wrong values: {tensor.dtype}, expected {arrays.number_of(kind)}")
    if number == "float" and not bool((tensor.isfinite() | (tensor.isnan() & missing)).all()):
        raise FileFormatError(f"{where} holds wrong values: NaN or infinity")
    arrays.fit_axes(arrays.axes_of(kind), tuple(tensor.shape), sizes=sizes, where=where)
    return tensor


def _document(header: Mapping[str, str], kind: str, cls: type) -> dict[str, Any]:
    """The plain fields in a header; in older files they are keys of their own, all of them texts."""
    if header.get("format") == kind and header.get("version") == "1":
        texts = {key for field, _, key in fields.fields_of(cls) if field.type is str}
        older = {key: text for key, text in header.items() if key not in ("format", "version")}
        return {key: text if key in texts else strict_json(text) for key, text in older.items()}
    text = header.get(kind)
    if text is None or len(text) > LARGEST_FILE:
        raise FileFormatError(f"its header has no {kind!r}")
    document = strict_json(text)
    if not isinstance(document, dict):
        raise FileFormatError("its header holds no object")
    if wrong := wrong_version(kind, document.pop("version", None)):
        raise FileFormatError(wrong)
    return without_origin(document)
