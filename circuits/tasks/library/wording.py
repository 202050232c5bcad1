"""Prompts put together from templates and words that are one token each, whatever the tokenizer."""

import dataclasses
import functools
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from circuits.errors import ModelError, PromptError, shown
from circuits.models import Model
from circuits.tasks.prompts import PromptPairs


@dataclasses.dataclass(frozen=True)
class Case:
    """One pair before it is tokenized: a template, what its fields hold in the clean and in the corrupt prompt, answer and
    distractor as token ids, and the positions to name: `marks` maps each to the field whose last token it is."""

    template: str
    clean: Mapping[str, str]
    corrupt: Mapping[str, str]
    answer: int
    distractor: int
    marks: Mapping[str, str]


@functools.cache
def word_list(kind: str) -> tuple[Any, ...]:
    """One of the word lists that ship: words, tuples of forms of a word, or templates."""
    text = (importlib.resources.files("circuits.tasks") / "data" / "words.json").read_text(encoding="utf-8")
    return tuple(tuple(item) if isinstance(item, list) else item for item in json.loads(text)[kind])


def encode(model: Model, text: str) -> list[int]:
    """Token ids of a text without BOS. Raises ModelError for a model without a tokenizer."""
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: its tokens are no words to write prompts with")
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=False)]


def single_tokens(model: Model, words: Sequence[str], *, least: int, what: str) -> dict[str, int]:
    """Those words that are exactly one token after a space, each with its token, in order.

    Words are tried behind another one, as some tokenizers treat a text's first word differently. Words that the
    tokenizer does not know, or takes for an earlier one, are left out. Raises PromptError, which calls them `what`, where
    fewer than `least` are left.
    """
    opening, found = encode(model, "the"), {}
    for word in words:
        ids = encode(model, f"the {word}")
        alone = ids[: len(opening)] == opening and len(ids) == len(opening) + 1
        if alone and ids[-1] != model.tokenizer.unk_token_id and ids[-1] not in found.values():
            found[word] = ids[-1]
    if len(found) < least:
        raise PromptError(
            f"{model.name}: {len(found)} of {len(words)} {what} are one token of its vocabulary, this task needs {least}"
        )
    return found


def sayable(model: Model, templates: Sequence[str]) -> list[str]:
    """Those templates whose own words the tokenizer knows. Raises PromptError where there is none."""
    unknown = {template: _unknown(model, template.format_map(_Blank())) for template in templates}
    found = [template for template, bad in unknown.items() if not bad]
    if not found:
        raise PromptError(f"{model.name}: its tokenizer does not know all words of {shown(templates[0])}")
    return found


class _Blank(dict):
    def __missing__(self, key: str) -> str:
        return ""


def _unknown(model: Model, text: str) -> bool:
    ids = encode(model, text)
    return model.tokenizer.unk_token_id is not None and model.tokenizer.unk_token_id in ids


def pairs_of(model: Model, cases: Sequence[Case]) -> PromptPairs:
    """The cases as pairs, with their marks and `end` (the last token) as positions. Raises PromptError where clean and
    corrupt differ in length or a marked word does not end where a token does."""
    said = [(_said(case.template, case.clean), _said(case.template, case.corrupt)) for case in cases]
    pairs = PromptPairs.from_text(
        model,
        clean=[clean for (clean, _), _ in said],
        corrupt=[corrupt for _, (corrupt, _) in said],
        answers=[case.answer for case in cases],
        distractors=[case.distractor for case in cases],
    )
    last = pairs.answer_columns.tolist()
    rows = [
        {name: _column(model, clean, ends[field], column) for name, field in case.marks.items()}
        for case, ((clean, ends), _), column in zip(cases, said, last, strict=True)
    ]
    positions = {name: torch.tensor([row[name] for row in rows], device=model.device) for name in cases[0].marks}
    return dataclasses.replace(pairs, positions=positions | {"end": pairs.answer_columns})


def _said(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """The text, and where each field first ends in it."""
    text, ends = "", {}
    for literal, field, _, _ in string.Formatter().parse(template):
        text += literal
        if field is not None:
            text += words[field]
            ends.setdefault(field, len(text))
    return text, ends


def _column(model: Model, text: str, end: int, last: int) -> int:
    """The column of the token that ends at a character of a text whose last token is in column `last`."""
    ids, head = encode(model, text), encode(model, text[:end])
    if ids[: len(head)] != head:
        raise PromptError(f"{model.name}: no token of {shown(text)} ends after {shown(text[:end])}")
    return last - len(ids) + len(head)
