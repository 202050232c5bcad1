"""Which words are mentions of one thing, and what each pronoun may refer back to."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from circuits.probes.reading import WordText
from circuits.tasks.sources.conllu import Sentence, Word

CANDIDATES = ("NOUN", "PROPN", "PRON")
"""Parts of speech of words that a pronoun may refer back to."""
NO_TOKEN, NO_ANTECEDENT = "without a token of their own", "without an antecedent among the words before them"
ONE_CANDIDATE = "of one candidate"
_BRACKET = re.compile(r"\(([^()\[\]|-]+)(?:\[\d+/\d+\])?([^()]*)(\))?|([^()\[\]|-]+)(?:\[\d+/\d+\])?\)")
"""A mention opens, and closes again where it is one word; or it closes: "(e1-person-1-", "(e2-place)", "e1)"."""


@dataclasses.dataclass(frozen=True)
class Mention:
    """Words from `first` to `last` of a sentence that mean an entity."""

    entity: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Referring:
    """A pronoun, by its place among the words of a text; the words before it that it may refer to, and which of these are
    heads of earlier mentions of what it means."""

    passage: int
    document: int
    pronoun: int
    candidates: tuple[int, ...]
    right: tuple[bool, ...]
    nearest: int
    """Which candidate is the nearest noun or name; the nearest one where there is none."""


def mentions(sentence: Sentence) -> list[Mention]:
    """The mentions that `Entity=` in MISC brackets (CorefUD, GUM), in the order in which they end. Brackets that never close,
    or never opened, are passed over; parts of a mention with a gap count by themselves."""
    opened: dict[str, list[int]] = {}
    found = []
    for place, word in enumerate(sentence.words):
        value = next((part[7:] for part in word.misc.split("|") if part.startswith("Entity=")), "")
        for entity, _, closes, closed in _BRACKET.findall(value):
            if entity and closes:
                found.append(Mention(entity, place, place))
            elif entity:
                opened.setdefault(entity, []).append(place)
            elif opened.get(closed):
                found.append(Mention(closed, opened[closed].pop(), place))
    return found


def head_of(sentence: Sentence, mention: Mention) -> int:
    """The word of a mention whose own head is outside of it (of several the first)."""
    inside = range(mention.first, mention.last + 1)
    return next((place for place in inside if sentence.words[place].head not in inside), mention.last)


def passages(sentences: Sequence[Sentence], most: int) -> list[Sentence]:
    """Sentences of one document put together, up to so many words: a model sees what was said before, and pronouns refer back
    to it. Documents are told by the names of sentences up to their last hyphen (GUM_art-12); without names each sentence is
    its own."""
    found = []
    for _, own in groupby(enumerate(sentences), key=lambda row: _document(row[1], row[0])):
        part: list[Sentence] = []
        for _, sentence in own:
            if part and sum(len(one.words) for one in part) + len(sentence.words) > most:
                found.append(_joined(part))
                part = []
            part.append(sentence)
        found.append(_joined(part))
    return found


def _document(sentence: Sentence, number: int) -> str | int:
    """The document of a sentence, or of a passage: its name up to the last hyphen; without a name its own."""
    return sentence.name.rpartition("-")[0] or number


def _joined(sentences: Sequence[Sentence]) -> Sentence:
    """One text of several; each keeps its root."""
    text, words = "", list[Word]()
    for sentence in sentences:
        text += " " if text else ""
        moved, before = len(text), len(words)
        for word in sentence.words:
            head = None if word.head is None else word.head + before
            words.append(dataclasses.replace(word, start=word.start + moved, end=word.end + moved, head=head))
        text += sentence.text
    return Sentence(text, tuple(words), sentences[0].name, sentences[0].place)


def referring(text: WordText) -> tuple[list[Referring], dict[str, int]]:
    """The pronouns with an antecedent among the words before them, of two candidates or more, and how many pronouns with a
    mention of their own are left out, by reason."""
    at = {place: word for word, place in enumerate(text.places)}
    documents: dict[str | int, int] = {}
    found = list[Referring]()
    left_out: dict[str, int] = dict.fromkeys((NO_TOKEN, NO_ANTECEDENT, ONE_CANDIDATE), 0)
    for number, one in enumerate(text.aligned):
        document = documents.setdefault(_document(one.sentence, number), len(documents))
        for pronoun, before, right in _of_passage(one.sentence):
            there = [(word, at[number, word]) for word in before if (number, word) in at]
            if (number, pronoun) not in at:
                left_out[NO_TOKEN] += 1
            elif not right & {word for word, _ in there}:
                left_out[NO_ANTECEDENT] += 1
            elif len(there) < 2:
                left_out[ONE_CANDIDATE] += 1
            else:
                nouns = [place for place, (word, _) in enumerate(there) if one.sentence.words[word].tag != "PRON"]
                nearest = nouns[-1] if nouns else len(there) - 1
                places, rights = tuple(place for _, place in there), tuple(word in right for word, _ in there)
                found.append(Referring(number, document, at[number, pronoun], places, rights, nearest))
    return found, left_out


def _of_passage(sentence: Sentence) -> Iterator[tuple[int, list[int], set[int]]]:
    """Each pronoun that is a mention by itself, the candidates before it, and those among them that are right."""
    heads: dict[str, list[int]] = {}
    alone = set()
    for mention in mentions(sentence):
        heads.setdefault(mention.entity, []).append(head_of(sentence, mention))
        if mention.first == mention.last:
            alone.add(mention.first)
    candidates = [place for place, word in enumerate(sentence.words) if word.tag in CANDIDATES]
    for own in heads.values():
        for pronoun in own:
            if pronoun in alone and sentence.words[pronoun].tag == "PRON":
                before = [place for place in candidates if place < pronoun]
                yield pronoun, before, {place for place in own if place < pronoun} & set(before)
