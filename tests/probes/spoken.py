"""Models with a tokenizer of one token a word, and sentences for them."""

import dataclasses
import random

import transformers
from tokenizers import Tokenizer, models as tokenizer_models, pre_tokenizers

from circuits.models import Model
from circuits.models.planted import planted_previous
from circuits.tasks import Sentence, Word

TOKENS = 8


def spoken(model: Model) -> Model:
    """A planted model that reads "w3 w7 w1" after BOS."""
    names = {"<bos>": 0, **{f"w{number}": number for number in range(1, model.d_vocab)}}
    words = Tokenizer(tokenizer_models.WordLevel(names, unk_token="<bos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>")
    return dataclasses.replace(model, tokenizer=fast, prepend_bos=True)


def previous_model() -> Model:
    """A model that knows the token before from behind layer 1 on."""
    return spoken(planted_previous(seed=1).model)


def sentence_of(tokens: list[int], tags: list[str]) -> Sentence:
    """Words by number, each with its part of speech; the first is the root and head of all others."""
    words, at = [], 0
    for place, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        form = f"w{token}"
        head = None if place == 0 else 0
        words.append(Word(form, at, at + len(form), tag, head, "root" if head is None else "dep"))
        at += len(form) + 1
    return Sentence(" ".join(word.form for word in words), tuple(words), place="made:1")


def before(count: int, seed: int = 0, *, follows: float = 0.9) -> list[Sentence]:
    """Sentences whose words are labelled by the word before, and mostly followed by that very word: the label is
    independent of the word itself, and decides what comes next."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        tokens = [rng.randint(1, TOKENS), rng.randint(1, TOKENS)]
        for _ in range(rng.randint(4, 8)):
            tokens.append(tokens[-2] if rng.random() < follows else rng.randint(1, TOKENS))
        tags = ["_", *(f"c{token}" for token in tokens[:-1])]
        found.append(sentence_of(tokens, tags))
    return found
