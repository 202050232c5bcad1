"""`circuits heads letters`: on a model that an experiment trains for some steps, and on a saved result."""

import json
import sys
from pathlib import Path

import pytest

from circuits.search import LetterHeads
from circuits.tasks import task
from circuits.tasks.library.multiple_choice import LABELS
from experiments import multiple_choice
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.files import examples


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has seen a few questions."""
    folder = tmp_path_factory.mktemp("trained")
    options = ("--steps", "2", "--batch", "4", "--layers", "1", "--width", "16", "--heads", "2", "--asked", "8", "--told", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["multiple_choice", "--out", str(folder), *options])
        multiple_choice.main()
    return folder


def test_the_experiment_leaves_an_ordinary_model(command: Command, trained: Path, tmp_path: Path) -> None:
    answer = command("heads", "letters", "--model", trained, "--count", 8, "--out", tmp_path / "a", "--json")
    assert answer.status == 0, answer.err
    said = json.loads(answer.out)
    found = LetterHeads.load(tmp_path / "a" / "letters.json")
    assert [row["head"] for row in said["heads"]] == ["a0.h0", "a0.h1"] and said["summary"] == found.summary
    assert found.prompts == 8 and found.labels == 4 and found.task == "multiple-choice:permuted"
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names >= {"letters.json", "letters.csv", "letters.png"} and ("kept.csv" in names) == bool(found.kept)


def test_a_saved_result_is_shown_again(command: Command, tmp_path: Path) -> None:
    examples.letter_heads().save(tmp_path / "letters.json")
    answer = command("heads", "letters", "--open", tmp_path / "letters.json")
    assert answer.status == 0, answer.err
    assert "a0.h1 *" in answer.out and "queries" in answer.out and "W_QK" in answer.out and "a1.h0 *" not in answer.out
    assert (tmp_path / "kept.csv").read_text().splitlines()[0].startswith("head,part,dimensions")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--labels", "runes"), "--labels is 'runes': expected one of letters, permuted"),
        (("--tolerance", -1), "--tolerance -1.0: expected nats, 0 or more"),
        (("--open", "no.json", "--count", 9), "leave out --count"),
    ],
)
def test_what_cannot_be_asked_is_one_line(command: Command, arguments: tuple, words: str) -> None:
    check_one_line(command("heads", "letters", *arguments), words)


def test_labels_that_are_no_token_are_refused_in_one_line(command: Command, tiny: Path) -> None:
    check_one_line(command("heads", "letters", "--model", tiny), "labels of choices are one token of its vocabulary")


def test_every_kind_of_labels_is_a_task() -> None:
    for labels in LABELS:
        assert task(f"multiple-choice:{labels}").name == f"multiple-choice:{labels}"
    with pytest.raises(Exception, match="expected multiple-choice:choices, multiple-choice:labels, multiple-choice:letters"):
        task("multiple-choice:runes")
