"""Values that a circuit may carry beside its edges: plain JSON, frozen so that a circuit cannot change."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from circuits.errors import GraphError, NonFiniteError

DEEPEST = 16
LARGEST = 2**63


def score(value: object, *, where: str) -> float | None:
    """Return a score as a Python float (None: no score).

    Raises NonFiniteError for NaN and infinities and GraphError for what is no number; both name the place.
    """
    if value is None:
        return None
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise GraphError(f"the score of {where} is a {type(value).__name__}; expected a number or None")
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # arrays and tensors of several numbers, huge integers
        raise GraphError(f"the score of {where} does not fit one float; expected one finite number") from None
    if not math.isfinite(number):
        raise NonFiniteError(f"the score of {where} is {number}; expected a finite number or None")
    return number


def text(value: object, *, where: str) -> str:
    """Return a text that can be written anywhere; raises GraphError for other types and for lone surrogates."""
    if not isinstance(value, str):
        raise GraphError(f"{where} is a {type(value).__name__}; expected text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise GraphError(f"{where} has a lone surrogate, which no file can hold") from None
    return str(value)


def freeze(value: object, *, where: str, depth: int = 0) -> object:
    """Copy a plain JSON value into an immutable one: mappings become read-only, lists become tuples.

    Raises GraphError for other types, keys that are not text, integers beyond 64 bits and more than 16 levels, and
    NonFiniteError for NaN and infinities; both name the place.
    """
    if depth > DEEPEST:
        raise GraphError(f"{where} is nested more than {DEEPEST} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, where=where)
    if isinstance(value, int):
        if not -LARGEST <= value < LARGEST:
            raise GraphError(f"{where} holds an integer beyond 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NonFiniteError(f"{where} holds {float(value)}; expected finite numbers")
        return float(value)
    if isinstance(value, Mapping):
        return freeze_mapping(value, where=where, depth=depth)
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item, where=where, depth=depth + 1) for item in value)
    raise GraphError(f"{where} holds a {type(value).__name__}; expected text, numbers, true, false, None, lists or dicts")


def freeze_mapping(value: object, *, where: str, depth: int = 0) -> Mapping[str, object]:
    """Freeze a mapping from text to plain JSON values, sorted by key; raises as `freeze` does."""
    if not isinstance(value, Mapping):
        raise GraphError(f"{where} is a {type(value).__name__}; expected a mapping")
    for key in value:
        text(key, where=f"a key of {where}")
    items = sorted(value.items())
    return MappingProxyType({str(key): freeze(item, where=where, depth=depth + 1) for key, item in items})


def thaw(value: object) -> object:
    """Turn a frozen value back into dicts and lists, ready for JSON."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value
