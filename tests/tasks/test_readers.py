"""The field's files of prompts and facts: what is written is read back, and what is broken is refused in one line."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.errors import CircuitsError, FileFormatError
from circuits.models import Model
from circuits.tasks import Fact, PromptPairs, read_autocircuit_json, read_eap_ig_csv, read_lre_json, read_rome_json
from tests.damage import mutate
from tests.models import bundled

PAIRS = [
    ("The capital of France is", "The capital of Japan is", " Paris", " Tokyo"),
    ("The capital of Japan is", "The capital of France is", " Tokyo", " Paris"),
    ("The capital of Italy is", "The capital of Japan is", " Rome", " Tokyo"),
]


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


def same(one: PromptPairs, other: PromptPairs) -> bool:
    parts = [(p.clean.ids, p.corrupt.ids, p.answers, p.distractors, p.answer_columns) for p in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*parts, strict=True))


@pytest.fixture(scope="module")
def expected(mini: Model) -> PromptPairs:
    clean, corrupt, answers, distractors = (list(part) for part in zip(*PAIRS, strict=True))
    return PromptPairs.from_text(mini, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_eap_ig_with_ids_and_with_both_kinds_of_label(mini: Model, expected: PromptPairs, tmp_path: Path) -> None:
    single = mini.single_token
    ids = [[a, b, single(c), single(d), "left unread"] for a, b, c, d in PAIRS]
    path = write_csv(tmp_path / "ids.csv", ["clean", "corrupted", "correct_idx", "incorrect_idx", "more"], ids)
    assert same(read_eap_ig_csv(path, mini), expected)
    lists = [[a, b, json.dumps([c, single(d)])] for a, b, c, d in PAIRS]
    assert same(read_eap_ig_csv(write_csv(tmp_path / "lists.csv", ["clean", "corrupted", "label"], lists), mini), expected)
    plain = [[a, b, c] for a, b, c, _ in PAIRS]
    assert same(read_eap_ig_csv(write_csv(tmp_path / "plain.csv", ["clean", "corrupted", "label"], plain), mini), expected)


def test_autocircuit_with_text_and_with_ids(mini: Model, expected: PromptPairs, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    rows = [{"clean": a, "corrupt": b, "answers": [c, " other"], "wrong_answers": [d]} for a, b, c, d in PAIRS]
    path.write_text(json.dumps({"seq_labels": ["x"], "word_idxs": {"place": 4}, "prompts": rows}))
    pairs = read_autocircuit_json(path, mini)
    assert same(pairs, expected)
    assert mini.to_string([int(pairs.clean.ids[0, int(pairs.positions["place"][0])])]) == " France"
    for row, clean, corrupt in zip(rows, expected.clean.ids.tolist(), expected.corrupt.ids.tolist(), strict=True):
        row.update(clean=clean, corrupt=corrupt)
    path.write_text(json.dumps({"prompts": rows}))
    assert same(read_autocircuit_json(path, mini), expected)


def test_rome_and_lre(tmp_path: Path) -> None:
    facts = (Fact("The capital of France is", "France", "Paris", "P36"), Fact("Rome is in", "Rome", "Italy", ""))
    rows = [{"known_id": 0, "prompt": f.prompt, "subject": f.subject, "attribute": f.attribute} for f in facts]
    rows[0]["relation_id"] = "P36"
    path = tmp_path / "known.json"
    path.write_text(json.dumps(rows))
    assert read_rome_json(path) == facts
    relation = {
        "name": "capital",
        "prompt_templates": ["{} has the capital", "The capital of {} is"],
        "prompt_templates_zs": ["Q: capital of {}? A:"],
        "properties": {"relation_type": "factual"},
        "samples": [{"subject": "France", "object": "Paris"}, {"subject": "Japan", "object": "Tokyo"}],
    }
    path.write_text(json.dumps(relation))
    read = read_lre_json(path)
    assert [fact.prompt for fact in read[:2]] == ["France has the capital", "The capital of France is"]
    assert len(read) == 4 and read[3] == Fact("The capital of Japan is", "Japan", "Tokyo", "capital")
    assert len(read_lre_json(path, zero_shot=True)) == 2


BROKEN: dict[str, tuple[str, str, str]] = {
    "no header": ("csv", "", "is empty"),
    "other columns": ("csv", "a,b\n1,2\n", "the header lacks"),
    "a column twice": ("csv", "clean,clean,corrupted,label\na,b,c,d\n", "appears twice"),
    "no rows": ("csv", "clean,corrupted,label\n", "no rows"),
    "a short row": ("csv", "clean,corrupted,label\nThe,\n", "row 0 (line 2): 2 fields"),
    "a lone label": ("csv", "clean,corrupted,label\nThe cat, A cat, sat\n", "gives no distractor"),
    "half a list": ("csv", 'clean,corrupted,label\nThe cat,A cat,"["" sat"""\n', "must be a JSON list"),
    "an id that is none": ("csv", "clean,corrupted,correct_idx,incorrect_idx\nThe cat,A cat,x,1\n", "expected a token id"),
    "unequal prompts": ("csv", "clean,corrupted,correct_idx,incorrect_idx\nThe cat,The old cat,5,6\n", "equally many"),
    "not JSON": ("autocircuit", "{", "JSON"),
    "no prompts": ("autocircuit", "{}", "prompts"),
    "a row of text": ("autocircuit", '{"prompts": ["x"]}', "row 0"),
    "no answers": ("autocircuit", '{"prompts": [{"clean": "a", "corrupt": "b", "answers": []}]}', "answers"),
    "NaN": ("autocircuit", '{"prompts": NaN}', ""),
    "facts that are none": ("rome", "[1]", "row 0"),
    "no subject": ("rome", '[{"prompt": "a b", "subject": "c", "attribute": "d"}]', "is not in it"),
    "no list": ("rome", "{}", "expected a list"),
    "a template without a place": ("lre", '{"name": "x", "prompt_templates": ["y"], "samples": []}', "one {}"),
    "no samples": ("lre", '{"name": "x", "prompt_templates": ["{}"], "samples": []}', "samples"),
}


