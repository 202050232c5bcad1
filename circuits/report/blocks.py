"""What a page is made of: sections, and in them blocks of plain values. The page's script draws each by its kind."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

Standing = Literal["good", "part", "bad", ""]
"""How a section ends: what it asked holds, holds in part, or does not; "" where nothing was asked."""


@runtime_checkable
class AnyBlock(Protocol):
    """A block: its kind names the part of the script that draws it, its declared fields are what that part reads."""

    KIND: ClassVar[str]


@dataclasses.dataclass(frozen=True)
class Paragraphs:
    """Words. `tone`: "note" for what stands back, "warning" for what is missing or fails."""

    KIND: ClassVar[str] = "paragraphs"
    lines: Sequence[str]
    tone: Literal["", "note", "warning"] = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Names and values, one a line; `copied`: what the copy button copies (empty: there is no button)."""

    KIND: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]
    copied: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: numbers stand to the right. `folded`: it is opened by a click on its caption."""

    KIND: ClassVar[str] = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    caption: str = ""
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Links:
    """Nodes, and by name the circuits of the page that they are in: a click shows the node there."""

    KIND: ClassVar[str] = "links"
    header: tuple[str, str]
    rows: Sequence[tuple[str, Sequence[str]]]
    caption: str = ""
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Heatmap:
    """Numbers by row and column, coloured: blue above zero, vermilion below; None where there is none."""

    KIND: ClassVar[str] = "heatmap"
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    caption: str = ""
    row_name: str = ""
    column_name: str = ""
    cells: Sequence[Sequence[str]] = ()
    """Texts that stand in the cells."""
    marked: Sequence[int] = ()
    """Rows whose names are set off."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """Points, lines, bands or bars along two axes.

    A series is a mapping: `name`, `look` ("line", "points", "band", "bars"), `x`, `y`, where known `low` and `high`, `names`
    of its points, `colour` (a number of the palette, or "good", "bad", "faint").
    """

    KIND: ClassVar[str] = "chart"
    caption: str
    series: Sequence[Mapping[str, Any]]
    x_name: str
    y_name: str
    logarithmic: bool = False
    lines_at: Sequence[float] = ()
    """Heights of dashed lines across."""
    diagonal: bool = False
    x_ticks: Sequence[tuple[float, str]] = ()
    """Places on the x axis with their words; none: numbers."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own. `word` says in a word how it ends, coloured by `standing`."""

    title: str
    blocks: Sequence[AnyBlock]
    word: str = ""
    standing: Standing = ""

    def plain(self) -> dict[str, Any]:
        """The section as plain values, as they stand in the page."""
        named = {"title": self.title, "word": self.word, "standing": self.standing}
        return {**named, "blocks": [plain_block(block) for block in self.blocks]}


def plain_block(block: AnyBlock) -> dict[str, Any]:
    """A block as plain values."""
    fields = {field.name: getattr(block, field.name) for field in dataclasses.fields(block)}  # type: ignore[arg-type]
    return {"kind": block.KIND, **fields}
