"""Sentences of a small grammar of English, with the parts of speech and dependencies by which they are made: something to
probe for where no file of annotated sentences is at hand.

Many of the words are of two parts of speech ("plan", "light", "fast"), so that which one it is hangs on the words around.
"""

import itertools
import random

from circuits.tasks.behavioural.minimal_pairs import MinimalPair
from circuits.tasks.sources.conllu import Sentence, Word

_BOTH = (
    "plan",
    "visit",
    "call",
    "work",
    "answer",
    "dance",
    "drink",
    "march",
    "walk",
    "play",
    "guard",
    "watch",
    "help",
    "study",
)
_ALSO_NOUNS = ("light", "cold", "square", "human", "round", "secret", "good", "young")
_ALSO_ADVERBS = ("fast", "early", "late", "hard", "far", "well")
_WORDS = {
    "NOUN": ("house", "river", "book", "garden", "school", "city", "letter", "picture", "door", "story", *_BOTH, *_ALSO_NOUNS),
    "MANY": ("dogs", "kings", "women", "children", "teachers", "men", "birds", "people", "friends", "students"),
    "VERB": ("see", "like", "find", "make", "know", "want", "remember", "need", *_BOTH),
    "ADJ": ("old", "small", "new", "red", "famous", "quiet", "great", *_ALSO_NOUNS, *_ALSO_ADVERBS),
    "ADV": ("often", "here", "again", "together", "never", *_ALSO_ADVERBS),
    "ADP": ("in", "near", "with", "from", "behind", "of"),
    "DET": ("the", "the", "this", "every", "some"),
    "PLURAL": ("the", "the", "these", "many", "some"),
    "PRON": ("they", "we", "you"),
    "PROPN": ("Mary", "John", "Paris", "London", "Anna", "Peter", "Rome", "Tom"),
    "CCONJ": ("and", "or"),
    "AUX": ("can", "will", "must", "should"),
    "PUNCT": (".",),
}
_TAGS = {"MANY": "NOUN", "PLURAL": "DET"}
_FEATURES = {"MANY": "Number=Plur", "NOUN": "Number=Sing", "PROPN": "Number=Sing", "PRON": "Number=Plur"}
_SHAPES = (
    "PLURAL>2:det MANY>3:nsubj VERB>0:root DET>5:det NOUN>3:obj PUNCT>3:punct",
    "PLURAL>3:det ADJ>3:amod MANY>4:nsubj VERB>0:root ADP>7:case DET>7:det NOUN>4:obl PUNCT>4:punct",
    "PRON>2:nsubj VERB>0:root DET>5:det ADJ>5:amod NOUN>2:obj PUNCT>2:punct",
    "PLURAL>2:det MANY>6:nsubj ADP>5:case DET>5:det NOUN>2:nmod VERB>0:root DET>8:det NOUN>6:obj PUNCT>6:punct",
    "PROPN>4:nsubj CCONJ>3:cc PROPN>1:conj VERB>0:root DET>6:det NOUN>4:obj ADV>4:advmod PUNCT>4:punct",
    "PRON>3:nsubj AUX>3:aux VERB>0:root ADV>3:advmod PUNCT>3:punct",
    "PRON>3:nsubj ADV>3:advmod VERB>0:root PROPN>3:obj ADP>6:case PROPN>3:obl PUNCT>3:punct",
    "DET>2:det NOUN>4:nsubj AUX>4:aux VERB>0:root DET>7:det ADJ>7:amod NOUN>4:obj ADP>9:case PROPN>7:nmod PUNCT>4:punct",
)
"""Each word: kind > head, counted from 1 (0: none) : relation."""


def grammar_sentences(count: int = 600, seed: int = 0) -> tuple[Sentence, ...]:
    """So many sentences, each of one of eight shapes with its words drawn, decided by `seed`."""
    draw = random.Random(seed)
    return tuple(_sentence(draw.choice(_SHAPES), number, draw) for number in range(1, count + 1))


def _sentence(shape: str, number: int, draw: random.Random) -> Sentence:
    text, words = "", []
    for part in shape.split():
        kind, _, rest = part.partition(">")
        head, _, relation = rest.partition(":")
        form = draw.choice(_WORDS[kind])
        form = form if text else form[0].upper() + form[1:]
        text += " " if text and kind != "PUNCT" else ""
        features, above = _FEATURES.get(kind, "_"), int(head) - 1 if head != "0" else None
        start, tag = len(text), _TAGS.get(kind, kind)
        text += form
        words.append(Word(form, start, len(text), tag, above, relation, form.lower(), "_", features))
    return Sentence(text, tuple(words), f"made-{number}", f"grammar:{number}")


def grammar_pairs(count: int = 300, seed: int = 0) -> tuple[MinimalPair, ...]:
    """So many minimal pairs of these sentences, as many of each of three paradigms: `order` (two words have changed places),
    `number` (a noun does not fit its determiner: "these house"), `category` (a noun's place is filled by an adverb)."""
    draw = random.Random(seed)
    made = (_sentence(draw.choice(_SHAPES), number, draw) for number in itertools.count(1))
    found: list[MinimalPair] = []
    for sentence in made:
        paradigm = _WRONG[len(found) % len(_WRONG)]
        forms = _wrong(sentence, paradigm, draw)
        if forms is not None:
            found.append(MinimalPair(sentence.text, _spelt(forms), paradigm, "grammar"))
        if len(found) == count:
            return tuple(found)
    raise AssertionError("sentences never end")


_WRONG = ("order", "number", "category")
_SINGULAR, _PLURAL = ("this", "every"), ("these", "many")
"""Determiners of one number alone."""


def _wrong(sentence: Sentence, paradigm: str, draw: random.Random) -> list[str] | None:
    """The words of a sentence with one thing wrong about them; None where it has no place for that."""
    words = sentence.words
    forms = [words[0].form if words[0].tag == "PROPN" else words[0].form.lower(), *(word.form for word in words[1:])]
    if paradigm == "order":
        at = draw.randrange(1, len(forms) - 2)
        forms[at], forms[at + 1] = forms[at + 1], forms[at]
        return forms
    before = (*_SINGULAR, *_PLURAL)
    fits = [word.tag == "NOUN" and (paradigm != "number" or forms[at - 1] in before) for at, word in enumerate(words)]
    places = [number for number, there in enumerate(fits) if there]
    if not places:
        return None
    at = draw.choice(places)
    kind = "ADV" if paradigm == "category" else "MANY" if forms[at - 1] in _SINGULAR else "NOUN"
    forms[at] = draw.choice(_WORDS[kind][:5])
    return forms


def _spelt(forms: list[str]) -> str:
    return " ".join([forms[0][0].upper() + forms[0][1:], *forms[1:-1]]) + forms[-1]
