"""What people say of words: which should decide and which should not, as numbers beside the tokens that a classifier reads."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.classifying.examples import Examples, marked_words
from circuits.uses.classifying.words import spelt_texts, word_places
from circuits.uses.shortcuts.label_words import form_of

Wishes = Sequence[Mapping[int, bool]]
"""Of each text, the places of words of which something is said: True where they should matter."""


@dataclasses.dataclass(frozen=True, eq=False)
class Guidance:
    """Of each text and token (padded on the right): whether it belongs to a word, whether something is said of that word, and
    whether it should matter."""

    words: Bool[Tensor, "text position"]
    judged: Bool[Tensor, "text position"]
    wanted: Bool[Tensor, "text position"]

    @classmethod
    def of(cls, classifier: Classifier, texts: Sequence[str], wishes: Wishes) -> "Guidance":
        """Wishes for words as wishes for tokens. Raises PromptError where nothing is said of any word that is read."""
        spelt = spelt_texts(classifier, texts)
        places = word_places(spelt, max(len(one.ids) for one in spelt))
        judged, wanted = torch.zeros_like(places, dtype=torch.bool), torch.zeros_like(places, dtype=torch.bool)
        for row, said in enumerate(wishes):
            for word, matters in said.items():
                judged[row] |= places[row] == word
                wanted[row] |= (places[row] == word) & matters
        if not bool(judged.any()):
            raise PromptError("nothing is said of any word that the classifier reads: there is nothing to hold it to")
        return cls(places >= 0, judged, wanted)

    def target(self, rows: Int[Tensor, " text"], width: int) -> "Target":
        """What is asked of a batch of texts."""
        cut = [one[rows.cpu(), :width].to(rows.device) for one in (self.words, self.judged, self.wanted)]
        return Target(*cut)


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Guidance for the texts of a batch."""

    words: Bool[Tensor, "text position"]
    judged: Bool[Tensor, "text position"]
    wanted: Bool[Tensor, "text position"]

    @property
    def shares(self) -> Float[Tensor, "text position"]:
        """The human rationale: the wanted tokens have equal shares."""
        return self.wanted.float() / self.wanted.sum(dim=1, keepdim=True).clamp(min=1)

    @property
    def whole(self) -> Bool[Tensor, " text"]:
        """Texts of which all is said: which words should matter, and that the others should not."""
        return (self.judged | ~self.words).all(dim=1) & self.wanted.any(dim=1)

    @property
    def any(self) -> Bool[Tensor, " text"]:
        """Texts of which something is said."""
        return self.judged.any(dim=1)


def wishes_of(examples: Examples, *, without: Collection[str] = ()) -> list[dict[int, bool]]:
    """Rationales as wishes (what they hold should matter, all else should not), and words that should matter nowhere. Raises
    PromptError for words that are in no text."""
    unwanted = {form_of(word) for word in without}
    found: list[dict[int, bool]] = []
    seen: set[str] = set()
    for number, text in enumerate(examples.texts):
        words = [form_of(word) for word in text.split()]
        rationale = examples.rationales[number] if examples.rationales else None
        marked = marked_words(rationale or ())
        wishes = {} if rationale is None else {place: place in marked for place in range(len(words))}
        wishes |= {place: False for place, word in enumerate(words) if word in unwanted}
        seen |= unwanted & set(words)
        found.append(wishes)
    if missing := sorted(unwanted - seen):
        raise PromptError(f"the word {missing[0]!r} is in none of {len(examples)} texts")
    return found
