"""The tasks of MIB (Mueller et al. 2025) as JSON: IOI, multiple choice (MCQA, ARC) and arithmetic, each prompt with
counterfactuals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, PromptError, shown
from circuits.models import Model
from circuits.tasks.answers import spelled
from circuits.tasks.prompts import PromptPairs, Several
from circuits.tasks.sources.contents import Contents, Row, read_contents
from circuits.tasks.sources.pairs import PairRow, pairs_of_rows
from circuits.tasks.sources.rows import Kept, fields_of, inner, listed, parse_rows, sound, text

ENDING = "_counterfactual"
_USUAL = ("s2_io_flip_counterfactual", "symbol_counterfactual", "random_counterfactual")
"""Those with which MIB scores circuits: of IOI, of multiple choice, of arithmetic."""


def read_mib_json(path: str | Path, model: Model, *, counterfactual: str | None = None, skip_bad: bool = False) -> PromptPairs:
    """Pairs from a file of one of MIB's tasks: a JSON list of rows, or one a line, as its Hugging Face data sets are exported.

    A row has a `prompt` and objects whose keys end in `_counterfactual`, each with a `prompt` of its own. The corrupt prompt is
    that of `counterfactual` (default: the one with which MIB scores circuits, else the first). Answers as in MIB: for IOI
    the indirect object against the subject (`metadata`); for multiple choice the label (`choices`, `answerKey`) of either
    prompt; for arithmetic the `label` of either prompt. `skip_bad` leaves rows out that do not fit. Raises FileFormatError,
    with the row, for anything else, and for pairs that PromptPairs refuses.
    """
    return pairs_of_tasks(read_contents(path), model, counterfactual=counterfactual, skip_bad=skip_bad)


def pairs_of_tasks(
    contents: Contents,
    model: Model,
    *,
    counterfactual: str | None = None,
    several: Several = "mean",
    skip_bad: bool = False,
) -> PromptPairs:
    """Pairs of what a file holds. Raises FileFormatError."""
    rows = rows_of_tasks(contents, counterfactual=counterfactual, skip_bad=skip_bad)
    return pairs_of_rows(contents.path, model, rows, several=several, skip_bad=skip_bad)


def rows_of_tasks(contents: Contents, *, counterfactual: str | None = None, skip_bad: bool = False) -> Kept[PairRow]:
    """The rows that a file holds, before a model reads them. Raises FileFormatError."""
    path = contents.path
    if contents.kind == "CSV":
        raise FileFormatError(f"{path}: is CSV; expected JSON rows with a prompt and counterfactuals")
    chosen = counterfactual or _usual(contents)

    def parse(row: Row) -> PairRow:
        """A row as a pair."""
        fields = fields_of(row)
        other = inner(fields, chosen)
        prompts = text(fields, "prompt"), text(other, "prompt")
        right, wrong = _answers(fields, other)
        return PairRow(*prompts, (spelled(prompts[0], right),), (spelled(prompts[0], wrong),))

    return parse_rows(path, contents.rows, parse, skip_bad=skip_bad)


def is_task(keys: frozenset[str]) -> bool:
    """Whether rows with these keys are one of MIB's tasks."""
    return "prompt" in keys and any(key.endswith(ENDING) for key in keys)


def _usual(contents: Contents) -> str:
    """The counterfactual that is taken where none is named. Raises FileFormatError where rows have none."""
    names = list(dict.fromkeys(key for row in contents.rows if isinstance(row.value, dict) for key in row.value))
    there = [name for name in names if name.endswith(ENDING)]
    if not there:
        raise FileFormatError(f"{contents.path}: rows have no key that ends in {ENDING}; they have {listed(names) or 'none'}")
    return next((name for name in _USUAL if name in there), there[0])


def _answers(fields: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str]:
    """The answer that a prompt calls for, and the one that is held against it."""
    if "metadata" in fields and "indirect_object" in inner(fields, "metadata"):
        names = inner(fields, "metadata")
        return text(names, "indirect_object"), text(names, "subject")
    read = _choice if "choices" in fields else _number
    return read(fields), read(other)


def _choice(fields: Mapping[str, Any]) -> str:
    """The label at the place that the answer key names (of choices without labels, the choice itself)."""
    choices, key = fields.get("choices"), fields.get("answerKey")
    labels = choices.get("label") if isinstance(choices, dict) else choices
    if not isinstance(labels, list) or not labels:
        raise PromptError('"choices" has no list of labels')
    if not isinstance(key, int) or isinstance(key, bool) or not 0 <= key < len(labels):
        raise PromptError(f'"answerKey" is {shown(key)}; expected the place of one of {len(labels)} choices')
    label = labels[key]
    if not isinstance(label, str) or not label.strip() or not sound(label):
        raise PromptError(f'the label {shown(label)} in "choices" is no text')
    return label


def _number(fields: Mapping[str, Any]) -> str:
    label = fields.get("label")
    said = str(label) if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 10**18 else label
    if not isinstance(said, str) or not said.strip() or not sound(said):
        raise PromptError(f'"label" is {shown(label)}; expected the answer, as text or a number')
    return said
