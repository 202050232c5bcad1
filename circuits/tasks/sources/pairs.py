"""Rows of a file as pairs of prompts: answers become tokens, rows that do not align are refused or left out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from circuits.errors import FileFormatError, GraphError, PromptError, shown
from circuits.models import Model
from circuits.tasks.alignment import where_of
from circuits.tasks.answers import first_of, one_token, text_of
from circuits.tasks.prompts import PromptPairs, Several
from circuits.tasks.roles import with_roles
from circuits.tasks.sources.rows import Kept, sift
from circuits.tasks.subjects import columns_of_subject


@dataclasses.dataclass(frozen=True)
class AnswerWord:
    """An answer that is a word, asked for by the first token with which the prompt would go on to it."""

    text: str


Target = str | int | AnswerWord
"""An answer: text of one token, spelled as it is; a token id; or a word."""


@dataclasses.dataclass(frozen=True)
class PairRow:
    """A pair as a file has it: prompts as text or token ids, one right answer or several, one wrong one or several."""

    clean: str | list[int]
    corrupt: str | list[int]
    answers: tuple[Target, ...]
    distractors: tuple[Target, ...]
    roles: tuple[tuple[str, str, int | None], ...] = ()
    """Names of roles, and where they are: words of the clean prompt, the last time that they stand there or that time."""


@dataclasses.dataclass(frozen=True)
class _Aligned:
    """A pair whose answers are tokens."""

    row: PairRow
    answers: tuple[int, ...]
    distractors: tuple[int, ...]


def pairs_of_rows(
    path: Path,
    model: Model,
    rows: Kept[PairRow],
    *,
    several: Several = "mean",
    skip_bad: bool = False,
    words: Mapping[str, int] | None = None,
) -> PromptPairs:
    """Pairs of rows; `left_out` says how many rows do not fit, by reason. `words` are columns by name, counted without BOS.

    Raises FileFormatError, with the line, for the first row that PromptPairs refuses; with `skip_bad`, only where none fits.
    """
    first = type(rows.values[0].clean)
    found = sift(path, rows, lambda row: _aligned(model, row, first), skip_bad=skip_bad)
    found = sift(path, found, _opened_alike(model, found.values), skip_bad=skip_bad)
    try:
        pairs = _pairs(model, found.values, several)
    except PromptError:
        found = sift(path, found, lambda one: _checked(model, one, several), skip_bad=skip_bad)
        try:
            pairs = _pairs(model, found.values, several)
        except PromptError as error:
            raise FileFormatError(f"{path}: {error}") from None
    pairs = dataclasses.replace(pairs, answer_words=_first_words(found.values), left_out=found.left_out)
    if any(one.row.roles for one in found.values):
        pairs = _with_roles(path, model, pairs, found, skip_bad=skip_bad)
    if not words:
        return pairs
    opening = _opening(model, pairs)
    lasts = dict(zip(map(id, found.values), pairs.answer_columns.tolist(), strict=True))
    fitting = sift(path, found, lambda one: _reaches(one, lasts[id(one)] - opening, words), skip_bad=skip_bad)
    if len(fitting.rows) < len(found.rows):
        kept = {row.index for row in fitting.rows}
        pairs = pairs[[place for place, row in enumerate(found.rows) if row.index in kept]]
    columns = {name: torch.full_like(pairs.answer_columns, column + opening) for name, column in words.items()}
    return dataclasses.replace(pairs, positions=columns, left_out=fitting.left_out)


def _with_roles(path: Path, model: Model, pairs: PromptPairs, found: Kept[_Aligned], *, skip_bad: bool) -> PromptPairs:
    """The pairs with the roles that their rows name. Raises FileFormatError, with the line, for a role that a row lacks or
    whose words do not stand in its prompt."""
    names = tuple(dict.fromkeys(name for one in found.values for name, _, _ in one.row.roles))
    places = {id(one): place for place, one in enumerate(found.values)}

    def spans(one: _Aligned) -> list[tuple[int, int]]:
        """The first and last column of each role."""
        given, clean = {name: (words, which) for name, words, which in one.row.roles}, one.row.clean
        missing = next((name for name in names if name not in given), None)
        if missing is not None:
            raise PromptError(f"has no role {shown(missing)}, which other rows have")
        if not isinstance(clean, str):
            raise PromptError("roles are words of a prompt; this prompt is token ids")
        ids = pairs.clean.ids[places[id(one)]][pairs.clean.mask[places[id(one)]]].tolist()
        return [columns_of_subject(model.tokenizer, "", clean, given[name][0], ids, which=given[name][1]) for name in names]

    kept = sift(path, found, spans, skip_bad=skip_bad)
    if len(kept.rows) < len(found.rows):
        there = {row.index for row in kept.rows}
        pairs = pairs[[place for place, row in enumerate(found.rows) if row.index in there]]
    first, last = torch.tensor(kept.values, device=pairs.clean.ids.device).movedim(2, 0)
    offset = pairs.clean.mask.long().argmax(dim=1)[:, None]  # pads may stand in front
    columns = torch.arange(pairs.clean.ids.shape[1], device=first.device)[None, :] - offset
    masks = {name: (columns >= first[:, [n]]) & (columns <= last[:, [n]]) for n, name in enumerate(names)}
    try:
        return dataclasses.replace(with_roles(pairs, masks, causal=model.weights.causal), left_out=kept.left_out)
    except (PromptError, GraphError) as error:
        raise FileFormatError(f"{path}: {error}") from None


def _aligned(model: Model, row: PairRow, kind: type) -> _Aligned:
    """A row with tokens for answers. Raises PromptError for answers that are no tokens."""
    if {type(row.clean), type(row.corrupt)} != {kind}:
        raise PromptError("some prompts are texts and some are token ids; use one of the two")
    sides, size = [], model.weights.W_U.shape[1]
    for what, targets in (("answer", row.answers), ("distractor", row.distractors)):
        ids = [_token(model, row.clean, target, what) for target in targets]
        outside = next((token for token in ids if not 0 <= token < size), None)
        if outside is not None:
            raise PromptError(f"the {what} has token id {shown(outside)}, outside the vocabulary of {size} of {model.name}")
        sides.append(tuple(dict.fromkeys(ids)))
    both = next((token for token in sides[0] if token in sides[1]), None)
    if both is not None:
        words = "" if model.tokenizer is None else f" ({shown(model.to_string([both]))})"
        raise PromptError(f"answer and distractor are the same token, {both}{words}; they must differ")
    return _Aligned(row, *sides)


def _opened_alike(model: Model, rows: Sequence[_Aligned]) -> Callable[[_Aligned], _Aligned]:
    """A step that lets pass rows of token ids that open with BOS as most of them do, and raises PromptError for the others."""
    opened = [one.row.clean[0] == model.bos_id for one in rows if isinstance(one.row.clean, list) and one.row.clean]
    most = 2 * sum(opened) >= len(opened)

    def step(one: _Aligned) -> _Aligned:
        """Let a row pass or refuse it."""
        prompt = one.row.clean
        if model.bos_id is not None and isinstance(prompt, list) and prompt and (prompt[0] == model.bos_id) != most:
            raise PromptError(f"starts {'without' if most else 'with'} BOS (token {model.bos_id}), most rows do not")
        return one

    return step


def _token(model: Model, prompt: str | list[int], target: Target, what: str) -> int:
    """The token of an answer or distractor as it follows its prompt."""
    if isinstance(target, int):
        return target
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer to read the {what} with: give token ids")
    words, said = prompt if isinstance(prompt, str) else text_of(model, prompt), "this prompt"
    try:
        if isinstance(target, AnswerWord):
            return first_of(model, words, target.text, where=said)
        return one_token(model, said, words, target, what=what, joined=None)
    except PromptError as error:
        raise PromptError(str(error).removeprefix(f"{said}: ")) from None


def _checked(model: Model, one: _Aligned, several: Several) -> _Aligned:
    """The same, if it makes a pair by itself; raises PromptError, without the prompt's number there, otherwise."""
    try:
        _pairs(model, [one], several)
    except PromptError as error:
        label = one.row.clean if isinstance(one.row.clean, str) else None
        said = str(error)
        for opening in (where_of(0, label), "prompt 0"):
            said = said.removeprefix(f"{opening}: ")
        raise PromptError(said if label is None else f"{shown(label)}: {said}") from None
    return one


