"""AutoCircuit's JSON files (Miller et al. 2024): `{"word_idxs"?, "prompts": [{clean, corrupt, answers, wrong_answers}]}`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, PromptError, shown
from circuits.models import Model
from circuits.tasks.prompts import PromptPairs, Several
from circuits.tasks.sources.contents import Contents, Row, read_contents
from circuits.tasks.sources.pairs import PairRow, Target, pairs_of_rows
from circuits.tasks.sources.rows import Kept, fields_of, is_target, parse_rows, roles_of, text


def read_autocircuit_json(path: str | Path, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
    """Pairs from an AutoCircuit JSON file, with all of their answers and wrong answers.

    Prompts are all texts (BOS as the model has it) or all rows of token ids (taken as they are). `word_idxs`, counted
    without BOS, become named positions; `roles` of a prompt, such as {"S1": ["John", 1], "S2": ["John", 2]}, names spans of
    its clean text (`circuits.tasks.sources.rows.roles_of`). `several` says how several answers count ("mean" or "max"),
    `skip_bad` leaves rows out that do not fit. Raises FileFormatError, with the row, for anything else, and for pairs that
    PromptPairs refuses.
    """
    return pairs_of_prompts(read_contents(path), model, several=several, skip_bad=skip_bad)


def pairs_of_prompts(contents: Contents, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
    """Pairs of what a file holds. Raises FileFormatError."""
    words, rows = rows_of_prompts(contents, skip_bad=skip_bad)
    return pairs_of_rows(contents.path, model, rows, several=several, skip_bad=skip_bad, words=words)


def rows_of_prompts(contents: Contents, *, skip_bad: bool = False) -> tuple[dict[str, int], Kept[PairRow]]:
    """The columns by name and the rows that a file holds, before a model reads them. Raises FileFormatError."""
    path = contents.path
    if contents.document is None or "prompts" not in contents.document:
        raise FileFormatError(f'{path}: expected a JSON object with "prompts", a list that is not empty')
    words = _word_idxs(path, contents.document)
    return words, parse_rows(path, contents.entries("prompts"), _pair, skip_bad=skip_bad)


def _pair(row: Row) -> PairRow:
    fields = fields_of(row)
    prompts = [_prompt(fields, name) for name in ("clean", "corrupt")]
    targets = _targets(fields, "answers"), _targets(fields, "wrong_answers")
    return PairRow(prompts[0], prompts[1], *targets, roles_of(fields))


def _prompt(fields: Mapping[str, Any], name: str) -> str | list[int]:
    value = fields.get(name)
    if not isinstance(value, list):
        return text(fields, name)
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        raise PromptError(f'"{name}" must be text or a list of token ids')
    return value


def _targets(fields: Mapping[str, Any], name: str) -> tuple[Target, ...]:
    value = fields.get(name)
    if not isinstance(value, list) or not value or not all(is_target(item) for item in value):
        raise PromptError(f'"{name}" must be a list of texts or token ids, and not empty')
    return tuple(value)


def _word_idxs(path: Path, document: Mapping[str, Any]) -> dict[str, int]:
    words = document.get("word_idxs", {})
    if not isinstance(words, dict):
        raise FileFormatError(f'{path}: "word_idxs" is {shown(words)}; expected an object of names and columns')
    for name, column in words.items():
        if not isinstance(column, int) or isinstance(column, bool) or not 0 <= column < 2**31:
            raise FileFormatError(f"{path}: word_idxs {shown(name)} is {shown(column)}; expected a column, 0 or more")
    return words
