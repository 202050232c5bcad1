"""Where words begin and end in a text of any script."""

import unicodedata

_SPACELESS = ("CJK ", "HIRAGANA", "KATAKANA", "HALFWIDTH", "IDEOGRAPHIC", "THAI", "LAO ", "KHMER", "MYANMAR", "TIBETAN")
"""How Unicode calls letters of scripts that put no space between words."""
_ATTACHING = (*_SPACELESS, "HANGUL")
"""Those, and Korean's, which puts none between a noun and what belongs to it."""


def is_spaceless(character: str) -> bool:
    """Whether a character is a letter of a script that does not part words by spaces."""
    return character.isalnum() and unicodedata.name(character, "").startswith(_SPACELESS)


def is_boundary(before: str, after: str) -> bool:
    """Whether a word may end, and another begin, between two neighbouring characters ("": the text's beginning or end): not
    between letters, digits and the marks upon them; unless one of the two is of a script that does not part words."""
    if not before or not after or not _in_a_word(before) or not _in_a_word(after):
        return True
    return not _is_mark(after) and (_attaches(before) or _attaches(after))


def _in_a_word(character: str) -> bool:
    return character.isalnum() or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _attaches(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_ATTACHING)
