"""Sentences with gold dependencies, from CoNLL-U files (universaldependencies.org/format.html)."""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from circuits.errors import FileFormatError, shown
from circuits.files.limits import lines_of
from circuits.files.reading import unreadable

LARGEST_FILE = 256 * 2**20
_NUMBER = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_RANGE = re.compile(r"([1-9][0-9]{0,5})-([1-9][0-9]{0,5})", re.ASCII)
_EMPTY = re.compile(r"(0|[1-9][0-9]{0,5})\.([1-9][0-9]{0,5})", re.ASCII)
_COLUMNS = 10
_BETWEEN = 100_000
"""Comments and empty lines between two sentences, at most."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A syntactic word: where it stands in its sentence's text (characters from `start` up to `end`), its universal part of
    speech, its head (index in the sentence, None for the root) and the relation to it, such as "nsubj" or "nmod:poss"; and
    the file's other columns as they stand there, `_` for nothing."""

    form: str
    start: int
    end: int
    tag: str
    head: int | None
    relation: str
    lemma: str = "_"
    xpos: str = "_"
    feats: str = "_"
    deps: str = "_"
    misc: str = "_"


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A text and its words in order. Words of one multiword token that is not their forms put together share its place."""

    text: str
    words: tuple[Word, ...]
    name: str = ""
    """The file's `sent_id`."""
    place: str = dataclasses.field(default="", compare=False)
    """The file and the line where its first word stands; no part of what it says."""
    ranges: int = dataclasses.field(default=0, compare=False)
    """Multiword tokens, whose words are read in their place."""
    empty: int = dataclasses.field(default=0, compare=False)
    """Empty nodes (8.1), which are passed over."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of a sentence: number (first and last for a multiword token), its ten columns, its head as a number (-1 for a
    multiword token)."""

    line: int
    first: int
    last: int
    cells: tuple[str, ...]
    head: int

    @property
    def form(self) -> str:
        """The word as it is written."""
        return self.cells[1]

    @property
    def spaced(self) -> bool:
        """Whether a space follows."""
        return "SpaceAfter=No" not in self.cells[9].split("|")

    @property
    def ranged(self) -> bool:
        """Whether it is a multiword token."""
        return self.head < 0


