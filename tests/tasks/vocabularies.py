"""Models without knowledge whose tokenizers hold the words of the language tasks, split in three different ways."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from circuits.models import Model
from circuits.tasks import PromptPairs
from circuits.tasks.library.docstring import _TEMPLATE as DOCSTRING
from circuits.tasks.library.greater_than import _TEMPLATE as GREATER_THAN
from circuits.tasks.library.wording import word_list
from tests.models import bundled
from tests.models.checkpoints import byte_tokenizer
from tests.models.native import native_bridge

KINDS = ("byte pairs", "whole words", "spaced words", "mini")
Make = Callable[..., PromptPairs]

_WORDS = ("women", "men", "places", "objects", "spans", "arguments", "plain")
_FORMS = ("nouns", "verbs", "kinds")
_TEMPLATES = ("ioi_templates", "pronoun_templates", "agreement_templates", "choice_templates")
_DIGITS = r"\d\d|[^\w\s▁]|\n"


def corpus(without: str = "") -> Iterator[str]:
    """Every word behind a space, every template, and years whose halves are more frequent than any other digits; the words
    of one list can be left out."""
    left_out = set(word_list(without)) if without in _WORDS else set()
    words = [word for kind in _WORDS for word in word_list(kind)]
    words += [form for kind in _FORMS if kind != without for pair in word_list(kind) for form in pair]
    yield from (f"the {word}" for word in (*words, "she", "he") if word not in left_out)
    for kind in _TEMPLATES:
        yield from (template.replace("{", "").replace("}", "") for template in word_list(kind))
    yield from (template.replace("{", " ").replace("}", " ") for template in (DOCSTRING, GREATER_THAN))
    yield from (f"the {label}" for label in "ABCDEFGHIJKLMNOPQRSTUVWXYZ1234")
    for century in range(11, 18):
        yield from [f"the year {century}"] * 2000
    yield from (f",{year:02d}" for year in range(100) for _ in range(20))


def byte_pairs(**options: str) -> Any:
    """Byte-level BPE, as GPT-2's: ` 1743` is ` 17`, `43`."""
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), **options)


def single_digits(**options: str) -> Any:
    """The same, but digits stand one by one, as SmolLM2's: ` 1743` is ` `, `1`, `7`, `4`, `3`."""
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _byte_level(pre_tokenizers.Sequence([digits, byte_level]), **options)


def three_digits(**options: str) -> Any:
    """Three digits at a time, as Llama 3's: `1743` is `174`, `3`."""
    numbers = pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated")
    split = pre_tokenizers.Sequence([numbers, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _byte_level(split, [f"the year {year}" for year in range(1100, 1800, 10)], **options)


def _byte_level(split: Any, more: Iterable[str] = (), **options: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=6000, special_tokens=["<|bos|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(itertools.chain(corpus(**options), more), trainer)
    return _wrapped(tokenizer)


def whole_words(**options: str) -> Any:
    """One token a word, a number's pairs of digits or a mark; spaces are dropped, anything else is unknown."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(_DIGITS), "isolated")])
    return _of_words(split, None, **options)


def spaced_words(**options: str) -> Any:
    """One token a word with the space before it, which the text's first word gets too, as sentencepiece has it."""
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    split = pre_tokenizers.Sequence([metaspace, pre_tokenizers.Split(Regex(_DIGITS), "isolated")])
    return _of_words(split, decoders.Metaspace(), **options)


def _of_words(split: Any, decoder: Any, **options: str) -> Any:
    pieces = {piece for text in corpus(**options) for piece, _ in split.pre_tokenize_str(text)}
    vocabulary = {piece: index for index, piece in enumerate(["<|bos|>", "<|unk|>", *sorted(pieces)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = split
    if decoder is not None:
        tokenizer.decoder = decoder
    return _wrapped(tokenizer, unk_token="<|unk|>")


def _wrapped(tokenizer: Tokenizer, **special: str) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|bos|>", **special)


TOKENIZERS = {
    "byte pairs": byte_pairs,
    "single digits": single_digits,
    "three digits": three_digits,
    "whole words": whole_words,
    "spaced words": spaced_words,
    "bytes": byte_tokenizer,
}


def model_of(kind: str, **options: str) -> Model:
    """A random model with that tokenizer."""
    tokenizer = TOKENIZERS[kind](**options)
    model = Model.from_bridge(native_bridge(0, d_vocab=len(tokenizer), n_ctx=128))
    return dataclasses.replace(model, name=kind, tokenizer=tokenizer, prepend_bos=True)


@functools.cache
def model(kind: str) -> Model:
    """The bundled model, or a random one with that tokenizer; made once."""
    return bundled.mini() if kind == "mini" else model_of(kind)


def made(make: Make, kind: str, count: int = 24, seed: int = 0, **options: str) -> PromptPairs:
    """The task's pairs on one of the models."""
    return make(model(kind), count, seed, **options)


def texts(kind: str, pairs: PromptPairs) -> list[tuple[list[str], list[str], str, str]]:
    """Of each pair the words of the clean and of the corrupt prompt, the answer's and the distractor's."""
    found = []
    for row in range(len(pairs)):
        sides = [side.ids[row][side.mask[row]][1:] for side in (pairs.clean, pairs.corrupt)]
        words = [re.findall(r"[a-z]+|\d\d", model(kind).to_string(ids), re.IGNORECASE) for ids in sides]
        found.append((*words, *(word(kind, column[row]) for column in (pairs.answers, pairs.distractors))))
    return found


def word(kind: str, token: torch.Tensor) -> str:
    """A token's text without spaces."""
    return model(kind).to_string([int(token)]).strip()


def at(kind: str, pairs: PromptPairs, position: str, row: int) -> str:
    """The clean prompt's token at a named position."""
    return word(kind, pairs.clean.ids[row, pairs.positions[position][row]])
