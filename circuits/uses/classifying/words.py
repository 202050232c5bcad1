"""From the tokens that a classifier reads to the words of its texts: what stands between spaces."""

import dataclasses
import re
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError
from circuits.models import Model
from circuits.models.tokenizing import token_ids
from circuits.uses.classifying.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class SpeltText:
    """A text's words, its tokens as a classifier reads them, and the word that each token belongs to; -1: none, as what
    opens a prompt.

    A token belongs to the word that it shares most characters with, of equal ones the earlier; spaces
    that are tokens belong to the word behind them. Words in front of the last
    tokens of a long text have none; where one token spells two words, nor has the other.
    """

    words: tuple[str, ...]
    ids: tuple[int, ...]
    owners: tuple[int, ...]

    def without(self, words: frozenset[int]) -> list[int]:
        """The tokens that are left when some words are taken out."""
        return [token for token, owner in zip(self.ids, self.owners, strict=True) if owner not in words]


def spelt_texts(classifier: Classifier, texts: Sequence[str]) -> list[SpeltText]:
    """Texts as a classifier reads them, with the word of each token. Raises ModelError for a tokenizer that does not know the
    characters of its tokens, PromptError for a text without tokens."""
    model = classifier.model
    if model.tokenizer is None or not model.tokenizer.is_fast:
        raise ModelError(f"{model.name}: words need a fast tokenizer, which knows the characters of each token")
    opening, found = len(model.opening()), []
    for text, row in zip(texts, classifier.rows(texts), strict=True):
        words, owners = tuple(text.split()), _owners(model, text)
        if len(owners) > len(row):  # a long text: what opens a prompt, then its last tokens
            owners = [*[-1] * opening, *owners[len(owners) - (len(row) - opening) :]]
        found.append(SpeltText(words, tuple(row), tuple(owners)))
    return found


def word_places(texts: Sequence[SpeltText], width: int) -> Int[Tensor, "text position"]:
    """The word of each token of texts side by side, padded on the right; -1 where there is none."""
    return torch.tensor([[*one.owners, *[-1] * (width - len(one.owners))] for one in texts])


def word_sums(values: Float[Tensor, "text position"], texts: Sequence[SpeltText]) -> Float[Tensor, "text word"]:
    """What the tokens of each word have together; 0 for words without tokens and beyond a text's end. Differentiable."""
    places = word_places(texts, values.shape[1]).to(values.device)
    most = max(len(one.words) for one in texts)
    # What belongs to no word goes to a column that is dropped.
    sums = values.new_zeros(len(texts), most + 1).scatter_add(1, torch.where(places < 0, most, places), values)
    return sums[:, :most]


def _owners(model: Model, text: str) -> list[int]:
    """The word of each token of a text."""
    spelt = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    own, whole = [int(token) for token in spelt.input_ids], token_ids(model.tokenizer, text, prepend_bos=model.prepend_bos)
    front = next(at for at in range(len(whole) - len(own) + 1) if whole[at : at + len(own)] == own)
    words = [match.span() for match in re.finditer(r"\S+", text)]
    owners = [_owner(words, start, end) for start, end in spelt.offset_mapping]
    return [*[-1] * front, *owners, *[-1] * (len(whole) - front - len(own))]


def _owner(words: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """The word that shares most characters with a span; of spaces the word behind them, or the last one."""
    shared = [min(end, stop) - max(start, begin) for begin, stop in words]
    best = max(range(len(words)), key=shared.__getitem__)
    if shared[best] > 0:
        return best
    return next((place for place, (begin, _) in enumerate(words) if begin >= end), len(words) - 1)
