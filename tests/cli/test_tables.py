"""`circuits tables`: tables, one token, what a text says, and what a user can get wrong."""

import csv
import json
from pathlib import Path

import pytest

from circuits.heads import Compression, Tables
from circuits.patching import LayerRemoval, Terms
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The king went to the sea and the sea was cold. " * 20)
    return path


def test_help_teaches_by_example(command: Command) -> None:
    answer = command("tables", "--help")
    assert answer.status == 0 and "Examples:" in answer.out and "circuits tables compress" in answer.out


def test_tables_of_the_bundled_model(command: Command, tmp_path: Path) -> None:
    answer = command("tables", "--top", 4, "--head", "a0.h7,a0.h2", "--out", tmp_path / "out")
    assert answer.status == 0
    for words in (
        "Weight tables of mini",
        "more than one layer",
        "a0.h7 (copying",
        "'Mr' … '.'",
        "Bugs",
        "Virtual heads",
        "Try next",
    ):
        assert words in answer.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"tables.json", "tables.png", "bigrams.csv", "skip_trigrams.csv", "bugs.csv", "virtual.csv"}
    found = Tables.load(tmp_path / "out" / "tables.json")
    with (tmp_path / "out" / "skip_trigrams.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [found.word(one.source) for one in found.skip_trigrams] and len(rows) == 8
    assert (tmp_path / "out" / "tables.png").read_bytes().startswith(PNG)
    again = command("tables", "--open", tmp_path / "out" / "tables.json", "--skip-trigrams", "--json")
    assert len(json.loads(again.out)["skip_trigrams"]) == 8


def test_one_token(command: Command, tmp_path: Path) -> None:
    answer = command("tables", "--token", " the", "--head", "a0.h3", "--top", 4, "--out", tmp_path, "--json")
    found = json.loads(answer.out)
    assert found == {**json.loads((tmp_path / "token.json").read_text()), "files": found["files"]}
    assert len(found["next"]) == 4 and set(found["heads"]["a0.h3"]) == {"attends_to", "attended_from", "raises"}
    shown = command("tables", "--token", " the", "--out", tmp_path)
    assert "Whom it attends to" in shown.out and "' the' in the weight tables of mini" in shown.out


def test_terms_layers_and_ranks_on_a_text(command: Command, tiny: Path, text: Path, tmp_path: Path) -> None:
    common = ("--model", tiny, "--text", text, "--limit", 128, "--out", tmp_path / "out")
    answer = command("tables", "terms", *common)
    assert answer.status == 0 and "direct path" in answer.out and "the model itself" in answer.out
    terms = Terms.load(tmp_path / "out" / "terms.json")
    assert terms.loss(2) == pytest.approx(terms.full_loss, abs=1e-4)
    answer = command("tables", "layers", "--kind", "mean", *common, "--json")
    assert LayerRemoval.load(tmp_path / "out" / "layers.json").kind == json.loads(answer.out)["kind"] == "mean"
    answer = command("tables", "compress", "--head", "a0.h1", "--tolerance", 0.05, *common)
    assert "all at once" in answer.out and "a0.h1" in answer.out
    found = Compression.load(tmp_path / "out" / "compression.json")
    assert found.tolerance == 0.05 and len(found.parts) == 2
    assert (tmp_path / "out" / "compression.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("job", "file"), [("terms", "terms"), ("layers", "layers"), ("compress", "compression")])
def test_what_a_text_says_is_shown_again(command: Command, tiny: Path, tmp_path: Path, job: str, file: str) -> None:
    first = command("tables", job, "--model", tiny, "--limit", 64, "--out", tmp_path / "out")
    assert first.status == 0 and f"circuits tables {job} --open" in first.out.replace("\n", "")
    shown = command("tables", job, "--open", tmp_path / "out" / f"{file}.json", "--out", tmp_path / "again")
    before, source = first.out.partition("Files in")[0], " that the model wrote itself"
    assert source in before and shown.out.partition("Files in")[0] == before.replace(source, "")
    written = {path.name for path in (tmp_path / "out").iterdir()} - {f"{file}.json"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == written and f"{file}.png" in written


def test_the_model_writes_its_own_text(command: Command, tiny: Path, tmp_path: Path) -> None:
    answer = command("tables", "terms", "--mlps", "zero", "--model", tiny, "--limit", 64, "--out", tmp_path, "--json")
    assert json.loads(answer.out)["mlps"] == "zero"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("terms", "--token", " the"), ("No such option: --token", "tables terms --help")),
        (("--text", "missing.txt"), ("No such option: --text",)),
        (("terms", "--text", "missing.txt"), ("missing.txt",)),
        (("terms", "--mlps", "odd"), ("odd", "frozen or zero")),
        (("layers", "--kind", "odd"), ("odd", "zero or mean")),
        (("compress", "--tolerance", "nan"), ("tolerance",)),
        (("--token", "not one token"), ("expected exactly one",)),
        (("--head", "m0"), ("m0",)),
        (("--head", "a0.h99"), ("a0.h99",)),
        (("compress", "--head", "a9.h0"), ("a9.h0",)),
        (("words",), ("unexpected extra argument",)),
        (("--model", "./nowhere"), ("nowhere",)),
        (("--open", "missing.json"), ("missing.json",)),
        (("terms", "--open", "missing.json"), ("missing.json",)),
        (("layers", "--open", "missing.json", "--limit", "5"), ("computes nothing", "--limit")),
        (("terms", "--context", "5"), ("No such option: --context",)),
        (("--tolerance", "0.1"), ("No such option: --tolerance",)),
    ],
)
def test_what_is_wrong_is_said_in_one_line(command: Command, tmp_path: Path, arguments: tuple, words: tuple) -> None:
    check_one_line(command("tables", *arguments, "--out", tmp_path / "out" / "deep"), *words)
    assert not (tmp_path / "out").exists(), "a failed run leaves nothing behind"
