"""Concepts as masks over words or tokens: from annotations, from a lexicon, and from how they are written."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.concepts.forms.units import Units, words_in
from circuits.errors import FileFormatError, PromptError, shown
from circuits.files.reading import read_json
from circuits.lenses.explaining.rule_search import holding_at
from circuits.tasks.sources.conllu import Sentence, Word

Lexicon = Mapping[str, Sequence[str]]
ANNOTATED = ("upos", "deprel", "feats", "xpos", "lemma", "after upos")
WRITTEN = ("class", "word", "first", "after class", "after", "start", "end")
KINDS = (*ANNOTATED, *WRITTEN)
"""Kinds of concepts, in the order in which equal ones are named: columns of CoNLL-U, then how a word is written (its class,
such as digits; the word itself; the first of its row; the class of the word before it, that word; beginnings and endings)."""
MOST = 2000
"""Concepts at most; the rarer ones are left out."""


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptMasks:
    """Concepts by name, and the words or tokens at which each holds."""

    names: tuple[str, ...]
    masks: Bool[Tensor, "concept unit"]
    left_out: dict[str, int]
    """Concepts that are not searched, by reason."""


def read_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Concepts and their words, from a JSON file `{"concept": ["word", ...]}`. Raises FileFormatError for anything else, for
    fewer than two concepts, and for one without words."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise FileFormatError(f'{path}: expected an object of concepts with their words, such as {{"sea": ["ship", "wave"]}}')
    for name, words in data.items():
        if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise FileFormatError(f"{path}: the concept {shown(name)}: expected a list of words, one or more")
    if len(data) < 2:
        raise FileFormatError(f"{path}: {len(data)} concepts: expected 2 or more, to choose among and to join")
    return {name: tuple(words) for name, words in data.items()}


def concept_masks(
    units: Units, *, kinds: Sequence[str] = (), lexicon: Lexicon | None = None, least: int = 10, most: int = MOST
) -> ConceptMasks:
    """The concepts of these kinds and of a lexicon that hold at `least` words or more. Of concepts that hold at the same words
    the first is kept: those of the lexicon, then by kind, in the order given, the more frequent first. Raises PromptError for
    kinds that there are not, and for fewer than two concepts."""
    found = dict[str, list[int]]()
    for name, places in _of_lexicon(units.forms, [*units.lines()], lexicon or {}):
        found.setdefault(name, []).append(places)
    sizes = [len(found)]
    for kind in checked(kinds, annotated=units.words is not None):
        own = dict[str, list[int]]()
        for name, place in _of_kind(units, kind):
            own.setdefault(name, []).append(place)
        found |= dict(sorted(own.items(), key=lambda item: -len(item[1])))
        sizes.append(len(found))
    often = {name: frozenset(places) for name, places in found.items() if len(set(places)) >= least}
    first = dict[frozenset[int], str]()
    for name, places in often.items():
        first.setdefault(places, name)
    rank = sorted(first, key=lambda places: -len(places))[:most]
    chosen = [(name, places) for places, name in first.items() if places in set(rank)]
    require_several(len(chosen), len(found), least)
    masks = torch.zeros(len(chosen), len(units), dtype=torch.bool)
    for row, (_, places) in zip(masks, chosen, strict=True):
        row[list(places)] = True
    left_out = {f"at fewer than {least} words": len(found) - len(often), "the same words as another": len(often) - len(first)}
    left_out[f"beyond the {most:,} most frequent"] = len(first) - len(chosen)
    return ConceptMasks(tuple(name for name, _ in chosen), masks, {why: count for why, count in left_out.items() if count})


def checked(kinds: Sequence[str], *, annotated: bool) -> Sequence[str]:
    """The kinds. Raises PromptError for one that there is not, or that this text cannot have."""
    known = KINDS if annotated else WRITTEN
    wrong = next((kind for kind in kinds if kind not in known), None)
    if wrong is not None:
        where = "" if annotated else " of a text without annotations"
        raise PromptError(f"{shown(wrong)} is no kind of concepts{where}: expected {', '.join(known)}")
    return kinds


def require_several(found: int, before: int, least: int) -> None:
    """Raise PromptError for fewer than two concepts."""
    if not before:
        raise PromptError(
            "none of the concepts holds at any word of the text: give a lexicon with words of it, or kinds (--kinds) whose "
            "column is filled"
        )
    if found < 2:
        none = "none" if not found else "only one"
        raise PromptError(
            f"{none} of {before:,} concepts holds at {least} words of the text or more: give more text, other concepts, or "
            "fewer words a concept (--least)"
        )


def _of_lexicon(forms: Sequence[str], lines: Sequence[range], lexicon: Lexicon) -> Iterator[tuple[str, int]]:
    """Concepts of a lexicon, each with a place at which one of its words ends; capitals do not count."""
    ends = dict[str, list[tuple[str, list[str]]]]()
    for name, entries in lexicon.items():
        for entry in entries:
            words = entry.lower().split()
            ends.setdefault(words[-1], []).append((name, words))
    for line in lines:
        written = [forms[place].lower() for place in line]
        for at, place in enumerate(line):
            for name, words in ends.get(written[at], ()):
                if written[max(0, at + 1 - len(words)) : at + 1] == words:
                    yield name, place


def _of_kind(units: Units, kind: str) -> Iterator[tuple[str, int]]:
    """Concepts of one kind, each with a word at which it holds."""
    words = units.words
    for line in units.lines():
        written = [units.forms[place] for place in line]
        for at, place in enumerate(line):
            if kind == "first":
                yield from [("first", place)] if not at else []
            elif kind == "after upos" and words is not None:
                yield from [(f"after upos={words[place - 1].tag}", place)] if at else []
            elif kind in ANNOTATED and words is not None:
                yield from ((name, place) for name in _column(words[place], kind))
            else:
                yield from ((f"{one.kind}={one.text}", place) for one in holding_at(written, at) if one.kind == kind)


def _column(word: Word, kind: str) -> list[str]:
    """What a column says of a word."""
    if kind == "feats":
        return [] if word.feats == "_" else word.feats.split("|")
    value = {"upos": word.tag, "xpos": word.xpos, "deprel": word.relation, "lemma": word.lemma}[kind]
    return [] if value == "_" else [f"{kind}={value}"]


def require_in_sentences(sentences: Sequence[Sentence], kinds: Sequence[str], lexicon: Lexicon | None, least: int) -> None:
    """Raise PromptError where annotated sentences have fewer than two concepts, whatever the model."""
    words = tuple(word for sentence in sentences for word in sentence.words)
    row = torch.tensor([number for number, sentence in enumerate(sentences) for _ in sentence.words])
    concept_masks(
        Units((), row, row, tuple(word.form for word in words), row, words), kinds=kinds, lexicon=lexicon, least=least
    )


def require_in_text(text: str, lexicon: Lexicon, least: int) -> None:
    """Raise PromptError where a text has fewer than two concepts of a lexicon, whatever the model."""
    forms = tuple(words_in(text))
    row = torch.zeros(len(forms), dtype=torch.long)
    concept_masks(Units((), row, row, forms, row), lexicon=lexicon, least=least)
