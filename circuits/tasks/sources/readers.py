"""Readers for the prompt files of other tools. Whatever is wrong with a file is one FileFormatError that names the file
and the row, counted from 0 without the header; a row is also the index of its prompt."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import torch

from circuits.errors import FileFormatError, PromptError, shown
from circuits.files.reading import read_json
from circuits.models import Model
from circuits.tasks.answers import answer_ids
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.subjects import subject_span

LARGEST_FILE = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Fact:
    """A prompt about `subject` (a part of it) that `attribute` completes, and the relation's name or id ("" if none)."""

    prompt: str
    subject: str
    attribute: str
    relation: str


def read_eap_ig_csv(path: str | Path, model: Model) -> PromptPairs:
    """Pairs from an EAP-IG CSV file: columns `clean`, `corrupted` and either `correct_idx` and `incorrect_idx` (token ids)
    or `label`; other columns are left unread.

    A label is a JSON list `[answer, distractor]` of texts or token ids, or the answer's text alone; its distractor is
    then the label of the row whose clean prompt is this row's corrupt one. Raises FileFormatError for anything else, and
    for pairs that PromptPairs refuses.
    """
    path = Path(path)
    rows = _csv_rows(path)
    if rows and "correct_idx" in rows[0]:
        targets = [(_whole(path, i, row, "correct_idx"), _whole(path, i, row, "incorrect_idx")) for i, row in enumerate(rows)]
    else:
        labels = {row["clean"]: row["label"] for row in reversed(rows)}
        targets = [_label(path, index, row, labels) for index, row in enumerate(rows)]
    return _pairs(path, model, [row["clean"] for row in rows], [row["corrupted"] for row in rows], targets, {})


def read_autocircuit_json(path: str | Path, model: Model) -> PromptPairs:
    """Pairs from an AutoCircuit JSON file; of several answers and wrong answers the first is used.

    Prompts are all texts (BOS as the model has it) or all rows of token ids (taken as they are). `word_idxs`, counted
    without BOS, become named positions. Raises FileFormatError for anything else, and for pairs that PromptPairs refuses.
    """
    path = Path(path)
    data = read_json(path, max_bytes=LARGEST_FILE)
    if not isinstance(data, dict) or not isinstance(data.get("prompts"), list) or not data["prompts"]:
        raise FileFormatError(f'{path}: expected an object with "prompts", a list that is not empty')
    clean, corrupt, targets = [], [], []
    for index, row in enumerate(data["prompts"]):
        fields = _object(path, index, row)
        clean.append(_prompt(path, index, fields, "clean"))
        corrupt.append(_prompt(path, index, fields, "corrupt"))
        targets.append((_first_of(path, index, fields, "answers"), _first_of(path, index, fields, "wrong_answers")))
    odd = next((i for i, pair in enumerate(zip(clean, corrupt, strict=True)) if {*map(type, pair)} != {type(clean[0])}), None)
    if odd is not None:
        raise FileFormatError(f"{path}: row {odd}: some prompts are texts and some are token ids; use one of the two")
    return _pairs(path, model, clean, corrupt, targets, _word_idxs(path, data))


def read_rome_json(path: str | Path) -> tuple[Fact, ...]:
    """Facts from a file like ROME's known_1000.json; the relation is its `relation_id`.

    Raises FileFormatError for anything else, and for a subject that does not stand in its prompt as a word.
    """
    path = Path(path)
    data = read_json(path, max_bytes=LARGEST_FILE)
    if not isinstance(data, list) or not data:
        raise FileFormatError(f"{path}: expected a list of facts that is not empty")
    facts = []
    for index, row in enumerate(data):
        fields = _object(path, index, row)
        prompt, subject, attribute = (_text(path, index, fields, name) for name in ("prompt", "subject", "attribute"))
        try:
            subject_span(prompt, subject, where=f"the prompt {shown(prompt)}")
        except PromptError as error:
            raise FileFormatError(f"{path}: row {index}: {error}") from None
        relation = _text(path, index, fields, "relation_id") if "relation_id" in fields else ""
        facts.append(Fact(prompt, subject, attribute, relation))
    return tuple(facts)


def read_lre_json(path: str | Path, *, zero_shot: bool = False) -> tuple[Fact, ...]:
    """Facts from an LRE relation file: every sample in every one of its `prompt_templates` (with `zero_shot=True`,
    `prompt_templates_zs`), samples outermost. Raises FileFormatError for anything else."""
    path, key = Path(path), "prompt_templates_zs" if zero_shot else "prompt_templates"
    data = read_json(path, max_bytes=LARGEST_FILE)
    if not isinstance(data, dict):
        raise FileFormatError(f"{path}: expected an object")
    templates, samples, name = data.get(key), data.get("samples"), data.get("name")
    if not isinstance(name, str) or not _sound(name):
        raise FileFormatError(f'{path}: "name" is {shown(name)}; expected text')
    if not isinstance(templates, list) or not templates:
        raise FileFormatError(f'{path}: "{key}" must be a list that is not empty')
    for index, template in enumerate(templates):
        if not isinstance(template, str) or template.count("{}") != 1 or not _sound(template):
            raise FileFormatError(f'{path}: "{key}", row {index}: {shown(template)} must be text with one {{}}')
    if not isinstance(samples, list) or not samples:
        raise FileFormatError(f'{path}: "samples" must be a list that is not empty')
    facts = []
    for index, row in enumerate(samples):
        fields = _object(path, index, row)
        subject, answer = _text(path, index, fields, "subject"), _text(path, index, fields, "object")
        facts += [Fact(template.replace("{}", subject), subject, answer, name) for template in templates]
    return tuple(facts)


