"""EAP-IG's CSV files (Hanna et al. 2024): one layout a task, told apart by their columns."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, PromptError, shown
from circuits.models import Model
from circuits.tasks.answers import following
from circuits.tasks.library.greater_than import year_tokens
from circuits.tasks.prompts import PromptPairs, Several
from circuits.tasks.sources.contents import Contents, Row, read_contents
from circuits.tasks.sources.pairs import AnswerWord, PairRow, Target, pairs_of_rows
from circuits.tasks.sources.rows import Kept, fields_of, is_target, number_of, parse_rows, roles_of, sound, text, whole
from circuits.tasks.sources.verbs import verb_forms, verb_tokens

_PRONOUNS = ("she", "he")
Targets = tuple[tuple[Target, ...], tuple[Target, ...]]
"""Right answers and wrong ones."""


@dataclasses.dataclass(frozen=True)
class PairTable:
    """One layout: its task, the columns by which it is known besides `clean` and `corrupted`, and what makes targets of a
    row's fields, once it knows the file and the model."""

    task: str
    columns: tuple[str, ...]
    targets: Callable[[Contents, Model], Callable[[Mapping[str, str]], Targets]]


def read_eap_ig_csv(path: str | Path, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
    """Pairs from a CSV file of EAP-IG; columns other than those named below are left unread.

    Columns `clean`, `corrupted` and: `correct_idx`, `incorrect_idx` (token ids); or `label`, a JSON list `[answer, distractor]`
    of texts or token ids, or the answer's text alone (its distractor is then the label of the row whose clean prompt is this
    row's corrupt one); for greater-than `correct_idx` or `label` alone, the two digits that the year must exceed, where all
    years above are right and all others wrong; for gender bias `clean_answer_idx`, `corrupted_answer_idx`; for agreement
    `plural` (0 or 1), where verbs of one number are right and those of the other wrong; for hypernymy `answers_idx`,
    `corrupted_answers_idx`, lists; for facts `country_idx`, `corrupted_country_idx`.

    A column `roles` names roles of tokens: a JSON object, name → words of the clean prompt, or [words, n] for the n-th time
    that they stand there, such as {"S1": ["John", 1], "S2": ["John", 2]}.

    `several` says how several answers count ("mean" or "max"), `skip_bad` leaves rows out that do not fit. Where a file has
    words beside token ids (hypernymy, facts, gender bias, the names that IOI's `corrupted_hard` swaps), the words are read, as
    any tokenizer understands them. Raises FileFormatError, with the line, for anything else, and for pairs that PromptPairs
    refuses.
    """
    return pairs_of_table(read_contents(path), model, several=several, skip_bad=skip_bad)


def pairs_of_table(contents: Contents, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
    """Pairs of what a file holds. Raises FileFormatError."""
    path = contents.path
    if contents.kind != "CSV":
        raise FileFormatError(f"{path}: is {contents.kind}; expected CSV")
    table = table_of(contents)
    try:
        targets = table.targets(contents, model)
    except PromptError as error:
        raise FileFormatError(f"{path}: {error}") from None

    def parse(row: Row) -> PairRow:
        """A row as a pair."""
        fields = fields_of(row)
        clean, corrupt = text(fields, "clean"), text(fields, "corrupted")
        return PairRow(clean, corrupt, *targets(fields), roles_of(fields))

    if not contents.rows:
        raise FileFormatError(f"{path}: no rows below the header")
    rows: Kept[PairRow] = parse_rows(path, contents.rows, parse, skip_bad=skip_bad)
    return pairs_of_rows(path, model, rows, several=several, skip_bad=skip_bad)


def rows_of_table(contents: Contents, *, skip_bad: bool = False) -> Kept[tuple[str, str]]:
    """The prompts that a file holds, before a model reads what their answers are. Raises FileFormatError."""
    table_of(contents)
    if not contents.rows:
        raise FileFormatError(f"{contents.path}: no rows below the header")

    def parse(row: Row) -> tuple[str, str]:
        """A row's prompts."""
        fields = fields_of(row)
        return text(fields, "clean"), text(fields, "corrupted")

    return parse_rows(contents.path, contents.rows, parse, skip_bad=skip_bad)


def table_of(contents: Contents) -> PairTable:
    """The layout of a CSV file, by its header. Raises FileFormatError for other columns."""
    path, header = contents.path, contents.header
    missing = [name for name in ("clean", "corrupted") if name not in header]
    found = next((table for table in TABLES if set(table.columns) <= set(header)), None)
    if missing or found is None:
        known = "; ".join(f"{', '.join(table.columns)} ({table.task})" for table in TABLES)
        lacks = ", ".join(missing) if missing else "the columns of every layout that is read"
        raise FileFormatError(f"{path}: the header lacks {lacks}; expected clean, corrupted and one of: {known}")
    if found.columns == ("label",) and _is_year(contents):
        return _YEARS_BY_LABEL
    return found


def _ids(right: str, wrong: str) -> Callable[[Contents, Model], Callable[[Mapping[str, str]], Targets]]:
    """Targets that are token ids in two columns."""
    return lambda contents, model: lambda fields: ((whole(fields, right),), (whole(fields, wrong),))


def _names(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
    """Targets of IOI: the names that `corrupted_hard` swaps, where that can be told, else the two token ids."""

    def of_row(fields: Mapping[str, str]) -> Targets:
        """Targets of a row."""
        ids = whole(fields, "correct_idx"), whole(fields, "incorrect_idx")
        clean, hard = (re.findall(r"\w+", fields[name]) for name in ("clean", "corrupted_hard"))
        apart = {(one, other) for one, other in zip(clean, hard, strict=False) if one != other}
        subject, other = next(iter(apart), ("", ""))
        if len(clean) != len(hard) or len(apart) != 1 or other not in clean:  # a third name is no indirect object
            return (ids[0],), (ids[1],)
        indirect_object = other
        return (AnswerWord(indirect_object),), (AnswerWord(subject),)

    return of_row


def _labels(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
    known: dict[str, str] = {}
    for row in contents.rows:
        if isinstance(row.value, dict):
            known.setdefault(row.value["clean"], row.value["label"])
    return lambda fields: _label(fields, known)


def _label(fields: Mapping[str, str], labels: Mapping[str, str]) -> Targets:
    label = fields["label"]
    if not label.startswith("["):
        other = labels.get(fields["corrupted"])
        if other is None or other.startswith("["):
            raise PromptError(
                f"the label {shown(label)} gives no distractor, and no row's clean prompt is this row's corrupt one; write the "
                'label as a list, ["answer", "distractor"]'
            )
        return (label,), (other,)
    listed = _json(label)
    if not isinstance(listed, list) or len(listed) != 2 or not all(is_target(item) for item in listed):
        raise PromptError(f"the label {shown(label)} must be a JSON list of an answer and a distractor")
    return (listed[0],), (listed[1],)


def _is_year(contents: Contents) -> bool:
    """Whether labels are the two digits of a year: in most rows a number that the prompt names, before it ends in a century."""
    rows = [row.value for row in contents.rows if isinstance(row.value, dict)]
    return 2 * sum(_year_in(row.get("clean", ""), number_of(row.get("label"))) for row in rows) > len(rows)


def _year_in(prompt: str, year: int | None) -> bool:
    return year is not None and year < 100 and re.search(rf"\d\d{year:02d}\b.*\D\d\d$", prompt, re.DOTALL) is not None


def _years(column: str) -> Callable[[Contents, Model], Callable[[Mapping[str, str]], Targets]]:
    """Targets that are the years above the one in a column, and all others of the century."""

    def targets(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
        """Targets for a model."""
        by_two = functools.cache(lambda: _two_digits(model))

        def of_row(fields: Mapping[str, str]) -> Targets:
            """Targets of a row."""
            year = number_of(fields.get(column))
            if not _year_in(fields["clean"], year) or year is None:
                said = f"{column} is {shown(fields.get(column))}"
                raise PromptError(f"{said}; expected the last two digits of a year in the prompt, which ends in a century")
            tokens = by_two()
            if tokens is None:
                tokens, year = tuple(_digit(model, fields["clean"], digit) for digit in range(10)), year // 10
                right, wrong = tokens[year + 1 :], tokens[:year]  # the same first digit leaves it open
            else:
                right, wrong = tokens[year + 1 :], tokens[: year + 1]
            if not right or not wrong:
                raise PromptError(f"{column} is {shown(fields.get(column))}: no year of the century is above it, or none below")
            return right, wrong

        return of_row

    return targets


def _two_digits(model: Model) -> tuple[int, ...] | None:
    """The tokens of 00 to 99 behind a century; None for a tokenizer that does not take two digits together."""
    try:
        return tuple(year_tokens(model).tolist())
    except PromptError:
        return None


def _digit(model: Model, prompt: str, digit: int) -> int:
    """The token of a digit behind a prompt that ends in digits. Raises PromptError where it is not one token of its own."""
    try:
        ids = following(model, prompt, str(digit))
    except PromptError:
        ids = []
    if len(ids) != 1:
        raise PromptError(f"{model.name} takes years neither by two digits nor by one behind {shown(prompt)}")
    return ids[0]


def _pronouns(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
    def of_row(fields: Mapping[str, str]) -> Targets:
        """Targets of a row."""
        ids = whole(fields, "clean_answer_idx"), whole(fields, "corrupted_answer_idx")
        label = number_of(fields.get("label"))
        if label is None:
            return (ids[0],), (ids[1],)
        if label > 1:
            raise PromptError(f"label is {shown(fields['label'])}; expected 1 for he, 0 for she")
        return (AnswerWord(_PRONOUNS[label]),), (AnswerWord(_PRONOUNS[1 - label]),)

    return of_row


def _agreement(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
    tokens = verb_tokens(model, verb_forms(contents.path))

    def of_row(fields: Mapping[str, str]) -> Targets:
        """Targets of a row."""
        plural = number_of(fields.get("plural"))
        if plural not in (0, 1):
            raise PromptError(f"plural is {shown(fields.get('plural'))}; expected 0 or 1")
        return tokens[plural], tokens[1 - plural]

    return of_row


def _hypernyms(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
    def of_row(fields: Mapping[str, str]) -> Targets:
        """Targets of a row."""
        return _several(model, fields, "answers"), _several(model, fields, "corrupted_answers")

    return of_row


def _several(model: Model, fields: Mapping[str, str], name: str) -> tuple[Target, ...]:
    """The words of a column like "['gem', 'gems']" where it is there, else the token ids of the one like "[16840, 23685]"."""
    ids, words = _json(fields[f"{name}_idx"]), fields.get(name)
    if not isinstance(ids, list) or not ids or not all(isinstance(item, int) and number_of(item) is not None for item in ids):
        raise PromptError(f"{name}_idx is {shown(fields[f'{name}_idx'])}; expected a list of token ids that is not empty")
    if words is None:
        return tuple(ids)
    found = [one[0] or one[1] for one in re.findall(r"'([^']*)'|\"([^\"]*)\"", words)]
    if len(found) != len(ids) or not all(word.strip() and sound(word) for word in found):
        raise PromptError(f"{name} is {shown(words)}; expected a list of {len(ids)} words, as many as {name}_idx has ids")
    return tuple(AnswerWord(word) for word in found)


def _countries(contents: Contents, model: Model) -> Callable[[Mapping[str, str]], Targets]:
    def of_row(fields: Mapping[str, str]) -> Targets:
        """Targets of a row."""
        sides = []
        for name in ("country", "corrupted_country"):
            token = whole(fields, f"{name}_idx")
            sides.append((AnswerWord(text(fields, name)) if name in fields else token,))
        return sides[0], sides[1]

    return of_row


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


_YEARS_BY_LABEL = PairTable("greater-than", ("label",), _years("label"))
TABLES: Sequence[PairTable] = (
    PairTable("IOI", ("correct_idx", "incorrect_idx", "corrupted_hard"), _names),
    PairTable("two token ids", ("correct_idx", "incorrect_idx"), _ids("correct_idx", "incorrect_idx")),
    PairTable("greater-than", ("correct_idx",), _years("correct_idx")),
    PairTable("gender bias", ("clean_answer_idx", "corrupted_answer_idx"), _pronouns),
    PairTable("hypernymy", ("answers_idx", "corrupted_answers_idx"), _hypernyms),
    PairTable("fact retrieval", ("country_idx", "corrupted_country_idx"), _countries),
    PairTable("subject-verb agreement", ("plural",), _agreement),
    PairTable("labels", ("label",), _labels),
)
"""The first whose columns a file has is its layout."""