def reader(kind: str, model: Model) -> Callable[[Path], object]:
    readers = {"csv": read_eap_ig_csv, "autocircuit": read_autocircuit_json}
    if kind in readers:
        return lambda path: readers[kind](path, model)
    return {"rome": read_rome_json, "lre": read_lre_json}[kind]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_in_one_line_that_names_it(mini: Model, tmp_path: Path, case: str) -> None:
    kind, content, said = BROKEN[case]
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(FileFormatError) as refused:
        reader(kind, mini)(path)
    message = str(refused.value)
    assert str(path) in message and said in message and "\n" not in message


@pytest.mark.parametrize("kind", ["csv", "autocircuit", "rome", "lre"])
def test_a_missing_file_and_a_directory_are_refused(mini: Model, tmp_path: Path, kind: str) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileFormatError, match=r"cannot be read|directory"):
            reader(kind, mini)(path)


def sound(kind: str) -> bytes:
    """A sound file of that kind."""
    if kind == "csv":
        rows = "".join(f'{a},{b},"[""{c}"", ""{d}""]"\n' for a, b, c, d in PAIRS)
        return ("clean,corrupted,label\n" + rows).encode()
    if kind == "autocircuit":
        prompts = [{"clean": a, "corrupt": b, "answers": [c], "wrong_answers": [d]} for a, b, c, d in PAIRS]
        return json.dumps({"word_idxs": {"place": 4}, "prompts": prompts}).encode()
    if kind == "rome":
        return json.dumps([{"prompt": a, "subject": a.split()[3], "attribute": c.strip()} for a, _, c, _ in PAIRS]).encode()
    samples = [{"subject": "France", "object": "Paris"}]
    return json.dumps({"name": "capital", "prompt_templates": ["The capital of {} is"], "samples": samples}).encode()


@pytest.mark.parametrize("kind", ["csv", "autocircuit", "rome", "lre"])
def test_mutated_files_are_read_or_refused_with_the_typed_error(mini: Model, tmp_path: Path, kind: str) -> None:
    chooser, path, read = random.Random(kind), tmp_path / "mutated", reader(kind, mini)
    path.write_bytes(sound(kind))
    read(path)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        path.write_bytes(mutate(sound(kind), chooser))
        try:
            read(path)
            outcomes["read"] += 1
        except CircuitsError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error)
    assert min(outcomes.values()) > 0, outcomes
