"""`circuits classify` and `circuits classify train`: what they write and say, what they show again, and what they refuse."""

import json
from pathlib import Path

import pytest
from typer.main import get_command

from circuits.cli.app import app
from circuits.cli.commands.classify import _BELOW
from circuits.uses import ClassifierScores, planted_shortcut, read_labelled
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line


def test_a_classifier_is_trained_judged_and_asked(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("classify", "train", "--count", 60, "--out", out, "--pictures", "svg")
    assert answer.status == 0, answer.err
    files = {"classifier.safetensors", "scores.json", "scores.csv", "scores.svg", "planted"}
    assert {path.name for path in out.iterdir()} == files
    scores = ClassifierScores.load(out / "scores.json")
    assert scores.splits == ("held out", "random", "flipped", "contrast") and "head trained on 60 texts" in answer.out
    assert read_labelled(out / "planted" / "held_out.jsonl") == planted_shortcut(count=60).held_out
    below = {name.split()[1] for name in get_command(app).commands if name.startswith("classify ")}
    assert below == set(_BELOW), "a word that is meant for one of them is no text"
    days = ["We saw it on Friday . The plot was fine .", "We saw it on Monday . The plot was fine ."]
    said = command("classify", *days, "--classifier", out / "classifier.safetensors", "--json")
    friday, monday = json.loads(said.out)["texts"]
    assert friday["chances"]["negative"] > monday["chances"]["negative"] + 0.1 and sum(
        friday["chances"].values()
    ) == pytest.approx(1)
    again = command("classify", "train", "--open", out / "scores.json", "--out", tmp_path / "again", "--json")
    assert len(json.loads(again.out)["splits"]) == 4 and (tmp_path / "again" / "scores.png").is_file()
    # The files that it wrote are files that it reads.
    texts = ("--data", out / "planted" / "train.jsonl", "--test", out / "planted" / "flipped.jsonl")
    answer = command("classify", "train", *texts, "--train", "all", "--count", 16, "--epochs", 1, "--out", tmp_path / "all")
    assert answer.status == 0 and "all weights trained on 16 texts of train.jsonl" in answer.out, answer.err
    same = " ".join(map(str, ("--classifier", tmp_path / "all" / "classifier.safetensors", *texts, "--count", 16)))
    assert f"circuits classify attribute {same}" in answer.out and f"circuits classify shortcuts {same}" in answer.out
    assert {path.name for path in (tmp_path / "all").iterdir()} == files - {"planted", "scores.svg"} | {"scores.png"}


def test_a_page_shows_scores_shortcuts_and_words(command: Command, tmp_path: Path) -> None:
    planted = planted_shortcut(count=60, judged=12)
    for name, split in {"train": planted.train, "dev": planted.held_out, "other": planted.flipped}.items():
        split.save(tmp_path / f"{name}.jsonl")
    texts = ("--data", tmp_path / "train.jsonl", "--test", tmp_path / "dev.jsonl", "--test", tmp_path / "other.jsonl")
    answer = command("classify", "report", *texts, "--texts", 3, "--out", tmp_path / "out")
    assert answer.status == 0, answer.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scores.json",
        "shortcuts.json",
        "words.json",
        "report.html",
    }
    page = (tmp_path / "out" / "report.html").read_text()
    for title in ("Scores of a classifier", "Shortcuts", "Which words a classifier goes by"):
        assert title in page, title
    assert "still running" not in page and "other.jsonl" in page, "how it was made"


def test_what_is_wrong_with_texts_is_one_line(command: Command, tmp_path: Path) -> None:
    one, other, beyond = (tmp_path / f"{name}.csv" for name in ("one", "other", "beyond"))
    one.write_text("text,label\na,x\nb,x\n")
    other.write_text("text,label\na,x\nb,z\n")
    beyond.write_text("text,label,rationale\na b,x,4-5\nb,z,\n")
    good = tmp_path / "good.tsv"
    good.write_text("label\ttext\n" + "".join(f"{'xy'[place % 2]}\tword {place}\n" for place in range(12)))
    for options, words in (
        (("train", "--data", tmp_path / "none.csv"), "none.csv: No such file"),
        (("train", "--data", one), "one.csv: all 2 texts have the label 'x': expected two classes or more"),
        (("train", "--data", beyond), "the rationale [4, 5) lies beyond the text's 2 words"),
        (("train", "--data", good, "--test", other), "other.csv: row 1 (line 3): the label 'z' is none of x, y"),
        (("train", "--data", other), "0 training texts of 0 classes beside 2 that are held out, as there is no --test"),
        (("train", "--data", good, "--rename", "x"), "--rename x: expected OLD=NEW"),
        (("train", "--test", other), "--test needs --data"),
        (("train", "--train", "some"), "--train some: expected head or all"),
        (("train", "--rate", "0"), "expected a rate above 0"),
        (("atribute",), "'atribute' is no subcommand; did you mean circuits classify attribute?"),
        (("a text", "--classifier", tmp_path / "none.safetensors"), "none.safetensors: No such file"),
        (("attribute", "--classifier", tmp_path / "none.safetensors"), "none.safetensors: No such file"),
        (("inside", "--before", tmp_path, "--after", tmp_path), f"{tmp_path}: not a file"),
    ):
        out = ("--out", tmp_path / "out")
        check_one_line(command("classify", *options, *out), words)
    assert not (tmp_path / "out").exists()
