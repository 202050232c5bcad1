"""Sentences of a small grammar of English with what each pronoun refers to, told by gender and number: something to probe for
where no annotated file is at hand."""

import random

from circuits.tasks.sources.conllu import Sentence, Word

_GROUPS = {
    "she": ("Mary", "Anna", "Lucy", "Sarah", "Emma", "the queen", "the woman", "the girl", "the mother", "the sister"),
    "he": ("John", "Peter", "Tom", "David", "George", "the king", "the man", "the boy", "the father", "the brother"),
    "they": ("the dogs", "the kings", "the women", "the children", "the teachers", "the men", "the birds", "the friends"),
}
"""A pronoun, and what it may refer to."""
_PLACES = ("garden", "river", "school", "house", "city", "door")
_SHAPES = (
    "A:2:nsubj met/VERB:0:root B:2:obj near/ADP:6:case the/DET:6:det PLACE:2:obl and/CCONJ:8:cc P:9:nsubj left/VERB:2:conj",
    "A:2:nsubj told/VERB:0:root B:2:obj that/SCONJ:6:mark P:6:nsubj forgot/VERB:2:ccomp everything/PRON:6:obj",
    "When/SCONJ:3:mark A:3:nsubj saw/VERB:7:advcl B:3:obj ,/PUNCT:7:punct P:7:nsubj smiled/VERB:0:root",
    "A:2:nsubj liked/VERB:0:root B:2:obj because/SCONJ:6:mark P:6:nsubj sang/VERB:2:advcl well/ADV:6:advmod",
    "In/ADP:3:case the/DET:3:det PLACE:5:obl A:5:nsubj helped/VERB:0:root B:5:obj so/SCONJ:9:mark P:9:nsubj ate/VERB:5:advcl",
)
"""Each part: a word with its part of speech, or what is drawn; its head, counted in parts from 1 (0: none); the relation."""


def coreference_sentences(count: int = 600, seed: int = 0) -> tuple[Sentence, ...]:
    """So many sentences of five shapes, decided by `seed`: two of those that a woman, a man and several may be called are
    named, and then a pronoun that fits one of them alone. MISC has `Entity=` brackets, as CorefUD has them."""
    draw = random.Random(seed)
    return tuple(_sentence(draw.choice(_SHAPES), number, draw) for number in range(1, count + 1))


def _sentence(shape: str, number: int, draw: random.Random) -> Sentence:
    pronouns = draw.sample(sorted(_GROUPS), 2)
    named = [draw.choice(_GROUPS[pronoun]) for pronoun in pronouns]
    meant = draw.randrange(2)
    parts = [part.split(":") for part in [*shape.split(), "./PUNCT:0:punct"]]
    root = next(place for place, (_, head, _) in enumerate(parts, 1) if head == "0")
    parts[-1][1] = f"{root}"
    phrases = [_phrase(what, named, pronouns[meant], meant, draw) for what, _, _ in parts]
    last = [sum(len(phrase) for phrase in phrases[: place + 1]) - 1 for place in range(len(parts))]
    text, words = "", list[Word]()
    for phrase, at, (_, head, relation) in zip(phrases, last, parts, strict=True):
        for place, (form, tag, misc) in enumerate(phrase, at - len(phrase) + 1):
            form = form if text else form[0].upper() + form[1:]
            text += " " if text and tag != "PUNCT" else ""
            above = at if place < at else None if head == "0" else last[int(head) - 1]
            words.append(
                Word(form, len(text), len(text) + len(form), tag, above, relation if place == at else "det", misc=misc)
            )
            text += form
    return Sentence(text, tuple(words), f"made.{number}", f"grammar:{number}")


def _phrase(what: str, named: list[str], pronoun: str, meant: int, draw: random.Random) -> list[tuple[str, str, str]]:
    """The words of a part, each with its part of speech and MISC."""
    if what == "P":
        return [(pronoun, "PRON", f"Entity=(e{meant})")]
    if what == "PLACE":
        return [(draw.choice(_PLACES), "NOUN", "_")]
    if what not in ("A", "B"):
        form, _, tag = what.partition("/")
        return [(form, tag, "_")]
    entity = "AB".index(what)
    *before, noun = named[entity].split()
    if not before:
        return [(noun, "PROPN", f"Entity=(e{entity})")]
    return [(before[0], "DET", f"Entity=(e{entity}"), (noun, "NOUN", f"Entity=e{entity})")]
