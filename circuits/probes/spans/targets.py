"""Spans that have labels: from a file as edge probing has them, and from dependency trees."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from circuits.errors import FileFormatError, PromptError, shown
from circuits.files.reading import read_json_lines
from circuits.tasks.sources.conllu import Sentence, Word

LARGEST_FILE = 256 * 2**20
SpanProperty = Literal["relation", "phrase", "phrase-upos"]
"""What is asked of a dependency tree: the relation of each word to its head (span1 the word, span2 the head); of each phrase of
more than one word, the relation of its head; the part of speech of its head."""
Span = tuple[int, int]
"""Words from the first number up to the second, which is not in it."""


@dataclasses.dataclass(frozen=True)
class SpanTarget:
    """One span or two, and the labels that are right of them: one, several or none."""

    span1: Span
    span2: Span | None
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SpanSentence:
    """A sentence and what is asked of its spans."""

    sentence: Sentence
    targets: tuple[SpanTarget, ...]


def read_spans(path: str | Path) -> tuple[SpanSentence, ...]:
    """Sentences of a JSONL file as edge probing has them (jiant; Tenney et al. 2019): an object a line with `text`, whose words
    stand between spaces, and `targets`, each with `span1` (and `span2`, where there are two: in all targets or in none), `[i,
    j]` of words from i up to j, and `label`: a text, or a list of texts where several or none are right. Other fields are left
    unread. Raises FileFormatError, with the row counted from 0, for anything else."""
    path = Path(path)
    rows = read_json_lines(path, max_bytes=LARGEST_FILE)
    found = tuple(_sentence(path, number, row) for number, row in enumerate(rows))
    if not any(one.targets for one in found):
        raise FileFormatError(f"{path}: {len(rows)} rows without a target; expected lines with text and targets")
    spans = [(number, 1 if one.span2 is None else 2) for number, row in enumerate(found) for one in row.targets]
    other = next((row for row, count in spans if count != spans[0][1]), None)
    if other is not None:
        before = "one span" if spans[0][1] == 1 else "two spans"
        raise FileFormatError(f"{path}: row {other}: the targets before it have {before} each: expected as many in all")
    return found


def tree_spans(sentences: Sequence[Sentence], what: str = "relation") -> tuple[SpanSentence, ...]:
    """Spans of dependency trees. "relation": each word that has a head, and its head, labelled by the relation without its
    subtype. "phrase": words that all hang on one of them, side by side, more than one and not the whole sentence, labelled by
    the relation of that one to the rest; "phrase-upos": by its part of speech. Raises PromptError for another name, and where
    there is no such span."""
    if what not in get_args(SpanProperty):
        raise PromptError(f"{shown(what)} is no property of spans: expected {', '.join(get_args(SpanProperty))}")
    find = _relations if what == "relation" else _phrases
    found = tuple(SpanSentence(one, tuple(find(one, what))) for one in sentences)
    if not any(one.targets for one in found):
        where = sentences[0].place if sentences else "no sentence was given"
        raise PromptError(f"{where or 'sentence 1'}: none of {len(sentences):,} sentences has a span to ask about ({what})")
    return found


def _relations(sentence: Sentence, what: str) -> list[SpanTarget]:
    pairs = [(number, word.head, _label(word, what)) for number, word in enumerate(sentence.words)]
    return [SpanTarget((n, n + 1), (head, head + 1), (name,)) for n, head, name in pairs if head is not None and name != "_"]


def _phrases(sentence: Sentence, what: str) -> list[SpanTarget]:
    words = sentence.words
    below: list[list[int]] = [[] for _ in words]
    for number in range(len(words)):
        at: int | None = number
        while at is not None:
            below[at].append(number)
            at = words[at].head
    found = []
    for number, inside in enumerate(below):
        first, end = min(inside), max(inside) + 1
        whole = words[number].head is None
        if len(inside) > 1 and end - first == len(inside) and not whole and _label(words[number], what) != "_":
            found.append(SpanTarget((first, end), None, (_label(words[number], what),)))
    return found


def _label(word: Word, what: str) -> str:
    return word.tag if what == "phrase-upos" else word.relation.split(":")[0]


def _sentence(path: Path, number: int, row: object) -> SpanSentence:
    where = f"{path}: row {number}"
    if not isinstance(row, dict):
        raise FileFormatError(f'{where}: {shown(row)}; expected an object with "text" and a list of "targets"')
    for name, kind, said in (("text", str, "a text"), ("targets", list, "a list of targets")):
        if not isinstance(row.get(name), kind):
            there = f"is {shown(row[name])}" if name in row else "is missing"
            raise FileFormatError(f'{where}: "{name}" {there}; expected {said}')
    text = row["text"]
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FileFormatError(f'{where}: "text" is {shown(text)}; expected text')
    pieces = [(one.group(), one.start(), one.end()) for one in re.finditer(r"\S+", text)]
    words = tuple(Word(form, start, end, "_", None, "_") for form, start, end in pieces)
    targets = tuple(_target(f"{where}: target {place}", one, len(words)) for place, one in enumerate(row["targets"]))
    return SpanSentence(Sentence(text, words, place=f"{path}:{number}"), targets)


def _target(where: str, found: object, words: int) -> SpanTarget:
    lacking = [name for name in ("span1", "label") if not isinstance(found, dict) or name not in found]
    if not isinstance(found, dict) or lacking:
        said = f'"{lacking[0]}" is missing' if isinstance(found, dict) else shown(found)
        raise FileFormatError(f'{where}: {said}; expected an object with "span1" and "label"')
    spans = [_span(where, name, found[name], words) for name in ("span1", "span2") if name in found]
    given = found["label"] if isinstance(found["label"], list) else [found["label"]]
    if any(not isinstance(label, str | int) or isinstance(label, bool) or label == "" for label in given):
        raise FileFormatError(f'{where}: "label" is {shown(found["label"])}; expected a text, or a list of texts')
    return SpanTarget(spans[0], spans[1] if len(spans) > 1 else None, tuple(dict.fromkeys(map(str, given))))


def _span(where: str, name: str, value: object, words: int) -> Span:
    numbers = value if isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value) else [0, 0]
    if not 0 <= numbers[0] < numbers[1] <= words:
        said = shown(str(value)).strip("'") if isinstance(value, list) else shown(value)
        raise FileFormatError(f'{where}: "{name}" is {said}; expected [i, j] with 0 <= i < j <= {words}, its words')
    return numbers[0], numbers[1]
