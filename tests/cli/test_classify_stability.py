"""`circuits classify stability`: its table and files, what it shows again, and what it refuses."""

import json
from pathlib import Path

from circuits.cli.reports.classify_stability import stability_report
from circuits.uses import Stability
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.uses.test_stability import planted_pairs


def test_words_are_replaced_and_compared(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("classify", "stability", "--count", 24, "--texts", 4, "--words", 1, "--out", out, "--json")
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == {"stability.json", "stability.csv", "stability.png"}
    said = json.loads(answer.out)
    assert 0 <= said["stability"]["turned"]["effect"] <= 1 and said["stability"]["tried"] == 4
    assert len(said["stability"]["pairs"]) == len(Stability.load(out / "stability.json").texts)
    again = command("classify", "stability", "--open", out / "stability.json", "--out", tmp_path / "again")
    assert "kept less turned" in again.out and (tmp_path / "again" / "stability.png").is_file()
    (tmp_path / "words.json").write_text('{"good": ["very fine"]}')
    for options, words in (
        (("--synonyms", tmp_path / "words.json"), "expected a list of single words"),
        (("--flat", "-1"), "--flat -1.0: expected more than 0"),
        (("--method", "lime"), "method 'lime'"),
    ):
        check_one_line(command("classify", "stability", *options, "--count", 8, "--out", tmp_path / "none"), words)
    assert not (tmp_path / "none").exists()


def test_what_the_penalty_adds_is_told_apart_from_adversarial_training() -> None:
    plain, attacked, flat = ([False] * count + [True] * (20 - count) for count in (16, 6, 6))
    taus = (("stability", plain, 0.25), ("attacked", attacked, 0.25), ("flat", flat, 0.75))
    several = {name: planted_pairs(kept, [tau] * 20, tried=20) for name, kept, tau in taus}
    right = {"stability": [True] * 20, "attacked": [True] * 20, "flat": [False] * 10 + [True] * 10}
    said = stability_report(several, {}, right=right)
    alone, training = said.data["FLAT's penalty alone"], said.data["attacked texts against plain training"]
    assert training["fewer_turned"]["effect"] == 0.5 and training["tau"]["effect"] == 0 == alone["fewer_turned"]["effect"]
    assert alone["tau"]["low"] == 0.5 and alone["right"]["effect"] == -0.5 and alone["right"]["high"] < 0
    single = stability_report({"flat": several["flat"]}, {})
    assert not any("penalty" in key for key in single.data), "a file that is opened has nothing beside it"
