"""`circuits concept`: what it writes and says, what it shows again, and what it refuses."""

import json
from pathlib import Path

import pytest

from circuits.concepts import ConceptTest
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

FILES = {"concept.json", "concept.csv", "concept.png", "prompts.json"}


def test_mini_s_pronouns_hang_on_whose_names_they_are(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("concept", "--layers", 1, "--count", 6, "--sets", 12, "--out", out)
    assert answer.status == 0, answer.err
    assert {path.name for path in out.iterdir()} == FILES
    found = ConceptTest.load(out / "concept.json")
    assert found.concept == "women" and found.significant[0] == "resid1" and float(found.slope.min()) > 0
    assert found.target == "logit_difference (she, he) of gendered-pronoun" and found.summary.split()[-1] == "step."
    (curve,) = found.curves
    assert curve.values[0] < curve.values[3] < curve.values[-1] and curve.values[3] == pytest.approx(found.whole, abs=1e-4)
    assert "* the concept counts" in answer.out and f"the direction at {curve.site} is moved" in answer.out
    again = json.loads(command("concept", "--open", out / "concept.json", "--out", tmp_path / "again", "--json").out)
    assert again["significant"] == list(found.significant) and len(again["places"]) == 1 and again["curves"]
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"concept.csv", "concept.png"}


def test_what_is_wrong_is_one_line(command: Command, tmp_path: Path) -> None:
    few, twice, empty, five, ten = (tmp_path / f"{name}.txt" for name in ("few", "twice", "empty", "five", "ten"))
    five.write_text("\n".join("abcde"))
    ten.write_text("\n".join("abcdefghij"))
    few.write_text("one\ntwo\n")
    twice.write_text("one\ntwo\nthree\nfour\nfive\none\n")
    empty.write_text("\n\n")
    for options, words in (
        (("--positive", tmp_path / "none.txt"), "none.txt: No such file"),
        (("--negative", tmp_path), "not a file"),
        (("--positive", empty), "empty.txt: 0 texts: expected 5 or more, one a line"),
        (("--positive", few), "few.txt: 2 texts: expected 5 or more"),
        (("--positive", twice), "twice.txt: line 6 is line 1 again"),
        (("--positive", five, "--negative", few), "few.txt: 2 texts: expected 10 or more"),
        (("--positive", five, "--negative", ten), "ten.txt: 5 texts are examples of the concept too, such as 'a'"),
        (("--target", "nothing"), "unknown task 'nothing'"),
        (("--metric", "rank"), "--metric rank has no gradient"),
        (("--answer", " she"), "--answer and --distractor go together"),
        (("--at", "end"), "--at end: expected all or answer"),
        (("--layers", "9"), "has no resid9"),
    ):
        check_one_line(command("concept", *options, "--count", 4, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
