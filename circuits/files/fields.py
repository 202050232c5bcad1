"""Values in files: what a field of a record looks like there follows from its declared type.

Texts, whole numbers, numbers, true and false, None where the type allows it, one of several literals, tuples, mappings (keys
as text), records (dataclasses) inside, and arrays with named axes. What has a name of its own (`parse` and `str`, as nodes and
edges have) is written as text; a result inside looks as its own `as_json` says; `Any` is any plain value.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from circuits.errors import CircuitsError, FileFormatError, NonFiniteError, shown
from circuits.files import arrays

Record = TypeVar("Record")
_STORED = "circuits.files"
_SCALARS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """How a field stands in files, where its name and its type do not say it all."""

    key: str | None = None
    """The key, where it is not the field's name."""
    saved: bool = True
    """False: the field is not written, and has its default when read."""
    missing: bool = False
    """Whether NaN may stand in arrays and numbers of the field, as null."""
    optional: bool = False
    """Whether a file may lack the field, which then has its default: files written before there was such a field, and those in
    which it is its default."""
    axis: str | None = None
    """The axis of arrays along which this tuple has its entries."""
    shape: str | None = None
    """A key beside, under which the shape of this array stands, since lists of an empty array do not tell it."""


def stored(
    *,
    key: str | None = None,
    saved: bool = True,
    missing: bool = False,
    optional: bool = False,
    axis: str | None = None,
    shape: str | None = None,
) -> dict[str, Any]:
    """The metadata of a dataclass field that stands in files otherwise than its name and type say; see `Stored`."""
    return {_STORED: Stored(key, saved, missing, optional, axis, shape)}


def fields_of(kind: Any) -> list[tuple[dataclasses.Field, Stored, str]]:
    """The saved fields of a record's class: field, how it is stored, its key."""
    found = [(field, field.metadata.get(_STORED, Stored())) for field in dataclasses.fields(kind)]
    return [(field, how, how.key or field.name) for field, how in found if how.saved and field.init]


def record_to_plain(record: Any) -> dict[str, Any]:
    """A record as plain JSON values. Raises NonFiniteError for NaN and infinity, CircuitsError for what no file can hold, both
    with the field's name."""
    plain = {}
    for field, how, key in fields_of(type(record)):
        value: Any = getattr(record, field.name)
        if how.optional and is_default(field, value):
            continue
        plain[key] = to_plain(field.type, value, where=key, missing=how.missing)
        if how.shape is not None:
            plain[how.shape] = list(getattr(record, field.name).shape)
    return plain


def is_default(field: dataclasses.Field, value: Any) -> bool:
    """Whether a field has the value that it has where nothing is given."""
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return value is made if made is None else type(value) is type(made) and value == made


def record_from_plain(kind: type[Record], data: Any, *, where: str = "") -> Record:
    """A record from plain JSON values. Raises FileFormatError for missing and unknown keys, values of another type and arrays
    that do not fit each other, and what the record's class raises for values that do not fit together."""
    fields, dot = fields_of(kind), f"{where}." if where else ""
    wanted = {key for _, _, key in fields} | {how.shape for _, how, _ in fields if how.shape}
    spare = {key for _, how, key in fields if how.optional}
    _require(isinstance(data, dict), "an object", data, where or "it")
    if odd := sorted((wanted - spare - set(data)) | (set(data) - wanted)):
        said = f"{'lacks' if odd[0] in wanted else 'has'} {shown(odd[0])}"
        raise FileFormatError(f"{where or 'it'} {said}: it must hold exactly {', '.join(sorted(wanted))}")
    values: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    there = [(field, how, key) for field, how, key in fields if key in data]
    for field, how, key in sorted(there, key=lambda one: arrays.runs_out(one[0].type, data[one[2]])):
        if how.shape is not None:
            _note_shape(field.type, data[how.shape], sizes, f"{dot}{how.shape}")
        value = from_plain(field.type, data[key], sizes=sizes, where=f"{dot}{key}", missing=how.missing)
        if how.axis is not None:
            arrays.fit_axes([how.axis], [len(value)], sizes=sizes, where=f"{dot}{key}")
        values[field.name] = value
    return kind(**values)


def _note_shape(kind: Any, shape: Any, sizes: dict[str, int], where: str) -> None:
    if not isinstance(shape, list) or any(type(length) is not int or length < 0 for length in shape):
        raise FileFormatError(f"{where}: expected the lengths of an array's axes")
    arrays.fit_axes(arrays.axes_of(kind), shape, sizes=sizes, where=where)


