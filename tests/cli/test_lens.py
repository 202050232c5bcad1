"""`circuits lens`: one prompt, nodes, a tuned lens trained and used, and what a user can get wrong."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from circuits.cli.reports.lens import _grid
from circuits.lenses import Lens, LensComparison, TunedLens, logit_lens
from circuits.runs.journal import Journal
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.models import bundled

FILES = {"lens.json", "lens.csv", "lens.png", "curves.png"}
LANDS = ("France", "Italy", "Austria", "Japan", "Spain", "Egypt")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A text of some hundred tokens."""
    path = tmp_path / "book.txt"
    path.write_text(" ".join(f"The capital of {land} is a town by the sea, and they went there." for land in LANDS * 4))
    return path


def test_help_teaches_by_example(command: Command) -> None:
    answer = command("lens", "--help")
    assert answer.status == 0 and "Examples:" in answer.out and "circuits lens train" in answer.out


def test_it_runs_at_once(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    answer = command("lens", "--out", tmp_path / "out")
    assert answer.status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert answer.out.startswith("Logit lens of mini")
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[2:8]] == ["read", "resid4", "resid3", "resid2", "resid1", "resid0"]
    assert lines[3].split()[-2:] == ["·is", "·Paris"]
    for words in ("At the last token, ·is", "rank", "·Paris 98%", "Prediction depth: 2", "Files in", "Try next"):
        assert words in answer.out
    assert max(len(" ".join(line.replace(str(tmp_path), "").split())) for line in lines) <= 110
    assert Lens.load(tmp_path / "out" / "lens.json").rows[-1] == "resid4"
    assert (tmp_path / "out" / "lens.png").read_bytes().startswith(PNG)


def test_the_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = logit_lens(bundled.mini(), ", and ".join(f"the capital of {land} is" for land in LANDS), sites="residual")
    for columns in (40, 80, 160):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = _grid(lens, lens.columns()).text().splitlines()
        assert columns - 25 <= max(map(len, lines)) <= columns and "of 47 tokens" in lines[-1]
        assert lines[0].endswith("·is"), "the last tokens are shown"


def test_files_and_json_say_the_same(command: Command, tmp_path: Path) -> None:
    options = ("--answer", " Paris", "--nodes", "a1.h2, m3,a0.h1+m2.n5", "--sublayers", "--top", 3, "--out", tmp_path)
    found = json.loads(command("lens", *options, "--json").out)
    lens = Lens.load(tmp_path / "lens.json")
    assert found["target"] == " Paris" and lens.answered and found["lens"] == "logit"
    assert [row["row"] for row in found["rows"]] == list(lens.rows)
    assert lens.rows[-3:] == ("a1.h2", "m3", "a0.h1+m2.n5") and "mid2" in lens.rows
    for place, row in enumerate(found["rows"]):
        assert row["rank"] == int(lens.rank[place, 0, -1]) and len(row["top"]) == 3
        assert row["top_token_by_position"][-1] == row["top"][0]["token"]
    with (tmp_path / "lens.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * len(lens.rows)
    assert float(rows[-1]["probability"]) == pytest.approx(found["rows"][-1]["probability"])
    assert set(found["files"]) == FILES and all(Path(path).is_file() for path in found["files"].values())
    report = command("lens", *options).out
    assert "the answer ·Paris" in report and "Rows of nodes" in report
    again = command("lens", "--open", tmp_path / "lens.json", "--out", tmp_path / "again")
    read, shown = report.partition("Files in")[0], again.out.partition("Files in")
    assert shown[0] == read and "lens.csv" in shown[2] and "lens.json" not in shown[2]
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES - {"lens.json"}
    whole = json.loads(command("lens", *options, "--json").out)
    shown = json.loads(command("lens", "--open", tmp_path / "lens.json", "--json").out)
    assert shown.pop("files") == {name: path for name, path in whole.pop("files").items() if name != "lens.json"}
    assert shown == whole
    for given in (["PROMPT"], ["--top", 5], ["--answer", " Rome"], ["--no-bos"], ["--prompt", "Hi"], ["--model", "mini"]):
        said = given[0].replace("--no-", "--")
        check_one_line(command("lens", "--open", tmp_path / "lens.json", *given), "computes nothing", said)


def test_a_result_that_is_opened_again_leaves_others_alone(command: Command, tmp_path: Path) -> None:
    command("lens", "The capital of Italy is", "--out", tmp_path)
    (tmp_path / "lens.json").rename(tmp_path / "italy.json")
    command("lens", "--out", tmp_path)
    before = (tmp_path / "lens.json").read_bytes()
    assert "·Italy" in command("lens", "--open", tmp_path / "italy.json").out
    assert (tmp_path / "lens.json").read_bytes() == before


def test_bos_can_be_left_out(command: Command, tmp_path: Path) -> None:
    found = json.loads(command("lens", "--no-bos", "--out", tmp_path, "--json").out)
    assert len(found["tokens"]) == 6 and found["bos"] is False
    told = command("lens", "--no-bos", "--out", tmp_path)
    assert "prompts get no '<|bos|>' in front, which the tokenizer puts there" in told.err.splitlines()
    steps = [line for line in told.out.splitlines() if line.startswith("  circuits ")]
    assert steps and all(line.count("--no-bos") == 1 for line in steps)


def test_a_training_that_is_interrupted_goes_on_to_the_same_bytes(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, book: Path
) -> None:
    from circuits.lenses import training

    out = tmp_path / "out"
    asked = ("lens", "train", out / "tuned.safetensors", "--text", book, "--steps", 4, "--out", out)
    monkeypatch.setattr("circuits.runs.runner._SECONDS", 0.0)
    monkeypatch.setattr("circuits.runs.runner._SHARE", 0)
    monkeypatch.setattr("circuits.cli.running.WORTH", 0.0)
    step, taken = training._LensCourse.step, list[int]()

    def stopped(self: training._LensCourse, number: int) -> None:
        if number == 2 and taken.count(2) == 0:
            taken.append(2)
            raise KeyboardInterrupt
        taken.append(number)
        step(self, number)

    assert command(*asked).status == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    shutil.rmtree(out)
    monkeypatch.setattr(training._LensCourse, "step", stopped)
    first = command(*asked)
    assert first.status == 130 and "the same command goes on from there" in first.err.splitlines()[-1]
    assert {path.name for path in out.iterdir()} == {"unfinished-lens-train.journal", "unfinished-lens-train.journal.state"}
    again = command(*asked)
    assert again.status == 0 and "going on with the run begun" in again.err and taken == [0, 1, 2, 2, 3]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_a_run_that_was_killed_when_all_was_done_leaves_nothing(command: Command, tmp_path: Path, book: Path) -> None:
    out = tmp_path / "out"
    asked = ("lens", "train", out / "tuned.safetensors", "--text", book, "--steps", 2, "--out", out)
    assert command(*asked).status == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    Journal.open(out / "unfinished-lens-train.journal", {}).close(remove=False)  # as behind the lens's own file
    assert command(*asked).status == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_a_tuned_lens_is_trained_compared_and_used(command: Command, tmp_path: Path, book: Path) -> None:
    file = tmp_path / "tuned" / "tuned.safetensors"
    asked = ("lens", "train", file, "--text", book, "--steps", 2, "--out", tmp_path / "out")
    first = command(*asked)
    assert first.status == 0 and first.out.startswith("Tuned lens of mini")
    for words in ("bits a token on 2 held-out prompts", "logit lens", "gain", "comparison.png", "--tuned"):
        assert words in first.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"comparison.json", "comparison.png"}
    comparison = LensComparison.load(tmp_path / "out" / "comparison.json")
    lens = TunedLens.load(file, bundled.mini())
    assert len(lens.losses) == 2 and comparison.logit.shape == (4, 2)
    content = file.read_bytes()
    again = command(*asked, "--json")
    assert file.read_bytes() == content and json.loads(again.out)["comparison"] == comparison.to_dataframe().to_dict("records")
    used = json.loads(command("lens", "The cat", "--tuned", file, "--out", tmp_path / "used", "--json").out)
    assert used["lens"] == "tuned" and used["comparison"] is None
    check_one_line(command(*asked, "--seed", 3), "tuned.safetensors", "another training")


