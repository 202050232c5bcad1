"""`circuits classify stability`: its table and files, what it shows again, and what it refuses."""

import json
from pathlib import Path

from circuits.uses import Stability
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line


def test_words_are_replaced_and_compared(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("classify", "stability", "--count", 24, "--texts", 4, "--words", 1, "--out", out, "--json")
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"stability.json", "stability.csv", "stability.png"}
    said = json.loads(answer.out)
    assert len(said["stability"]["pairs"]) == len(Stability.load(out / "stability.json").texts)
    again = command("classify", "stability", "--open", out / "stability.json", "--out", tmp_path / "again")
    assert "kept less turned" in again.out and (tmp_path / "again" / "stability.png").is_file()
    (tmp_path / "words.json").write_text('{"good": ["very fine"]}')
    for options, words in (
        (("--synonyms", tmp_path / "words.json"), "expected a list of single words"),
        (("--flat", "-1"), "--flat -1.0: expected 0 or more"),
        (("--method", "lime"), "method 'lime'"),
    ):
        check_one_line(command("classify", "stability", *options, "--count", 8, "--out", tmp_path / "none"), words)
    assert not (tmp_path / "none").exists()
