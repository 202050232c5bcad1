"""Words that may stand for each other: from a file, from a model's embeddings, or of the reviews that are made."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from circuits.errors import FileFormatError, ModelError, PromptError, shown
from circuits.files.reading import read_json
from circuits.models import Model
from circuits.uses.classifying.forms import form_of, in_place
from circuits.uses.classifying.planted import BAD, GOOD, THINGS

Synonyms = Mapping[str, tuple[str, ...]]
"""Words in small letters without the punctuation around them, each with those that may stand in its place."""
NEAREST, LIKE = 4, 0.3
"""Neighbours of a word at most, and the cosine that they have at least."""
_LARGEST = 20_000_000
_LETTERS = re.compile(r"[^\W\d_]{3,}")


def read_synonyms(path: str | Path) -> Synonyms:
    """A JSON object from words to lists of words. Raises FileFormatError for anything else, for words with spaces in them, and
    where no word has another."""
    data = read_json(Path(path), max_bytes=_LARGEST)
    if not isinstance(data, dict):
        raise FileFormatError(f"{path}: expected an object from words to lists of words")
    found = {}
    for word, others in data.items():
        if not isinstance(others, list) or not all(isinstance(one, str) and len(one.split()) == 1 for one in others):
            raise FileFormatError(f"{path}: {shown(word)} has {shown(json.dumps(others))}; expected a list of single words")
        kept = tuple(dict.fromkeys(one for one in others if one.lower() != word.lower()))
        if kept:
            found[form_of(word)] = kept
    if not found:
        raise FileFormatError(f"{path}: no word has another one to stand in its place")
    return found


def planted_synonyms() -> Synonyms:
    """Of the reviews that are made: an opinion for every other one of its side, a thing for every other thing."""
    groups: Sequence[Sequence[str]] = (GOOD, BAD, THINGS)
    return {word: tuple(other for other in group if other != word) for group in groups for word in group}


def embedded_synonyms(model: Model, words: Iterable[str], *, nearest: int = NEAREST, like: float = LIKE) -> Synonyms:
    """For each word that is one token (behind a space) its nearest neighbours among such words, by the cosine of their token
    embeddings less the mean. Neighbours are used alike, which need not mean the same: opposites are among them.

    Raises ModelError without a tokenizer, PromptError where no word has a neighbour.

    Args:
        model: whose embeddings are compared.
        words: for which neighbours are looked up.
        nearest: neighbours of a word, at most.
        like: the cosine that they have at least.
    """
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: it knows no words")
    known: dict[str, int] = {}
    for token, text in enumerate(model.to_token_strings(list(range(model.d_vocab)))):
        if text[:1] == " " and _LETTERS.fullmatch(text[1:]) and text[1:].islower():
            known.setdefault(text[1:], token)
    asked = {form_of(word) for word in words}
    names, ids = list(known), torch.tensor(list(known.values()), device=model.device)
    vectors = model.weights.W_E[ids].float()
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    found = {}
    for at in (at for at, name in enumerate(names) if name in asked):
        cosines = vectors @ vectors[at]
        cosines[at] = -1.0
        best = cosines.topk(min(nearest, len(names) - 1))
        near = [names[place] for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True) if value >= like]
        if near:
            found[names[at]] = tuple(near)
    if not found:
        raise PromptError(f"no word of the texts has a neighbour among the embeddings of {model.name}: give a file of synonyms")
    return found


def alternatives(word: str, synonyms: Synonyms) -> tuple[str, ...]:
    """The words that may stand for a word, with a capital where it has one and in the punctuation around it."""
    form = form_of(word)
    return tuple(in_place(word, form, one) for one in synonyms.get(form, ()))
