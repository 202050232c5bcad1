"""Sentences whose content words mean nothing ("jabberwocky", Maudslay & Cotterell 2021): what of a tree is told by words that a
model knows must go with them, what is told by endings, function words and order stays."""

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from circuits.tasks.sources.conllu import Sentence, Word

CONTENT = ("NOUN", "PROPN", "VERB", "ADJ", "ADV")
"""Parts of speech whose words are replaced, but for those of a closed class (with PronType: how, there)."""
_ENDINGS = {
    "NOUN": ("ings", "ing", "ies", "es", "s"),
    "PROPN": ("s",),
    "VERB": ("ings", "ing", "ied", "ies", "ed", "es", "en", "s"),
    "ADJ": ("iest", "ier", "est", "er"),
    "ADV": ("ly",),
}
_ONSETS = ("b", "bl", "br", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "j", "k", "kr", "l", "m", "n", "p", "pl", "pr", "r")
_ONSETS += ("s", "sk", "sl", "sn", "sp", "st", "t", "tr", "v", "w", "z", "sh", "th", "ch")
_VOWELS = ("a", "e", "i", "o", "u", "oo", "ea", "ai")
_CODAS = ("b", "d", "ft", "g", "k", "lk", "lm", "lt", "m", "mp", "n", "nd", "nk", "nt", "p", "rk", "rm", "rp", "rt", "sk")
_CODAS += ("sp", "t", "x")
_LEAST_STEM = 2
"""Letters before an ending: of "his" or "bed" nothing is one."""


def pseudo_words(sentences: Sequence[Sentence], *, seed: int = 0) -> dict[tuple[str, str], str]:
    """A pronounceable string that is none of the sentences' words for each content word, by its form in small letters and its
    part of speech; it keeps the word's inflectional ending (English). Decided by `seed`.

    >>> from circuits.tasks import grammar_sentences
    >>> made = pseudo_words(grammar_sentences(20))
    >>> made["dogs", "NOUN"].endswith("s"), ("the", "DET") in made
    (True, False)
    """
    draw = random.Random(seed)
    taken = {word.form.lower() for sentence in sentences for word in sentence.words}
    found: dict[tuple[str, str], str] = {}
    for sentence in sentences:
        for word in sentence.words:
            key = (word.form.lower(), word.tag)
            if key not in found and _has_content(word):
                found[key] = _drawn(*key, draw, taken)
                taken.add(found[key])
    return found


def in_nonsense(sentence: Sentence, words: Mapping[tuple[str, str], str]) -> Sentence:
    """The sentence with its words replaced, large letters where they were and the tree as it is. Words that share their place
    in the text with another one stay."""
    shared = Counter((word.start, word.end) for word in sentence.words)
    text, at, places, forms = "", 0, dict[tuple[int, int], tuple[int, int]](), list[str]()
    for word in sentence.words:
        span = (word.start, word.end)
        other = words.get((word.form.lower(), word.tag)) if shared[span] == 1 else None
        forms.append(word.form if other is None else _cased(other, word.form))
        if span not in places:
            text += sentence.text[at : word.start]
            written = sentence.text[word.start : word.end] if other is None else forms[-1]
            places[span], at = (len(text), len(text) + len(written)), word.end
            text += written
    made = [
        dataclasses.replace(word, form=form, start=places[word.start, word.end][0], end=places[word.start, word.end][1])
        for word, form in zip(sentence.words, forms, strict=True)
    ]
    return dataclasses.replace(sentence, text=text + sentence.text[at:], words=tuple(made))


def _has_content(word: Word) -> bool:
    return word.tag in CONTENT and word.form.isalpha() and len(word.form) > 1 and "PronType=" not in word.feats


def _drawn(form: str, tag: str, draw: random.Random, taken: set[str]) -> str:
    """A string with the ending of a form that is not taken; longer ones where the short ones are."""
    ending = next((one for one in _ENDINGS[tag] if form.endswith(one) and len(form) - len(one) > _LEAST_STEM), "")
    for tries in range(10_000):
        syllables = 1 + tries // 50 + (len(form) - len(ending) > 5)
        middle = "".join(draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(syllables - 1))
        made = middle + draw.choice(_ONSETS) + draw.choice(_VOWELS) + draw.choice(_CODAS) + ending
        if made not in taken:
            return made
    raise AssertionError("strings of many syllables are never all taken")


def _cased(made: str, form: str) -> str:
    if form.isupper() and len(form) > 1:
        return made.upper()
    return made[0].upper() + made[1:] if form[0].isupper() else made
