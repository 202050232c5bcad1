"""`circuits classify regularise`, `feedback` and `inside`: what they write and say, what they show again, and what they
refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from circuits.uses import ErTest, Feedback, FeedbackEffects, FeedbackItem, InsideChange, planted_shortcut
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

SHORT = ("--epochs", 2, "--pictures", "svg")
"""Two steps: in the first, a head of zeros goes by no word, and no penalty says anything."""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A few made reviews, as files."""
    folder, planted = tmp_path_factory.mktemp("texts"), planted_shortcut(count=16, judged=12, seed=3)
    planted.train.save(folder / "train.jsonl")
    planted.held_out.save(folder / "same.jsonl")
    planted.contrast.save(folder / "contrast.jsonl")
    return "--data", folder / "train.jsonl", "--test", folder / "same.jsonl", "--test", folder / "contrast.jsonl"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_regularising_is_told_beside_plain_training(command: Command, texts: tuple[Any, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = command("classify", "regularise", *texts, *SHORT, "--seeds", 2, "--out", out)
    assert answer.status == 0, answer.err
    assert names(out) == {"classifier.safetensors", "regularised.json", "regularised.csv", "regularised.svg"}
    found = ErTest.load(out / "regularised.json")
    assert (
        found.kinds[:2] == ("in distribution", "contrast")
        and found.seeds == (0, 1)
        and (found.rationale, found.strength) == ("removal", 1)
    )
    assert "plain" in answer.out and "all weights trained on 16 texts, 2 seeds" in answer.out
    assert "circuits classify regularise --open" in answer.out
    again = command("classify", "regularise", "--open", out / "regularised.json", "--out", tmp_path / "again", "--json")
    assert len(json.loads(again.out)["tests"]) == len(found.tests)


def test_feedback_is_proposed_corrected_and_applied(command: Command, texts: tuple[Any, ...], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    answer = command("classify", "feedback", *texts, *SHORT, "--out", first)
    assert answer.status == 0, answer.err
    assert names(first) == {"classifier.safetensors", "proposed.json"} and "which of them should not matter?" in " ".join(
        answer.out.split()
    )
    one = first / "a"
    drawn = command(
        "classify", "feedback", *texts[:2], *SHORT, "--count", 9, "--seed", 3, "--strength", 2, "--out", first / "a"
    )
    step = " ".join(drawn.out.split())
    assert drawn.status == 0 and "--count 9 --seed 3 --strength 2.0 --epochs 2" in step, drawn.out
    same = ("--classifier", one / "classifier.safetensors", *texts[:2], "--out", tmp_path / "none")
    check_one_line(command("classify", "feedback", *same), "was trained on other texts than these 13")
    plain = json.loads((first / "proposed.json").read_text())
    plain["items"] = [{"word": "friday", "matters": False}, {"word": "absent", "matters": True}]
    (first / "mine.json").write_text(json.dumps(plain))
    given = ("--feedback", first / "mine.json", "--classifier", first / "classifier.safetensors")
    answer = command("classify", "feedback", *given, *texts, *SHORT, "--out", second)
    assert answer.status == 0, answer.err
    assert names(second) == {"after.safetensors", "feedback.json", "feedback.csv", "feedback.svg"}
    found = FeedbackEffects.load(second / "feedback.json")
    assert found.unused == ("absent",) and "In no training text: absent." in answer.out
    again = command("classify", "feedback", "--open", second / "feedback.json", "--out", tmp_path / "again", "--json")
    assert set(json.loads(again.out)["changed"]) == {"same", "contrast"}
    other = ("--feedback", first / "mine.json", "--classifier", second / "after.safetensors")
    said = command("classify", "feedback", *other, *texts, "--out", tmp_path / "none")
    check_one_line(said, "is feedback for another classifier")
    Feedback(plain["classifier"], (FeedbackItem("absent", False),)).save(first / "nowhere.json")
    nowhere = ("--feedback", first / "nowhere.json", *given[2:])
    check_one_line(command("classify", "feedback", *nowhere, *texts, "--out", tmp_path / "none"), "none of 16 texts holds")
    both = ("--before", first / "classifier.safetensors", "--after", second / "after.safetensors")
    answer = command(
        "classify",
        "inside",
        *both,
        *texts[:4],
        "--words",
        "friday, monday",
        "--pairs",
        6,
        *("--edges", 20, "--neurons", 1),
        "--pictures",
        "svg",
        "--out",
        tmp_path / "inside",
    )
    assert answer.status == 0, answer.err
    circuits = {f"{what}-{when}.json" for what in ("shortcut", "meaning") for when in ("before", "after")}
    assert names(tmp_path / "inside") == {"inside.json", "inside.csv", "inside.svg"} | circuits
    inside = InsideChange.load(tmp_path / "inside" / "inside.json")
    assert inside.kinds == ("the shortcut", "the meaning") and "the shortcut, 6 texts" in answer.out
    assert "circuits classify inside --open" in answer.out
    again = command("classify", "inside", "--open", tmp_path / "inside" / "inside.json", "--out", tmp_path / "more", "--json")
    assert inside.neurons is not None and "the meaning, single neurons" in answer.out and "by themselves" in answer.out
    assert len(json.loads(again.out)["nodes"]) == 2 * (len(inside.nodes) + len(inside.neurons.names))


def test_what_cannot_be_mended_is_one_line(command: Command, tmp_path: Path) -> None:
    bare = tmp_path / "bare.tsv"
    bare.write_text("label\ttext\n" + "".join(f"{'xy'[place % 2]}\tword {place}\n" for place in range(12)))
    for options, words in (
        (("regularise", "--data", bare), "the texts have no rationales: name words that should not matter with --without"),
        (("regularise", "--distance", "cosine"), "distance 'cosine': expected one of mse, kl, bce, order"),
        (("regularise", "--train", "some"), "--train some: expected head or all"),
        (("feedback", "--feedback", bare), "--feedback needs --classifier"),
        (("inside", "--before", bare), "--before and --after go together"),
        (("inside", "--data", bare), "--data needs --words"),
        (("inside", "--control", bare), "--control goes with --before and --after"),
        (("regularise", "--train", "head", "--rationale", "learned"), "does not hang on the head"),
    ):
        check_one_line(command("classify", *options, "--out", tmp_path / "out"), words)
    assert not (tmp_path / "out").exists()
