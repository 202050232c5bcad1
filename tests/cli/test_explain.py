"""`circuits explain`: a neuron, a layer that goes on, a module, saved results, and what a user can get wrong."""

import csv
import json
from pathlib import Path

import pytest

from circuits.lenses import Explanations, ModuleExplanation, NeuronExplanation
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

ONE = {"explanation.json", "simulated.csv", "explanation.png"}
MANY = {"explanations.json", "explanations.csv", "explanations.png"}
SASC = {"sasc.json", "sasc.csv", "sasc.png"}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A text of different lines."""
    path = tmp_path / "book.txt"
    path.write_text(
        "\n".join(f"On day {n} of {n % 7} weeks ship {n * n} went by; a boat [[waited]] for wind." for n in range(90))
    )
    return path


def test_one_neuron_with_its_files(command: Command, tmp_path: Path, book: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    answer = command("explain", "m0.n7", "--text", book, "--model", tiny, "--top", 10, "--out", out)
    assert answer.status == 0 and {path.name for path in out.iterdir()} == ONE, answer.err
    found = NeuronExplanation.load(out / "explanation.json")
    assert found.neuron == "m0.n7" and len(found.held) == 10 and found.explanation in answer.out
    for words in ("looks for", "held out", "95 % interval", "together", "simulated", "Files in", "circuits neuron m0.n7"):
        assert words in answer.out
    with (out / "simulated.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["simulated"]) for row in rows] == [value for one in found.simulated for value in one]
    shown = json.loads(command("explain", "--open", out / "explanation.json", "--json").out)
    files = shown.pop("files")
    assert set(files) == ONE - {"explanation.json"} and shown == json.loads(json.dumps(found.as_json()))


def test_a_layer_goes_on_where_it_was_stopped(command: Command, tmp_path: Path, book: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    options = ("--text", book, "--model", tiny, "--top", 4, "--out", out)
    answer = command("explain", "m1", "--neurons", "0-2,5", *options)
    assert answer.status == 0 and {path.name for path in out.iterdir()} == MANY and "4 of 4 neurons explained" in answer.out
    document = json.loads((out / "explanations.json").read_text())
    document["neurons"][0]["explanation"] = "was there before"
    (out / "explanations.json").write_text(json.dumps(document))
    again = json.loads(command("explain", "m1", "--neurons", "0-4", *options, "--json").out)
    assert [row["neuron"] for row in again["neurons"]] == [f"m1.n{n}" for n in range(5)]
    assert again["neurons"][0]["explanation"] == "was there before", "what is there is not done again"
    other = json.loads(command("explain", "m1", "--neurons", "0", *options, "--seed", 1, "--json").out)
    assert other["neurons"][0]["explanation"] != "was there before", "other settings are another table"
    assert "1 of 1 neurons explained" in command("explain", "--open", out / "explanations.json").out
    assert Explanations.load(out / "explanations.json").seed == 1


def test_a_module_by_words(command: Command, tmp_path: Path, book: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    answer = command("explain", "a1.h0", "--sasc", "--towards", "e", "--text", book, "--model", tiny, "--out", out)
    assert answer.status == 0 and {path.name for path in out.iterdir()} == SASC, answer.err
    found = ModuleExplanation.load(out / "sasc.json")
    assert found.reads == "its output along a direction" and "what does a1.h0 answer to?" in answer.out
    assert "what does a1.h0 answer to?" in command("explain", "--open", out / "sasc.json").out


def test_what_goes_to_a_server_is_said_and_one_that_is_not_there_is_one_line(
    command: Command, tmp_path: Path, book: Path, tiny: Path
) -> None:
    out, url = tmp_path / "out", "http://127.0.0.1:9/v1"
    answer = command("explain", "m0.n7", "--text", book, "--model", tiny, "--simulator", f"endpoint:{url}", "--out", out)
    assert answer.status == 2 and {path.name for path in out.iterdir()} == {"explanation.json", "unfinished-explain.json"}
    part = NeuronExplanation.load(out / "explanation.json")
    assert not part.held and "cannot be reached" in part.stopped and part.explanation in answer.out, "what is said is kept"
    lines = [line for line in answer.err.replace("\r", "\n").splitlines() if line.startswith(("To ", "Error"))]
    assert lines[0].startswith(f"To {url} go pieces of ") and "book.txt: up to 40 excerpts" in lines[0]
    assert lines[1].startswith(f"Error: {url} cannot be reached") and len(lines) == 2
    assert "Stopped early" in command("explain", "--open", out / "explanation.json").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a neuron or a layer"),
        (("a0.h1",), "others take --sasc"),
        (("m0.n7", "--neurons", "1"), "--neurons chooses neurons of a layer"),
        (("m0", "--neurons", "3-1"), "--neurons has '3-1'"),
        (("m0", "--sasc", "--neurons", "3"), "--sasc is about one module"),
        (("m0.n7", "--towards", "x"), "it needs --sasc"),
        (("m0.n7", "--explainer", "psychic"), "neither explains nor simulates"),
        (("m0.n7", "--explainer", "endpoint:nowhere"), "is no address"),
        (("m0.n7", "--text", "none.txt"), "none.txt: No such file"),
        (("--open", "none.json"), "none.json"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(command: Command, arguments: tuple[str, ...], said: str) -> None:
    check_one_line(command("explain", *arguments), said)


def test_a_saved_result_of_another_kind_is_named(command: Command, saved: Path) -> None:
    check_one_line(command("explain", "--open", saved), "holds a circuit, not an explanation; circuits info")
