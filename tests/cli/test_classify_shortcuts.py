"""`circuits classify shortcuts`: what it writes and says, what it shows again, and what it refuses."""

import json
from pathlib import Path

from circuits.uses import Shortcuts
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

FILES = {"shortcuts.json", "shortcuts.csv", "shortcuts.png"}


def test_shortcuts_are_found_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--count", 60, "--judged", 40, "--words", "friday,monday", "--out", out)
    answer = command("classify", "shortcuts", *options)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES
    found = Shortcuts.load(out / "shortcuts.json")
    assert found.training_texts == 60 and found.texts == 40 and found.swapped == ("friday", "monday")
    assert list(found.accuracy) == ["as they are", "random", "flipped", "random (given)", "flipped (given)", "contrast"]
    assert "swapped for" in answer.out and "accuracy (swapped: friday, monday)" in answer.out
    again = command("classify", "shortcuts", "--open", out / "shortcuts.json", "--out", tmp_path / "again", "--json")
    assert len(json.loads(again.out)["words"]) == len(found.words)
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES - {"shortcuts.json"}


def test_what_is_wrong_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").touch()
    for options, words in (
        (("--words", "sunday"), "the word 'sunday' is in no training text"),
        (("--head", "0"), "head=0.0: expected a share of the words"),
        (("--early", "--classifier", tmp_path / "one.safetensors"), "--early watches a training"),
        (("--test", tmp_path / "none.tsv"), "--test needs --data"),
    ):
        check_one_line(command("classify", "shortcuts", *options, "--count", 20, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
