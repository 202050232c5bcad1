"""`circuits features`: what it writes and says, what it shows again, and what it refuses."""

import json
from pathlib import Path

from circuits.concepts import Superposition
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

FILES = {"superposition.json", "superposition.csv", "superposition.png"}


def test_superposition_is_shown_and_shown_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = ("--sparsity", "0,0.9", "--features", 3, "--seeds", 1, "--steps", 20, "--batch", 8, "--out", out)
    answer = command("features", *few)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES
    found = Superposition.load(out / "superposition.json")
    assert "with relu" in answer.out and "with linear" in answer.out and found.steps == 20
    again = json.loads(command("features", "--open", out / "superposition.json", "--json").out)
    assert len(again["rows"]) == 2 * 2 * 3 and again["features"] == 3 and again["hidden"] == 2


def test_what_is_wrong_with_a_toy_is_one_line(command: Command, tmp_path: Path) -> None:
    for options, words in (
        (("--sparsity", "0,x"), "--sparsity 0,x: expected numbers"),
        (("--sparsity", "1"), "expected chances that a feature is zero"),
        (("--hidden", 9), "no more dimensions than features"),
        (("--decay", 2), "importance falls by 2.0"),
    ):
        check_one_line(command("features", *options, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
