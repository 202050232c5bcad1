"""Labelled texts, as they stand in files."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, PromptError, shown
from circuits.files.writing import write_whole
from circuits.tasks.sources.contents import Row, read_contents
from circuits.tasks.sources.rows import fields_of, parse_rows, text

TEXTS = ("text", "sentence", "content", "review")
LABELS = ("label", "class", "sentiment")
"""Names under which files have texts and labels; capitals do not matter."""
Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts with the class of each, and, where people marked them, the words that decide it.

    Words are what stands between spaces. A rationale is a tuple of spans of words `[start, end)`; None for a text that
    nobody marked. Raises PromptError where the parts do not fit each other, a text is empty or a span lies beyond its text.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    """Places in `classes`."""
    classes: tuple[str, ...]
    rationales: tuple[tuple[Span, ...] | None, ...] = ()
    """One a text, or none at all."""

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels) or len(self.rationales) not in (0, len(self.texts)):
            raise PromptError(
                f"{len(self.texts)} texts, {len(self.labels)} labels, {len(self.rationales)} rationales: expected as many each"
            )
        if len(set(self.classes)) != len(self.classes) or not all(0 <= label < len(self.classes) for label in self.labels):
            raise PromptError(f"labels outside the classes {', '.join(self.classes)}, or one of these twice")
        for number, one in enumerate(self.texts):
            if not one.strip():
                raise PromptError(f"text {number} is empty")
            if self.rationales and self.rationales[number] is not None:
                check_spans(self.rationales[number] or (), len(one.split()))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: slice | Sequence[int]) -> "Examples":
        places = range(len(self))[rows] if isinstance(rows, slice) else rows
        some = tuple(self.rationales[place] for place in places) if self.rationales else ()
        return Examples(
            tuple(self.texts[place] for place in places), tuple(self.labels[place] for place in places), self.classes, some
        )

    @property
    def counts(self) -> dict[str, int]:
        """Texts of each class."""
        found = Counter(self.labels)
        return {name: found[place] for place, name in enumerate(self.classes)}

    @property
    def marked(self) -> bool:
        """Whether any text has a rationale."""
        return any(one is not None for one in self.rationales)

    def labelled(self, classes: Sequence[str]) -> "Examples":
        """The same with another list of classes, such as a classifier's. Raises PromptError where a label is not in it."""
        present = [self.classes[place] for place in sorted(set(self.labels))]
        missing = [name for name in present if name not in classes]
        if missing:
            raise PromptError(f"the label {shown(missing[0])} is none of {', '.join(classes)}")
        labels = tuple(list(classes).index(self.classes[label]) for label in self.labels)
        return Examples(self.texts, labels, tuple(classes), self.rationales)

    def save(self, path: str | Path) -> None:
        """Write as JSON Lines with text, label and, where there is one, rationale; `read_labelled` reads it."""
        lines = []
        for number, (one, label) in enumerate(zip(self.texts, self.labels, strict=True)):
            line: dict[str, Any] = {"text": one, "label": self.classes[label]}
            if self.rationales and self.rationales[number] is not None:
                line["rationale"] = self.rationales[number]
            lines.append(json.dumps(line, ensure_ascii=False))
        write_whole(Path(path), "".join(f"{line}\n" for line in lines).encode())


_LONGEST_RATIONALE = 100_000
"""Characters."""