def read_facts(path: str | Path) -> tuple[Fact, ...]:
    """Facts of a ROME file (a list) or an LRE file (an object). Raises FileFormatError for anything else."""
    rows = read_json(Path(path), max_bytes=LARGEST_FILE)
    return read_lre_json(path) if isinstance(rows, dict) else read_rome_json(path)


def _pairs(path: Path, model: Model, clean: list, corrupt: list, targets: list, words: dict[str, int]) -> PromptPairs:
    answers, distractors = [answer for answer, _ in targets], [distractor for _, distractor in targets]
    try:
        if clean and isinstance(clean[0], list):
            ids = [
                answer_ids(model, part, clean, what=what) for part, what in ((answers, "answer"), (distractors, "distractor"))
            ]
            pairs = PromptPairs.from_tokens(model, clean=clean, corrupt=corrupt, answers=ids[0], distractors=ids[1])
        else:
            pairs = PromptPairs.from_text(model, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)
    except PromptError as error:
        raise FileFormatError(f"{path}: {error}") from None
    bos = None if model.tokenizer is None else model.tokenizer.bos_token_id
    opening = int(bos is not None and int(pairs.clean.ids[0, 0]) == bos)
    for name, column in words.items():
        short = next((index for index, last in enumerate(pairs.answer_columns.tolist()) if column + opening > last), None)
        if short is not None:
            raise FileFormatError(f"{path}: row {short}: too short for word_idxs {shown(name)}, which is {column}")
    columns = {name: torch.full_like(pairs.answer_columns, column + opening) for name, column in words.items()}
    return dataclasses.replace(pairs, positions=columns)


def _csv_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise FileFormatError(f"{path}: larger than {LARGEST_FILE:,} bytes")
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not UTF-8 text: byte {error.start} cannot be decoded") from None
    except csv.Error as error:
        raise FileFormatError(f"{path}: not CSV: {error}") from None
    header, *rows = [line for line in lines if line] or [[]]
    _check_header(path, header)
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise FileFormatError(f"{path}: row {index}: {len(row)} fields, the header has {len(header)}")
    if not rows:
        raise FileFormatError(f"{path}: no rows below the header")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _check_header(path: Path, header: list[str]) -> None:
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise FileFormatError(f"{path}: the column {shown(twice)} appears twice in the header")
    missing = [name for name in ("clean", "corrupted") if name not in header]
    if "correct_idx" in header or "label" not in header:
        missing += [name for name in ("correct_idx", "incorrect_idx") if name not in header]
    if missing:
        raise FileFormatError(
            f"{path}: the header lacks {', '.join(missing)}; expected clean,corrupted,label or "
            "clean,corrupted,correct_idx,incorrect_idx"
        )


def _whole(path: Path, index: int, row: dict[str, str], name: str) -> int:
    text = row[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise FileFormatError(f"{path}: row {index}: {name} is {shown(row[name])}; expected a token id")
    return int(text)


def _label(path: Path, index: int, row: dict[str, str], labels: dict[str, str]) -> tuple[str | int, str | int]:
    label = row["label"]
    if not label.startswith("["):
        other = labels.get(row["corrupted"])
        if other is None or other.startswith("["):
            raise FileFormatError(
                f"{path}: row {index}: the label {shown(label)} gives no distractor, and no row's clean prompt is this row's "
                'corrupt one; write the label as a list, ["answer", "distractor"]'
            )
        return label, other
    try:
        listed = json.loads(label)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or len(listed) != 2 or not all(_is_target(item) for item in listed):
        raise FileFormatError(
            f"{path}: row {index}: the label {shown(label)} must be a JSON list of an answer and a distractor"
        )
    return listed[0], listed[1]


def _is_target(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _object(path: Path, index: int, row: object) -> dict:
    if not isinstance(row, dict):
        raise FileFormatError(f"{path}: row {index}: {shown(row)}; expected an object")
    return row


def _text(path: Path, index: int, row: dict, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip() or not _sound(value):
        raise FileFormatError(f'{path}: row {index}: "{name}" is {shown(value)}; expected text that is not empty')
    return value


def _sound(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _prompt(path: Path, index: int, row: dict, name: str) -> str | list[int]:
    value = row.get(name)
    if not isinstance(value, list):
        return _text(path, index, row, name)
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        raise FileFormatError(f'{path}: row {index}: "{name}" must be text or a list of token ids')
    return value


def _first_of(path: Path, index: int, row: dict, name: str) -> str | int:
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(_is_target(item) for item in value):
        raise FileFormatError(f'{path}: row {index}: "{name}" must be a list of texts or token ids, and not empty')
    return value[0]


def _word_idxs(path: Path, data: dict) -> dict[str, int]:
    words = data.get("word_idxs", {})
    if not isinstance(words, dict):
        raise FileFormatError(f'{path}: "word_idxs" is {shown(words)}; expected an object of names and columns')
    for name, column in words.items():
        if not isinstance(column, int) or isinstance(column, bool) or column < 0:
            raise FileFormatError(f"{path}: word_idxs {shown(name)} is {shown(column)}; expected a column, 0 or more")
    return words
