"""Sentences of a small grammar of English, with the parts of speech and dependencies by which they are made: something to
probe for where no file of annotated sentences is at hand.

Many of the words are of two parts of speech ("plan", "light", "fast"), so that which one it is hangs on the words around.
"""

import itertools
import random
from collections.abc import Sequence

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
    """So many minimal pairs of these sentences, as many of each of three paradigms: `order` (two neighbours have changed
    places), `number` (two nouns of different number have, so that a determiner does not fit its noun: "these house"),
    `category` (a noun has with a verb or a preposition). Both sentences of a pair have the very same words."""
    draw = random.Random(seed)
    made = (_sentence(draw.choice(_SHAPES), number, draw) for number in itertools.count(1))
    found: list[MinimalPair] = []
    while len(found) < count:
        sentence, paradigm = next(made), _WRONG[len(found) % len(_WRONG)]
        words = sentence.words
        forms = [words[0].form if words[0].tag == "PROPN" else words[0].form.lower(), *(word.form for word in words[1:])]
        pairs = itertools.combinations(range(len(words)), 2)
        places = [pair for pair in pairs if _goes_wrong(paradigm, words, forms, *pair)]
        if places:
            at, other = draw.choice(places)
            forms[at], forms[other] = forms[other], forms[at]
            found.append(MinimalPair(sentence.text, _spelt(forms), paradigm, "grammar"))
    return tuple(found)


_WRONG = ("order", "number", "category")
_OF_ONE_NUMBER = ("this", "every", "these", "many")


def _goes_wrong(paradigm: str, words: Sequence[Word], forms: Sequence[str], first: int, second: int) -> bool:
    """Whether a sentence is wrong in the way of a paradigm where two words change places."""
    if paradigm == "order":
        return 0 < first == second - 1 and words[second].tag != "PUNCT"
    one, other = words[first], words[second]
    if paradigm == "number":
        nouns = one.tag == other.tag == "NOUN" and one.feats != other.feats
        return nouns and not {forms[first - 1], forms[second - 1]}.isdisjoint(_OF_ONE_NUMBER)
    both = {*_BOTH, *_ALSO_NOUNS, *_ALSO_ADVERBS}
    apart = {one.tag, other.tag} in ({"NOUN", "VERB"}, {"NOUN", "ADP"})
    return apart and one.form not in both and other.form not in both


def _spelt(forms: list[str]) -> str:
    return " ".join([forms[0][0].upper() + forms[0][1:], *forms[1:-1]]) + forms[-1]
