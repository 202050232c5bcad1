"""`circuits concept`: what it writes and says, what it shows again, and what it refuses."""

import json
from pathlib import Path

import pytest

from circuits import load_model
from circuits.concepts import ConceptTest
from circuits.uses import planted_shortcut, train_head
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


def test_a_class_hangs_on_the_shortcut_that_was_planted(command: Command, tmp_path: Path) -> None:
    planted = planted_shortcut(count=160, judged=8)
    train_head(load_model("mini"), planted.train).save(tmp_path / "classifier.safetensors")
    for day in planted.shortcut:
        saw = ("I saw", "We met", "They came", "It rained", "She left", "He sang", "You wrote", "We slept", "I ran", "They ate")
        (tmp_path / f"{day}.txt").write_text("\n".join(f"{one} on {day}" for one in saw))
    against = ("--positive", tmp_path / "Friday.txt", "--negative", tmp_path / "Monday.txt", "--sets", 12, "--count", 4)
    asked = ("--classifier", tmp_path / "classifier.safetensors", "--target", "negative", "--nodes", "a0,m3,resid2")
    answer = command("concept", *against, *asked, "--out", tmp_path / "out", "--curves", 0)
    assert answer.status == 0, answer.err
    found = ConceptTest.load(tmp_path / "out" / "concept.json")
    assert found.concept == "Friday rather than Monday" and found.sites == ("a0", "m3", "resid2")
    assert found.score[[0, 2]].tolist() == [1, 1] and float(found.slope[0]) > 5 * abs(float(found.slope[1]))
    check_one_line(command("concept", *against, *asked[:2], "--target", "cold", "--out", tmp_path / "x"), "the class 'cold'")


def test_what_is_wrong_is_one_line(command: Command, tmp_path: Path) -> None:
    few, twice, empty, five, six, ten = (tmp_path / f"{name}.txt" for name in ("few", "twice", "empty", "five", "six", "ten"))
    lexicon, trees = tmp_path / "words.json", tmp_path / "trees.conllu"
    five.write_text("\n".join("abcde"))
    ten.write_text("\n".join("abcdefghij"))
    few.write_text("one\ntwo\n")
    twice.write_text("one\ntwo\nthree\nfour\nfive\none\n")
    empty.write_text("\n\n")
    six.write_text("\n".join("uvwxyz"))
    lexicon.write_text(json.dumps({"days": list("abcde"), "few": ["one"]}))
    trees.write_text("1\tDogs\tdog\tNOUN\t_\t_\t0\troot\t_\t_\n\n")
    for options, words in (
        (("--positive", tmp_path / "none.txt"), "none.txt: No such file"),
        (("--negative", tmp_path), "not a file"),
        (("--positive", empty), "empty.txt: 0 texts: expected 5 or more, one a line"),
        (("--positive", few), "few.txt: 2 texts: expected 5 or more"),
        (("--positive", twice), "twice.txt: line 6 is line 1 again"),
        (("--positive", five, "--negative", few), "few.txt: 2 texts: expected 5 or more"),
        (("--positive", five, "--negative", six), "six.txt: 6 texts: expected 10 or more"),
        (("--positive", five, "--negative", ten), "ten.txt: 5 texts are examples of the concept too, such as 'a'"),
        (("--target", "nothing"), "unknown task 'nothing'"),
        (("--metric", "rank"), "--metric rank has no gradient"),
        (("--answer", " she"), "--answer and --distractor go together"),
        (("--at", "end"), "--at end: expected all or answer"),
        (("--layers", "9"), "has no resid9"),
        (("--nodes", "m0.n3"), "m0.n3 has one direction"),
        (("--data", five), "--data goes with --classifier"),
        (("--positive", f"{lexicon}:months"), "words.json: no concept 'months': expected"),
        (("--positive", f"{lexicon}:few"), "few has 1 words: expected 5 or more"),
        (("--positive", lexicon), "which concept?"),
        (("--positive", f"{trees}:upos=NOUN"), "1 words with upos=NOUN and 0 others"),
        (("--positive", f"{trees}:colour=red"), "names no words: expected"),
    ):
        check_one_line(command("concept", *options, "--count", 4, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