def _pairs(model: Model, rows: Sequence[_Aligned], several: Several) -> PromptPairs:
    answers, distractors = [one.answers[0] for one in rows], [one.distractors[0] for one in rows]
    clean, corrupt = [one.row.clean for one in rows], [one.row.corrupt for one in rows]
    make = PromptPairs.from_tokens if isinstance(clean[0], list) else PromptPairs.from_text
    pairs = make(model, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)  # type: ignore[arg-type]
    if all(len(one.answers) == len(one.distractors) == 1 for one in rows):
        return pairs
    return pairs.with_answers([one.answers for one in rows], [one.distractors for one in rows], several=several)


def _first_words(rows: Sequence[_Aligned]) -> tuple[str, ...]:
    """The words that the answers begin, where all of them are words."""
    firsts = [one.row.answers[0] for one in rows]
    words = tuple(first.text.strip() for first in firsts if isinstance(first, AnswerWord))
    return words if len(words) == len(firsts) else ()


def _opening(model: Model, pairs: PromptPairs) -> int:
    """How many tokens (BOS) stand before a prompt's own."""
    return int(model.bos_id is not None and int(pairs.clean.ids[0, 0]) == model.bos_id)


def _reaches(one: _Aligned, last: int, words: Mapping[str, int]) -> _Aligned:
    short = next((name for name, column in words.items() if column > last), None)
    if short is not None:
        raise PromptError(f"too short for word_idxs {shown(short)}, which is {words[short]}")
    return one