def to_plain(kind: Any, value: Any, *, where: str, missing: bool = False) -> Any:
    """A value of a declared type as a plain JSON value."""
    kind = present(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if arrays.is_array(kind):
        return arrays.to_lists(value, where=where, missing=missing)
    if origin in (tuple, list, Sequence):
        kinds = _entries(kind, len(value))
        return [to_plain(one, item, where=where, missing=missing) for one, item in zip(kinds, value, strict=True)]
    if origin in (dict, Mapping):
        return {str(key): to_plain(parts[1], item, where=f"{where}.{key}", missing=missing) for key, item in value.items()}
    if hasattr(kind, "FORMAT"):
        return value.as_json()
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "parse"):
        return record_to_plain(value)
    if kind is float:
        return _finite(float(value), where, missing=missing)
    if kind in _SCALARS or origin is Literal:
        return value
    return str(value) if hasattr(kind, "parse") else _anything(value, where)


def from_plain(kind: Any, plain: Any, *, sizes: dict[str, int], where: str, missing: bool = False) -> Any:
    """A value of a declared type from a plain JSON value. Raises FileFormatError for one of another type."""
    if plain is None and (type(None) in typing.get_args(kind) or (missing and kind is float)):
        return math.nan if kind is float else None
    return _there(present(kind), plain, sizes=sizes, where=where, missing=missing)


def _there(kind: Any, plain: Any, *, sizes: dict[str, int], where: str, missing: bool) -> Any:
    """A value that is not None."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if arrays.is_array(kind):
        return arrays.from_lists(kind, plain, sizes=sizes, where=where, missing=missing)
    if origin in (tuple, list, Sequence):
        _require(isinstance(plain, list), "a list", plain, where)
        kinds = _entries(kind, len(plain))
        _require(len(kinds) == len(plain), f"a list of {len(kinds)}", plain, where)
        pairs = zip(kinds, plain, strict=True)
        read = [from_plain(one, item, sizes=sizes, where=where, missing=missing) for one, item in pairs]
        return read if origin is list else tuple(read)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        _require(isinstance(plain, dict), "an object", plain, where)
        keys, values = parts or (str, Any)
        items = ((_key(keys, key, where), item, f"{where}.{key[:40]}") for key, item in plain.items())
        return {key: from_plain(values, item, sizes=sizes, where=at, missing=missing) for key, item, at in items}
    if origin is Literal:
        known = any(type(plain) is type(one) and plain == one for one in parts)
        _require(known, f"one of {', '.join(map(str, parts))}", plain, where)
        return plain
    return _single(kind, plain, where)


def _single(kind: Any, plain: Any, where: str) -> Any:
    """A text, a number, a record, a name, or any plain value."""
    if kind in _SCALARS:
        _require(type(plain) is kind or (kind is float and type(plain) is int), _SCALARS[kind], plain, where)
        return float(plain) if kind is float else plain
    if hasattr(kind, "FORMAT"):
        return kind.from_json(plain)
    if hasattr(kind, "parse"):
        _require(isinstance(plain, str), "a name", plain, where)
        return kind.parse(plain)
    return record_from_plain(kind, plain, where=where) if isinstance(kind, type) and dataclasses.is_dataclass(kind) else plain


def present(kind: Any) -> Any:
    """The type of a value that is there: `float | None` without the None."""
    if typing.get_origin(kind) not in (types.UnionType, Union):
        return kind
    rest = [one for one in typing.get_args(kind) if one is not type(None)]
    if len(rest) != 1:
        raise TypeError(f"a field of type {kind} has no form in files: declare one type, or one and None")
    return rest[0]


def _entries(kind: Any, count: int) -> Sequence[Any]:
    """The type of each entry of a tuple or list of `count`."""
    parts = typing.get_args(kind)
    return [parts[0]] * count if typing.get_origin(kind) is not tuple or parts[1:] == (...,) else parts


def _key(kind: Any, key: str, where: str) -> Any:
    try:
        return kind(key)
    except ValueError:
        raise FileFormatError(f"{where}: the key {shown(key)} is no {kind.__name__}") from None


def _require(fits: bool, expected: str, got: object, where: str) -> None:
    if not fits:
        raise FileFormatError(f"{where}: expected {expected}, got {shown(got)}")


def _finite(number: float, where: str, *, missing: bool) -> float | None:
    if math.isfinite(number):
        return number
    if missing and math.isnan(number):
        return None
    raise NonFiniteError(f"{where} is {number}, which no file can hold")


def _anything(value: Any, where: str) -> Any:
    """A plain value of unknown type, mappings and tuples as JSON has them."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _finite(value, where, missing=False)
    if isinstance(value, Mapping):
        return {str(key): _anything(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anything(item, where) for item in value]
    raise CircuitsError(
        f"{where} holds a {type(value).__name__}; a file holds text, numbers, true, false, None, lists and dicts"
    )