def test_a_model_with_random_weights(command: Command, tmp_path: Path, tiny: Path, book: Path) -> None:
    answer = command("lens", "Hi there", "--model", tiny, "--out", tmp_path, "--dtype", "float64")
    assert answer.status == 0 and "resid2" in answer.out and f"--model {tiny}" in answer.out.replace("\n", "")
    other = tmp_path / "tuned.safetensors"
    TunedLens.identity(bundled.mini()).save(other)
    check_one_line(command("lens", "Hi", "--model", tiny, "--tuned", other, "--out", tmp_path), "was trained for mini")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--answer", " Constantinople the second"], ["expected one"]),
        (["--nodes", "a9.h0"], ["a9.h0"]),
        (["--nodes", "wisdom"], ["'wisdom'"]),
        (["--nodes", ","], ["--nodes"]),
        (["Hi", "--prompt", "there"], ["PROMPT and --prompt"]),
        (["--text", "x.txt"], ["No such option: --text"]),
        (["--tuned", "x.safetensors", "--sublayers"], ["--sublayers", "leave out one"]),
        (["--tuned", "nowhere.safetensors"], ["nowhere.safetensors", "No such file"]),
        (["a " * 200], ["longer than the 128"]),
        (["--model", "./nowhere"], ["./nowhere"]),
        (["--device", "abacus"], ["abacus"]),
    ],
)
def test_what_cannot_be_done_is_one_line(command: Command, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    check_one_line(command("lens", "--out", tmp_path / "out", *arguments), *words)
    assert not (tmp_path / "out").exists(), "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.safetensors"], ["Missing option '--text'", "lens train --help"]),
        ([], ["Missing argument 'FILE'"]),
        (["x.txt", "--text", "x.txt"], ["x.txt", ".safetensors"]),
        (["x.safetensors", "--text", "nowhere.txt"], ["nowhere.txt", "No such file"]),
        (["x.safetensors", " ", "--text", "x.txt"], ["the prompt is empty"]),
        (["x.safetensors", "--tuned", "y.safetensors", "--text", "x.txt"], ["No such option: --tuned"]),
    ],
)
def test_a_training_that_cannot_be_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_one_line(command("lens", "train", *arguments), *words)
    assert not list(tmp_path.iterdir()), "nothing is left behind"
