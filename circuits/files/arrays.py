"""Arrays in files, as nested lists of numbers: checked against the axes and the type of number that a field declares."""

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from circuits.errors import FileFormatError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

_NUMBERS = {"float": ({int, float}, "numbers"), "int": ({int}, "whole numbers"), "bool": ({bool}, "true and false")}


def is_array(kind: Any) -> bool:
    """Whether a field's type is that of an array with named axes, such as `Float[Tensor, "layer head"]`."""
    return hasattr(kind, "dim_str") and hasattr(kind, "dtypes")


def axes_of(kind: Any) -> list[str]:
    """The names of an array's axes."""
    return kind.dim_str.split()


def number_of(kind: Any) -> str:
    """What an array holds: "float", "int" or "bool"."""
    return next(name for name in ("bool", "int", "float") if any(dtype.startswith(name) for dtype in kind.dtypes))


def to_lists(values: "Tensor", *, where: str, missing: bool = False) -> Any:
    """Nested lists of an array's numbers; with `missing`, None for NaN. Raises NonFiniteError for what no file can hold."""
    plain = values.detach().cpu()
    if bool(plain.isfinite().all()):
        return plain.tolist()
    if not missing or bool(plain.isinf().any()):
        raise NonFiniteError(f"{where} holds NaN or infinity, which no file can hold")
    return _nested(plain.tolist(), lambda value: None if math.isnan(value) else value)


def _nested(value: Any, change: Callable[[float], float | None]) -> Any:
    return [_nested(one, change) for one in value] if isinstance(value, list) else change(value)


def from_lists(kind: Any, plain: Any, *, sizes: dict[str, int], where: str, missing: bool = False) -> "Tensor":
    """An array from nested lists. `sizes`: lengths of axes found so far by name, which the array must agree with and adds to;
    where a list is empty, they tell what the axes below it would have been. Raises FileFormatError."""
    import torch  # what holds no arrays is read without it

    number, axes = number_of(kind), axes_of(kind)
    shape, level = [], [plain]
    for axis in axes:
        if any(type(one) is not list for one in level):
            raise FileFormatError(f"{where}: expected lists nested {len(axes)} deep ({', '.join(axes)})")
        lengths = {len(one) for one in level}
        if len(lengths) > 1:
            raise FileFormatError(
                f"{where}: lists of {min(lengths)} to {max(lengths)} entries along {axis}, expected equally many"
            )
        shape.append(lengths.pop() if lengths else sizes.get(axis, 0))
        level = list(itertools.chain.from_iterable(level))
    allowed, words = _NUMBERS[number]
    if not set(map(type, level)) <= (allowed | {type(None)} if missing else allowed):
        raise FileFormatError(f"{where}: expected {words}{' or null' if missing else ''} on {len(axes)} axes and nothing else")
    flat = [math.nan if value is None else value for value in level] if missing else level
    dtype = {"float": torch.float64, "int": torch.int64, "bool": torch.bool}[number]
    try:
        found = torch.tensor(flat, dtype=dtype).reshape(shape)
    except (RuntimeError, OverflowError, ValueError):
        raise FileFormatError(f"{where}: a number is too large") from None
    fit_axes(axes, shape, sizes=sizes, where=where)
    return found


def fit_axes(axes: list[str], shape: "list[int] | tuple[int, ...]", *, sizes: dict[str, int], where: str) -> None:
    """Note the lengths of axes. Raises FileFormatError where one differs from what was noted before."""
    if len(axes) != len(shape):
        raise FileFormatError(f"{where}: {len(shape)} axes, expected {len(axes)} ({', '.join(axes)})")
    for axis, length in zip(axes, shape, strict=True):
        if sizes.setdefault(axis, length) != length:
            raise FileFormatError(f"{where}: {length} entries along {axis}, where another field has {sizes[axis]}")


def runs_out(kind: Any, plain: Any) -> bool:
    """Whether an array's lists are empty before its last axis, so that other fields must tell how long that is."""
    if not is_array(kind):
        return False
    for _ in axes_of(kind)[1:]:
        if not isinstance(plain, list) or not plain:
            return True
        plain = plain[0]
    return False
