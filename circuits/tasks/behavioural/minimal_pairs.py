"""Minimal pairs: a sentence that is right beside one that is not, from files as BLiMP has them, and as prompts."""

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

from circuits.errors import FileFormatError, ModelError, PromptError, shown
from circuits.files.reading import read_json_lines
from circuits.models import Model
from circuits.tasks.prompts import PromptPairs

LARGEST_FILE = 64 * 2**20
_LONGEST = 10_000
"""Characters of a sentence."""


@dataclasses.dataclass(frozen=True)
class MinimalPair:
    """A sentence that speakers accept, one that they do not, and the paradigm and phenomenon that the two are about."""

    good: str
    bad: str
    paradigm: str = ""
    phenomenon: str = ""


def read_blimp_jsonl(path: str | Path) -> tuple[MinimalPair, ...]:
    """Minimal pairs from a JSONL file as BLiMP has them (Warstadt et al. 2020): one object a line with `sentence_good` and
    `sentence_bad`; `UID` (the paradigm; else the file's name) and `linguistics_term` where they are there; other fields are
    left unread. Equal sentences, of which BLiMP has a few, stay in (a tie). Raises FileFormatError, with the row counted
    from 0, for anything else."""
    path = Path(path)
    rows = read_json_lines(path, max_bytes=LARGEST_FILE)
    if not rows:
        raise FileFormatError(f"{path}: no rows; expected one JSON object a line")
    return tuple(_pair(path, index, row) for index, row in enumerate(rows))


def _pair(path: Path, index: int, row: object) -> MinimalPair:
    if not isinstance(row, dict):
        raise FileFormatError(f"{path}: row {index}: {shown(row)}; expected an object")
    good, bad = (_text(path, index, row, name) for name in ("sentence_good", "sentence_bad"))
    about = [_text(path, index, row, name) if name in row else "" for name in ("UID", "linguistics_term")]
    return MinimalPair(good, bad, about[0] or path.stem, about[1])


def _text(path: Path, index: int, row: dict, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip() or any("\ud800" <= character <= "\udfff" for character in value):
        raise FileFormatError(f'{path}: row {index}: "{name}" is {shown(value)}; expected text that is not empty')
    if len(value) > _LONGEST:
        raise FileFormatError(f'{path}: row {index}: "{name}" has {len(value):,} characters; expected at most {_LONGEST:,}')
    return value


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What the two sentences share before they part, and the token that each goes on with."""

    prefix: tuple[int, ...]
    good: int
    bad: int


def minimal_pair_prompts(model: Model, pairs: Sequence[MinimalPair], *, count: int | None = None, seed: int = 0) -> PromptPairs:
    """Minimal pairs as prompts that any search takes: what both sentences share from the start is the prompt, the tokens at
    which they part are answer and distractor.

    The corrupt prompt is the start of another pair of the same paradigm, with as many tokens, that calls for the very
    opposite (its answer is this one's distractor, its distractor this one's answer); of several, one that differs in the
    fewest tokens (ties: drawn by `seed`). Pairs without such a partner are left out: `len` of the result says how many are
    there, and `count` of them are drawn. Raises PromptError where none is left, such as for paradigms in which the same word
    is always the wrong one.
    """
    if model.tokenizer is None:
        raise ModelError(f"{model.name} has no tokenizer: minimal pairs are texts")
    groups: dict[tuple[str, int, int, int], list[tuple[int, ...]]] = {}
    choices = [(pair.paradigm, _choice(model, pair)) for pair in pairs]
    for paradigm, choice in choices:
        if choice is not None:
            groups.setdefault((paradigm, len(choice.prefix), choice.good, choice.bad), []).append(choice.prefix)
    draw, found = random.Random(seed), []
    for paradigm, choice in choices:
        if choice is not None:
            others = groups.get((paradigm, len(choice.prefix), choice.bad, choice.good), [])
            partner = _nearest(choice.prefix, others, draw)
            if partner is not None:
                found.append((choice, partner))
    if not found:
        raise PromptError(
            f"none of {len(pairs)} minimal pairs has a partner in its paradigm that calls for the opposite after as many "
            "tokens: they can be scored, but not patched"
        )
    chosen = found if count is None or count >= len(found) else draw.sample(found, count)
    return PromptPairs.from_tokens(
        model,
        clean=[list(choice.prefix) for choice, _ in chosen],
        corrupt=[list(partner) for _, partner in chosen],
        answers=[choice.good for choice, _ in chosen],
        distractors=[choice.bad for choice, _ in chosen],
    )


def _choice(model: Model, pair: MinimalPair) -> _Choice | None:
    """Where the two sentences part; None where they part at once, or one of them only goes on longer."""
    opening = len(model.opening())
    rows = [model.to_tokens(text).ids[0].tolist() for text in (pair.good, pair.bad)]
    at = next((place for place, (one, other) in enumerate(zip(*rows, strict=False)) if one != other), None)
    fits = at is not None and at > opening and (model.max_positions is None or at <= model.max_positions)
    return _Choice(tuple(rows[0][:at]), rows[0][at], rows[1][at]) if fits and at is not None else None


def _nearest(prefix: tuple[int, ...], others: Sequence[tuple[int, ...]], draw: random.Random) -> tuple[int, ...] | None:
    """Of other prompts that which differs in the fewest tokens, though in one at least."""
    apart = [(sum(a != b for a, b in zip(prefix, other, strict=True)), other) for other in others]
    least = min((distance for distance, _ in apart if distance), default=None)
    return None if least is None else draw.choice([other for distance, other in apart if distance == least])
