"""`circuits logits`: the numbers, the files, the picture, and every way to ask wrongly."""

import json
from pathlib import Path

import pandas as pd
import pytest

from circuits.lenses import DirectLogits
from tests.cli.conftest import Command

PROMPT = "The capital of France is"


def test_a_prompt_is_taken_apart_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("logits", PROMPT, "--neurons", 2, "--positions", "--top", 6, "--out", out)
    assert answer.status == 0, answer.err
    assert "logit of ' Paris'" in answer.out and "other rows" in answer.out and "' France'" in answer.out
    assert {path.name for path in out.iterdir()} == {"logits.json", "logits.csv", "sources.csv", "logits.png"}
    found = DirectLogits.load(out / "logits.json")
    table = pd.read_csv(out / "logits.csv")
    assert table["mean"].sum() == pytest.approx(float(found.total[0]), abs=1e-3)
    sources = pd.read_csv(out / "sources.csv")
    head = sources[sources["head"] == "a1.h3"]["contribution"].sum()
    assert head == pytest.approx(float(table.set_index("row")["mean"]["a1.h3"]), abs=1e-4)
    again = command("logits", "--open", out / "logits.json", "--out", tmp_path / "again", "--json")
    contents = json.loads(again.out)
    assert contents["total"] == pytest.approx(float(found.total[0])) and contents["answers"] == [" Paris"]
    assert (tmp_path / "again" / "logits.csv").read_bytes() == (out / "logits.csv").read_bytes()
    refused = command("logits", PROMPT, "--open", out / "logits.json")
    assert refused.status == 2 and "leave out PROMPT" in refused.err


def test_tasks_files_and_pairs_of_texts(command: Command, tmp_path: Path, tiny: Path) -> None:
    asked = command("logits", "--task", "induction", "--count", 4, "--model", tiny, "--out", tmp_path / "a", "--json")
    contents = json.loads(asked.out)
    assert (
        contents["prompts"] == 4
        and len(contents["distractors"]) == 4
        and set(contents["files"])
        == {
            "logits.json",
            "logits.csv",
            "logits.png",
        }
    )
    rows = {row["row"]: row for row in contents["rows"]}
    assert {"input", "positions", "a0.h0", "a0.bias", "m1", "bias"} <= set(rows) and rows["m1"]["standard_error"] > 0
    assert sum(row["mean"] for row in contents["rows"]) == pytest.approx(contents["total"], abs=1e-3)
    texts = ("--clean", "ab", "--corrupt", "cb", "--answer", "x", "--distractor", "y")
    pair = command("logits", *texts, "--model", tiny, "--out", tmp_path / "b", "--side", "corrupt")
    assert pair.status == 0 and "logit of 'x' less that of 'y'" in pair.out and "corrupt prompts" in pair.out


WRONG = [
    (("--answer", " Paris"), "--answer goes with a prompt"),
    ((PROMPT, "--task", "ioi"), "a prompt and --task both say"),
    ((PROMPT, "--side", "up"), "unknown side 'up'"),
    ((PROMPT, "--side", "corrupt"), "no corrupt side"),
    ((PROMPT, "--answer", "Paris"), "did you mean ' Paris'?"),
    ((PROMPT, "--answer", " Paris", "--distractor", " Paris"), "must differ"),
    (("--clean", "a", "--answer", "x"), "--corrupt is missing"),
    (("--prompts", "missing.csv"), "missing.csv: No such file"),
    (("--open", "missing.json"), "missing.json: No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    arguments: tuple, message: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = command("logits", *arguments)
    assert answer.status == 2 and message in answer.err and "Traceback" not in answer.err
    assert answer.out == "" and not list(tmp_path.iterdir())
