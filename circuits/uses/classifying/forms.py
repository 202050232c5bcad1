"""What a word is without its capitals and the punctuation around it, and how another one takes its place."""

import unicodedata


def bare_of(word: str) -> str:
    """A word without the punctuation around it; what is punctuation alone stays."""
    inside = [place for place, letter in enumerate(word) if not unicodedata.category(letter).startswith("P")]
    return word[inside[0] : inside[-1] + 1] if inside else word


def form_of(word: str) -> str:
    """A word as it is counted: in small letters, without the punctuation around it; what is punctuation alone stays."""
    return bare_of(word.casefold())


def in_place(word: str, form: str, other: str | None) -> str:
    """Another word where one stood; its punctuation stays, also where the word is taken out."""
    at = word.casefold().find(form)
    front, behind = word[:at], word[at + len(form) :]
    if other is None:
        return front + behind
    said = word[at : at + len(form)]
    if said.isupper() and len(said) > 1:
        return front + other.upper() + behind
    return front + (other[:1].upper() + other[1:] if said[:1].isupper() else other) + behind
