"""What every result can do: say itself in a line and in a notebook, become a table, a picture or a file, and come back."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from circuits.errors import CircuitsError, FileFormatError
from circuits.files import arrays, fields
from circuits.files.origins import origin, without_origin
from circuits.files.pictures import drawing_of
from circuits.files.previews import preview
from circuits.files.reading import VERSION, read_document
from circuits.files.tensors import load_tensors, save_tensors
from circuits.files.words import counted, one_line
from circuits.files.writing import write_whole

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

AnyResult = TypeVar("AnyResult", bound="Result")
LARGEST_RESULT = 2**31
_WRONG = (CircuitsError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, OverflowError)


class Result:
    """What a function of this package found. A result is a frozen dataclass whose declared fields are all there is to it:

        @dataclasses.dataclass(frozen=True, eq=False)
        class Losses(Result, format="circuits-losses"):
            model: str
            losses: Float[Tensor, "layer prompt"]

    `format` names its files. `inside`: the one key of the file that holds all others; `indent`: of the JSON text; `tensors`:
    whether it is kept in a safetensors file, arrays bit for bit, instead of JSON. What a field looks like in a file follows
    from its type (`circuits.files.fields`); where it does not, `dataclasses.field(metadata=stored(...))` says so.

    A class adds `to_dataframe`, most often `summary`, and checks in `__post_init__` what types and axes do not say; a function
    in the room of plots registers itself as its picture (`circuits.files.pictures`). A class with options for its table or its
    picture overrides the method with a signature that names them.
    """

    FORMAT: ClassVar[str]
    _inside: ClassVar[str | None]
    _indent: ClassVar[int | None]
    _tensors: ClassVar[bool]

    def __init_subclass__(
        cls, *, format: str, inside: str | None = None, indent: int | None = None, tensors: bool = False
    ) -> None:
        super().__init_subclass__()
        cls.FORMAT, cls._inside, cls._indent, cls._tensors = format, inside, indent, tensors
        if "__repr__" not in vars(cls):  # a dataclass makes one of all its fields, unless the class has one of its own
            cls.__repr__ = Result.__repr__

    @property
    def summary(self) -> str:
        """The result in words: a sentence or a few, the numbers that matter first."""
        return _in_brief(self)

    def to_dataframe(self) -> "pandas.DataFrame":
        """The result as a table."""
        raise NotImplementedError(f"{type(self).__name__} has no table: define to_dataframe")

    def plot(self) -> "Figure":
        """The result as a picture; `circuits.plots.save(figure, "result.png")` writes it."""
        return drawing_of(type(self))(self)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in files."""
        return fields.record_to_plain(self)

    @classmethod
    def from_json(cls: type[AnyResult], data: Any) -> AnyResult:
        """The reverse of `as_json`. Raises FileFormatError for missing and unknown keys and values of another type, and what
        the class raises for values that do not fit together."""
        return fields.record_from_plain(cls, data)

    def save(self, path: str | Path) -> None:
        """Write to a file, which appears whole or not at all; `load` reads it. Equal results are equal bytes; where a command
        saves it, the file also tells the command line. Raises FileFormatError where nothing can be written, NonFiniteError for
        NaN and infinity."""
        if self._tensors:
            save_tensors(Path(path), self.FORMAT, self)
            return
        plain = self.as_json()
        about = {"format": self.FORMAT, "version": VERSION, **origin()}
        document = {**about, **({self._inside: plain} if self._inside else plain)}
        write_whole(Path(path), json.dumps(document, allow_nan=False, indent=self._indent).encode())

    @classmethod
    def load(cls: type[AnyResult], path: str | Path) -> AnyResult:
        """A saved result. Raises FileFormatError, with the file's name, for any other file."""
        if cls._tensors:
            found, beside = load_tensors(Path(path), cls.FORMAT, cls)
            if beside:
                raise FileFormatError(f"{path}: holds tensors that do not belong there: {', '.join(sorted(beside))[:150]}")
            return found
        data = read_document(path, cls.FORMAT, max_bytes=LARGEST_RESULT)
        with _fitting(path, cls.FORMAT):
            return cls.from_json(_opened(without_origin(data), cls._inside))

    def __repr__(self) -> str:
        try:
            said = one_line(self.summary)
        except Exception:  # half made, in a traceback: the name must do
            said = "…"
        return f"{type(self).__name__}({said.removesuffix('.')})"

    def _repr_html_(self) -> str:
        return preview(self)


@contextlib.contextmanager
def _fitting(path: str | Path, kind: str) -> Iterator[None]:
    """Say of whatever goes wrong while a document becomes a result that the file does not fit together."""
    try:
        yield
    except _WRONG as error:
        words = " ".join(str(error).split())[:300]
        raise FileFormatError(f"{path}: this file of format {kind} does not fit together: {words}") from None


def _opened(data: dict[str, Any], inside: str | None) -> Any:
    if inside is None:
        return data
    if set(data) != {inside}:
        raise FileFormatError(f"it must hold exactly {inside}")
    return data[inside]


def _in_brief(result: Any) -> str:
    """A result by its short fields and the lengths of its arrays' axes."""
    words, sizes = [], {}
    for field in dataclasses.fields(result):
        value, kind = getattr(result, field.name), fields.present(field.type)
        if arrays.is_array(kind) and value is not None:
            sizes |= dict(zip(arrays.axes_of(kind), value.shape, strict=True))
        elif kind is str and value and len(value) <= 40 and field.name != "weights_sha256":
            words.append(value)
        elif kind in (int, float) and value is not None and field.name != "seed":
            words.append(f"{field.name} {value:.4g}" if kind is float else f"{field.name} {value:,}")
        elif isinstance(value, tuple):
            sizes.setdefault(field.name, len(value))
    return ", ".join([*words[:3], *(counted(length, axis) for axis, length in [*sizes.items()][:3])])
