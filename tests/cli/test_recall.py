"""`circuits recall`: what it writes and says, and its errors."""

import csv
import json
from pathlib import Path

import pytest

from circuits.cli.commands.recall import FILES
from circuits.graph import Circuit
from tests.cli.conftest import Command

QUICK = ("--count", 4, "--min-effect", 0.3)


@pytest.mark.slow
def test_the_bundled_model_s_circuit_is_written_and_reported(command: Command, tmp_path: Path) -> None:
    answer = command("recall", *QUICK, "--out", tmp_path / "recall")
    assert answer.status == 0, answer.err
    assert "\nRecall circuit of mini: " in answer.out
    for said in ("Where the fact is", "subject_last", "Files in", "Try next"):
        assert said in answer.out
    assert {path.name for path in (tmp_path / "recall").iterdir()} <= set(FILES)
    circuit = Circuit.load(tmp_path / "recall" / "circuit.json")
    assert circuit.metadata["task"] == "factual recall" and circuit.metadata["prompts"] == 4
    with (tmp_path / "recall" / "sites.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * 5


@pytest.mark.slow
def test_facts_of_a_file_and_json(command: Command, tmp_path: Path) -> None:
    relation = {
        "name": "capital",
        "prompt_templates": ["The capital of {} is"],
        "samples": [{"subject": "France", "object": "Paris"}, {"subject": "Japan", "object": "Tokyo"}],
    }
    (tmp_path / "facts.json").write_text(json.dumps(relation))
    answer = command(
        "recall", "--facts", tmp_path / "facts.json", *QUICK, "--forwards", 30, "--out", tmp_path / "out", "--json"
    )
    assert answer.status == 0, answer.err
    assert "recall: of 32 heads, 4,096 neurons" in answer.err and "some 30 plain forwards over 2 pairs" in answer.err
    found = json.loads(answer.out)
    assert found["patched"]["heads"] == [27, 32] and "27 of 32 heads" in found["summary"]
    assert found["prompts"] == 2 and found["verdict"] in ("found", "unproven", "none")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--min-effect", 0), "--min-effect is 0.0; expected a share"),
        (("--facts", "nowhere.json"), "nowhere.json: No such file"),
        (("--model", "nothing-like-this"), "nothing-like-this"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(command: Command, tmp_path: Path, arguments, said: str) -> None:
    answer = command("recall", *arguments, "--out", tmp_path / "out")
    assert answer.status == 2 and said in answer.err
    assert len([line for line in answer.err.splitlines() if line.startswith("Error")]) == 1
    assert not (tmp_path / "out").exists()
