"""The files of sparse feature circuits (Marks et al. 2024): one object a line with `clean_prefix`, `patch_prefix`,
`clean_answer`, `patch_answer`."""

from pathlib import Path

from circuits.errors import FileFormatError
from circuits.models import Model
from circuits.tasks.prompts import PromptPairs, Several
from circuits.tasks.sources.contents import Contents, Row, read_contents
from circuits.tasks.sources.pairs import PairRow, pairs_of_rows
from circuits.tasks.sources.rows import Kept, fields_of, parse_rows, text

KEYS = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer")


def read_feature_circuits_jsonl(path: str | Path, model: Model, *, skip_bad: bool = False) -> PromptPairs:
    """Pairs from a file of sparse feature circuits; other fields, such as `case`, are left unread, and so is the suffix (theirs
    end in .json). `skip_bad` leaves out rows that do not fit: most of these files have some, whose prompts differ in length
    or whose answers are several tokens. Raises FileFormatError, with the line, for anything else."""
    return pairs_of_prefixes(read_contents(path), model, skip_bad=skip_bad)


def pairs_of_prefixes(contents: Contents, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
    """Pairs of what a file holds. Raises FileFormatError."""
    rows = rows_of_prefixes(contents, skip_bad=skip_bad)
    return pairs_of_rows(contents.path, model, rows, several=several, skip_bad=skip_bad)


def rows_of_prefixes(contents: Contents, *, skip_bad: bool = False) -> Kept[PairRow]:
    """The rows that a file holds, before a model reads them. Raises FileFormatError."""
    if contents.kind == "CSV" or not contents.rows:
        raise FileFormatError(f"{contents.path}: expected one JSON object a line with {', '.join(KEYS)}")
    return parse_rows(contents.path, contents.rows, _pair, skip_bad=skip_bad)


def _pair(row: Row) -> PairRow:
    clean, patch, right, wrong = (text(fields_of(row), name) for name in KEYS)
    return PairRow(clean, patch, (right,), (wrong,))