def read_conllu(path: str | Path) -> tuple[Sentence, ...]:
    """Every sentence of a CoNLL-U file, with its basic dependencies; empty nodes and enhanced dependencies are left out.

    A sentence's text is its `# text` comment, else its forms with spaces between them (none where MISC says SpaceAfter=No).
    Raises FileFormatError, with the line, for a file that is missing, not UTF-8 or larger than 256 MiB, for lines of other
    than ten columns, numbers out of order, heads that make no tree with one root, and a text that its words do not spell.
    """
    path, name, empty = Path(path), "", 0
    sentences: list[Sentence] = []
    rows: list[_Row] = []
    text: str | None = None
    between = 0
    for number, line in itertools.chain(_lines(path), [(0, "")]):
        between = 0 if rows else between + 1
        if between > _BETWEEN:
            raise FileFormatError(f"{path}: line {number}: no word in {_BETWEEN:,} lines; expected a CoNLL-U file")
        if line.startswith("#"):
            if rows:
                raise FileFormatError(f"{path}: line {number}: a comment inside a sentence; expected a word or an empty line")
            key, found, value = line[1:].partition("=")
            text = value.strip() if found and key.strip() == "text" else text
            name = value.strip() if found and key.strip() == "sent_id" else name
        elif line:
            new = [*_row(path, number, line, rows)]
            rows.extend(new)
            empty += not new
        elif rows:
            sentences.append(_sentence(path, rows, text, name, empty))
            rows, text, name, empty = [], None, "", 0
    if not sentences:
        raise FileFormatError(f"{path}: holds no sentence; expected a CoNLL-U file")
    return tuple(sentences)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines, one at a time: what is wrong in the first one is known before the last one is read."""
    try:
        yield from lines_of(path, max_bytes=LARGEST_FILE)
    except OSError as error:
        raise unreadable(path, error) from None


def _row(path: Path, number: int, line: str, before: list[_Row]) -> Iterator[_Row]:
    """The row of a line; nothing for an empty node."""
    cells = line.split("\t")
    if len(cells) != _COLUMNS:
        raise FileFormatError(f"{path}: line {number}: {len(cells)} columns between tabs; expected {_COLUMNS}")
    blank = next((place for place, cell in enumerate(cells, 1) if not cell.strip()), None)
    if blank is not None:
        raise FileFormatError(f"{path}: line {number}: column {blank} is empty; expected _ where there is nothing")
    place, head = cells[0], cells[6]
    words = [row for row in before if not row.ranged]
    if empty := _EMPTY.fullmatch(place):
        if int(empty[1]) != len(words):
            raise FileFormatError(f"{path}: line {number}: the empty node {place} comes after word {len(words)}")
        return
    following = len(words) + 1
    if span := _RANGE.fullmatch(place):
        first, last = int(span[1]), int(span[2])
        inside = any(row.ranged and row.last >= first for row in before)
        if first != following or last <= first or inside:
            raise FileFormatError(f"{path}: line {number}: the multiword token {place} does not begin at word {following}")
        yield _Row(number, first, last, tuple(cells), -1)
        return
    if not _NUMBER.fullmatch(place) or int(place) != following:
        raise FileFormatError(f"{path}: line {number}: the word number is {shown(place)}; expected {following}")
    if head != "0" and not _NUMBER.fullmatch(head):
        raise FileFormatError(f"{path}: line {number}: the head is {shown(head)}; expected a word's number, or 0 for the root")
    yield _Row(number, following, following, tuple(cells), int(head))


def _sentence(path: Path, rows: list[_Row], text: str | None, name: str, empty: int) -> Sentence:
    words = [row for row in rows if not row.ranged]
    _check_tree(path, words)
    over = [row for row in rows if row.ranged and row.last > len(words)]
    if over:
        raise FileFormatError(f"{path}: line {over[0].line}: the multiword token reaches past the last word, {len(words)}")
    places = _places(path, rows, text)
    found = []
    for row, (start, end) in zip(words, places, strict=True):
        _, form, lemma, tag, xpos, feats, _, relation, deps, misc = row.cells
        head = None if row.head == 0 else row.head - 1
        found.append(Word(form, start, end, tag, head, relation, lemma, xpos, feats, deps, misc))
    spelt = text if text is not None else "".join(row.form + " " * row.spaced for row in _written(rows)).rstrip()
    return Sentence(spelt, tuple(found), name, f"{path}:{rows[0].line}", sum(row.ranged for row in rows), empty)


def _check_tree(path: Path, words: list[_Row]) -> None:
    """Raise FileFormatError unless the heads make one tree."""
    heads = [row.head for row in words]
    for row in words:
        if row.head > len(words):
            raise FileFormatError(f"{path}: line {row.line}: the head is word {row.head} of a sentence of {len(words)}")
    if heads.count(0) != 1:
        line = words[0].line
        raise FileFormatError(f"{path}: line {line}: the sentence that begins here has {heads.count(0)} roots; expected one")
    sound = {0}
    for row in words:
        seen: list[int] = []
        at = row.first
        while at not in sound:
            if at in seen:
                raise FileFormatError(f"{path}: line {row.line}: following heads from word {row.first} never ends at the root")
            seen.append(at)
            at = heads[at - 1]
        sound.update(seen)


def _written(rows: list[_Row]) -> list[_Row]:
    """What stands in the text: multiword tokens, and words outside of them."""
    covered = {number for row in rows if row.ranged for number in range(row.first, row.last + 1)}
    return [row for row in rows if row.ranged or row.first not in covered]


def _places(path: Path, rows: list[_Row], text: str | None) -> list[tuple[int, int]]:
    """Where each word stands in the text."""
    places: dict[int, tuple[int, int]] = {}
    forms = {row.first: row.form for row in rows if not row.ranged}
    at = 0
    for row in _written(rows):
        if text is not None:
            while text[at : at + 1].isspace():
                at += 1
            if not text.startswith(row.form, at):
                raise FileFormatError(
                    f"{path}: line {row.line}: the text goes on with {shown(text[at : at + 20])}, not {shown(row.form)}"
                )
        places |= _inside(row, [forms[number] for number in range(row.first, row.last + 1)], at)
        at += len(row.form) + (text is None and row.spaced)
    if text is not None and text[at:].strip():
        raise FileFormatError(
            f"{path}: line {rows[-1].line}: the text goes on with {shown(text[at : at + 20])} after the last word"
        )
    return [places[number] for number in range(1, len(forms) + 1)]


def _inside(row: _Row, forms: list[str], at: int) -> dict[int, tuple[int, int]]:
    """The places of the words of one row: one behind the other where they spell it, else all of it for each."""
    if "".join(forms) != row.form:
        return {number: (at, at + len(row.form)) for number in range(row.first, row.last + 1)}
    places = {}
    for number, form in enumerate(forms, row.first):
        places[number] = (at, at + len(form))
        at += len(form)
    return places
