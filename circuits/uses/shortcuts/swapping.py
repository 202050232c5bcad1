"""Texts with some words swapped or taken out: what a classifier says of them tells whether it leans on these words."""

import random
from collections.abc import Mapping
from typing import Literal

from circuits.uses.classifying.examples import Examples, Span, marked_words
from circuits.uses.classifying.forms import form_of, in_place

Way = Literal["random", "flipped"]


def replaced(text: str, words: Mapping[str, str | None]) -> str:
    """A text with another word in place of each of these, in its capitals and with the punctuation around it; taken out for
    None, unless nothing would be left."""
    found = [in_place(word, form, words[form]) if form in words else word for word, form in _formed(text)]
    kept = [word for word in found if word]
    return " ".join(kept) if kept else text


def swapped(examples: Examples, words: Mapping[str, tuple[int, str | None]], way: Way, *, seed: int = 0) -> Examples:
    """The same texts with shortcuts that tell nothing of the label (`random`: each text has those of a class that is drawn) or
    the wrong one (`flipped`: each has those of another class). Rationales go along.

    Args:
        examples: labelled texts.
        words: each shortcut's class, and the word of another class that is put in its place; None: it is taken out.
        way: random or flipped.
        seed: what classes are drawn by.
    """
    draw = random.Random(seed)
    texts, rationales = [], []
    for number, (text, label) in enumerate(zip(examples.texts, examples.labels, strict=True)):
        others = [one for one in range(len(examples.classes)) if one != label]
        shown = draw.randrange(len(examples.classes)) if way == "random" else draw.choice(others)
        wrong = {word: other for word, (of, other) in words.items() if of != shown}
        given = examples.rationales[number] if examples.rationales else None
        texts.append(replaced(text, wrong))
        rationales.append(None if given is None else _moved(text, given, wrong))
    some = tuple(rationales) if examples.rationales else ()
    return Examples(tuple(texts), examples.labels, examples.classes, some)


def _formed(text: str) -> list[tuple[str, str]]:
    return [(word, form_of(word)) for word in text.split()]


def _moved(text: str, spans: tuple[Span, ...], words: Mapping[str, str | None]) -> tuple[Span, ...]:
    """Where marked words stand when others are taken out."""
    pieces = [in_place(word, form, words[form]) if form in words else word for word, form in _formed(text)]
    if not any(pieces):
        return spans
    marked, place, found = marked_words(spans), 0, []
    for number, piece in enumerate(pieces):
        if piece:
            found += [(place, place + 1)] if number in marked else []
            place += 1
    return tuple(found)