def read_labelled(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    skip_bad: bool | None = None,
) -> Examples:
    """Labelled texts of a file: CSV or TSV with a header, JSON Lines, or a JSON list of objects.

    The columns of texts and labels are found by their names (`TEXTS`, `LABELS`; capitals do not matter); `rationale`, where
    it is there, is a list of spans of words `[start, end)`, in CSV as JSON or `2-4 7-8`. Classes are the labels in order, as
    numbers where all are, unless they are given; `rename` puts other names in their place first. Texts lose the `<br />` of
    web pages.

    Raises FileFormatError for other files, with the line of the first row that does not fit, for a single class, and for a
    label that is none of `classes`.
    """
    path = Path(path)
    contents = read_contents(path)
    names = {name.strip().lower(): name for name in contents.keys}
    columns = [next((names[name] for name in kind if name in names), None) for kind in (TEXTS, LABELS)]
    if None in columns:
        there = ", ".join(sorted(contents.keys)) or "none"
        raise FileFormatError(f"{path}: no columns of texts and labels: expected such as text and label; there are {there}")
    text_column, label_column = map(str, columns)

    def parsed(row: Row) -> tuple[str, str, tuple[Span, ...] | None]:
        """A row's text, label and rationale."""
        fields = fields_of(row)
        said = " ".join(re.sub(r"<br\s*/?>", " ", text(fields, text_column)).split())
        if not said:
            raise PromptError("the text is empty")
        label = _label(fields, label_column)
        return said, (rename or {}).get(label, label), _rationale(fields, len(said.split()))

    kept = parse_rows(path, contents.rows, parsed, skip_bad=skip_bad)
    found = [label for _, label, _ in kept.values]
    known = tuple(classes) if classes is not None else _ordered(found)
    wrong = next((place for place, label in enumerate(found) if label not in known), None)
    if wrong is not None:
        raise FileFormatError(
            f"{path}: {kept.rows[wrong].where}: the label {shown(found[wrong])} is none of {', '.join(known)}"
        )
    if classes is None and len(known) < 2:
        raise FileFormatError(f"{path}: all {len(found)} texts have the label {shown(found[0])}: expected two classes or more")
    rationales = tuple(rationale for _, _, rationale in kept.values)
    some = rationales if any(one is not None for one in rationales) else ()
    return Examples(tuple(said for said, _, _ in kept.values), tuple(known.index(label) for label in found), known, some)


def check_spans(spans: Sequence[Span], words: int) -> None:
    """Raise PromptError for spans that are empty or lie beyond a text of so many words."""
    for start, end in spans:
        if not 0 <= start < end <= words:
            raise PromptError(f"the rationale [{start}, {end}) lies beyond the text's {words} words, or is empty")


def marked_words(spans: Sequence[Span]) -> frozenset[int]:
    """The places of the words that spans cover."""
    return frozenset(place for start, end in spans for place in range(start, end))


def _label(fields: Mapping[str, Any], column: str) -> str:
    value = fields.get(column)
    if isinstance(value, bool | int) and not isinstance(value, str):
        return str(value).lower()
    if not isinstance(value, str) or not value.strip():
        raise PromptError(f'"{column}" is {shown(value)}; expected a label')
    return value.strip()


def _rationale(fields: Mapping[str, Any], words: int) -> tuple[Span, ...] | None:
    name = next((name for name in fields if name.strip().lower() == "rationale"), None)
    value = None if name is None else fields[name]
    if name is None or value is None or value == "":
        return None
    if isinstance(value, str) and len(value) > _LONGEST_RATIONALE:
        value = None
    if isinstance(value, str):
        pairs = re.fullmatch(r"\s*(?:\d+-\d+[\s,]*)*", value)
        try:
            value = [one.split("-") for one in re.findall(r"\d+-\d+", value)] if pairs else json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 2 for one in value):
        raise PromptError(f"the rationale is {shown(fields[name])}; expected spans of words such as [[2, 4]] or 2-4")
    spans = []
    for one in value:
        if not all(re.fullmatch(r"\d{1,9}", str(end)) for end in one):
            raise PromptError(f"the rationale holds {shown(one)}; expected two whole numbers")
        spans.append((int(one[0]), int(one[1])))
    check_spans(spans, words)
    return tuple(spans)


def _ordered(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels there are, in order; those that are all numbers by size."""
    there = set(labels)
    if all(re.fullmatch(r"-?\d{1,9}", label) for label in there):
        return tuple(sorted(there, key=int))
    return tuple(sorted(there))
