"""`circuits behaviour`: minimal pairs and facts from files, beside baselines; and such files as prompts of other commands."""

import json
from pathlib import Path

import pandas as pd
import pytest

from circuits.tasks import BehaviourScores
from tests.cli.conftest import Command

SENTENCES = [
    ("The boy near the trees is old.", "The boy near the trees are old.", "number"),
    ("The boys near the trees are old.", "The boys near the trees is old.", "number"),
    ("She told him that the king had come.", "She told him who the king had come.", "gap"),
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"sentence_good": good, "sentence_bad": bad, "UID": name} for good, bad, name in SENTENCES]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def relation(path: Path) -> Path:
    samples = [{"subject": subject, "object": o} for subject, o in (("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"))]
    path.write_text(json.dumps({"name": "capitals", "prompt_templates": ["The capital of {} is"], "samples": samples}))
    return path


def test_minimal_pairs_as_table_and_files(command: Command, pairs: Path, tmp_path: Path) -> None:
    answer = command("behaviour", "--minimal-pairs", pairs, pairs, "--out", tmp_path / "scores.csv")
    assert answer.status == 0, answer.err
    assert "6 minimal pairs" in answer.out and "number" in answer.out and "bigram" in answer.out and "chance" in answer.out
    table = pd.read_csv(tmp_path / "scores.csv").set_index("group")
    assert table["items"].to_dict() == {"number": 4, "gap": 2, "all": 6}
    text = tmp_path / "text.txt"
    text.write_text("The boys are here and the boy is there. She told him that it was so.")
    asked = command("behaviour", pairs, "--limit", 2, "--text", text, "--out", tmp_path / "scores.json", "--json")
    contents = json.loads(asked.out)
    assert contents["items"] == 2 and contents["groups"][-1]["group"] == "all" and "unigram" in contents["notes"]
    scores = BehaviourScores.load(tmp_path / "scores.json")
    assert scores.mean("accuracy") == contents["groups"][-1]["accuracy"]
    assert scores.notes["bigram"].startswith("accuracy of a bigram model: counts")
    again = json.loads(command("behaviour", "--open", tmp_path / "scores.json", "--out", tmp_path / "again.csv", "--json").out)
    assert again == {**contents, "file": str(tmp_path / "again.csv")} and (tmp_path / "again.csv").is_file()
    assert "computes nothing: leave out --limit" in command("behaviour", "--open", tmp_path / "scores.json", "--limit", 2).err


def test_facts_of_a_file_and_of_the_model(command: Command, tmp_path: Path) -> None:
    path = relation(tmp_path / "capitals.json")
    answer = command("behaviour", path, "--out", tmp_path / "scores.png")
    assert answer.status == 0 and (tmp_path / "scores.png").stat().st_size > 1000
    row = next(line for line in answer.out.splitlines() if line.startswith("capitals"))
    assert row.split()[1:3] == ["3", "1.000"], "mini knows them"
    assert command("behaviour", "--facts", path, "--json").status == 0
    own = json.loads(command("behaviour", "--limit", 20, "--json").out)
    assert own["kind"] == "facts" and own["items"] == 20 and own["groups"][-1]["top1"] > 0.9


def test_such_files_are_prompts_of_other_commands(command: Command, pairs: Path, tmp_path: Path) -> None:
    asked = command("logits", "--prompts", pairs, "--out", tmp_path / "a", "--json")
    contents = json.loads(asked.out)
    assert contents["answers"] == [" is", " are"] and contents["distractors"] == [" are", " is"]
    facts = command("logits", "--prompts", relation(tmp_path / "capitals.json"), "--out", tmp_path / "b", "--json")
    assert json.loads(facts.out)["answers"] == [" Paris", " Tokyo", " Rome"]
    known = [
        {"prompt": f"The capital of {s} is", "subject": s, "attribute": a} for s, a in (("France", "Paris"), ("Italy", "Rome"))
    ]
    (tmp_path / "known.json").write_text(json.dumps(known))
    rome = command("logits", "--prompts", tmp_path / "known.json", "--out", tmp_path / "c", "--json")
    assert json.loads(rome.out)["answers"] == [" Paris", " Rome"]


WRONG = [
    (("--out", "scores.txt"), "unknown kind of file"),
    (("a.jsonl", "b.json"), "ask for one kind at a time"),
    (("--facts", "b.json"), "b.json: No such file"),
    (("--minimal-pairs", "c.jsonl"), "c.jsonl: No such file"),
    (("--text", "book.txt"), "book.txt: No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    arguments: tuple, message: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = command("behaviour", *arguments)
    assert answer.status == 2 and message in answer.err and "Traceback" not in answer.err
    assert answer.out == "" and not list(tmp_path.iterdir())
