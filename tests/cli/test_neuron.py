"""`circuits neuron`: one neuron, lists of them, saved reports, and what a user can get wrong."""

import csv
import json
from pathlib import Path

import pytest

from circuits.lenses import KeyValueAgreement, NeuronReport, Triggers
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

ONE = {"neuron.json", "triggers.csv", "neuron.png"}
MANY = {"neurons.csv", "triggers.safetensors", "agreement.json", "agreement.png", "activity.png"}
HELD = {"clamp.json", "clamp.png"}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A short text."""
    path = tmp_path / "book.txt"
    path.write_text("The sea is deep and the river runs to it. A boat on the sea [[waits]] for the wind.\n" * 12)
    return path


def test_help_teaches_by_example(command: Command) -> None:
    answer = command("neuron", "--help")
    assert answer.status == 0 and "Examples:" in answer.out and "circuits neuron m3.n457" in answer.out


def test_one_neuron_with_its_files(command: Command, tmp_path: Path, book: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    answer = command("neuron", "m1.n7", "--text", book, "--model", tiny, "--top", 4, "--through", "a1.h0", "--out", out)
    assert answer.status == 2
    check_one_line(answer, "name a head of a later layer")
    assert not out.exists(), "nothing is written"
    answer = command("neuron", "m0.n7", "--text", book, "--model", tiny, "--top", 4, "--through", "a1.h0", "--out", out)
    assert answer.status == 0 and {path.name for path in out.iterdir()} == ONE
    report = NeuronReport.load(out / "neuron.json")
    assert (report.neuron, report.through, len(report.triggers)) == ("m0.n7", "a1.h0", 4)
    for words in (
        "m0.n7, active at",
        "trigger",
        "activation",
        "next token",
        "raises",
        "written by",
        "read by",
        "Files in",
        "--clamp",
    ):
        assert words in answer.out
    assert f"[[{report.triggers[0].tokens[report.triggers[0].at]}]]" in answer.out, "the trigger is marked"
    with (out / "triggers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["activation"]) for row in rows][:4] == [one.activation for one in report.triggers] and len(rows) == 8
    again = command("neuron", "--open", out / "neuron.json", "--json")
    shown = json.loads(again.out)
    files = shown.pop("files")
    assert set(files) == ONE - {"neuron.json"} and shown == json.loads(json.dumps(report.as_json()))


def test_a_neuron_is_held_on_a_prompt(command: Command, tmp_path: Path, book: Path, tiny: Path) -> None:
    options = ("--text", book, "--model", tiny, "--out", tmp_path / "out")
    answer = command("neuron", "m1.n7", *options, "--clamp", 9, "--prompt", "The sea", "--json")
    found = json.loads(answer.out)
    assert found["clamp"]["clamped"] == {"m1.n7": 9.0} and found["clamp"]["prompt"] == "The sea"
    assert found["clamp"]["kl"] > 0 and set(found["files"]) == ONE | HELD
    assert all(row["after"] > row["before"] for row in found["clamp"]["rising"])
    shown = command("neuron", "m1.n7", *options, "--clamp", 9).out
    assert "m1.n7 held at 9" in shown and "It continues" in shown and "before" in shown
    command("neuron", "m1.n7", *options)
    assert {path.name for path in (tmp_path / "out").iterdir()} == ONE, "pictures of an earlier question are taken away"


def test_a_layer_is_listed_beside_chance(command: Command, tmp_path: Path, book: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    answer = command("neuron", "m1", "--text", book, "--model", tiny, "--top", 3, "--out", out)
    assert answer.status == 0 and {path.name for path in out.iterdir()} == MANY
    assert "by chance" in answer.out and "m1 " in answer.out and "Try next" in answer.out
    triggers, agreement = Triggers.load(out / "triggers.safetensors"), KeyValueAgreement.load(out / "agreement.json")
    with (out / "neurons.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(triggers.names) == 128 and agreement.layers == (1,)
    found = json.loads(command("neuron", "--text", book, "--limit", 60, "--model", tiny, "--out", out, "--json").out)
    assert found["agreement"]["layers"] == [0, 1] and len(found["neurons"]) == 10 and set(found["files"]) == MANY
    assert all(0 <= row["agreement"] <= 1 for row in found["neurons"])


def test_the_bundled_model_needs_no_text(command: Command, tmp_path: Path) -> None:
    answer = command("neuron", "m3.n457", "--out", tmp_path / "out")
    assert answer.status == 0 and "[[" in answer.out and "mini: m3.n457" in answer.out
    few = json.loads(command("neuron", "m3.n457", "--limit", 300, "--out", tmp_path / "out", "--json").out)
    assert 200 < few["places"] <= 300, "of its own text too"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a0.h1",), "a0.h1 is no neuron and no MLP"),
        (("neuron7",), "'neuron7' is not a node"),
        (("m9.n0",), "no node m9.n0"),
        (("m0.n9999",), "m0.n9999"),
        (("m0", "--clamp", "3"), "--clamp is about one neuron"),
        (("--through", "a1.h0"), "--through is about one neuron"),
        (("m0.n1", "--through", "m1"), "m1 is no head"),
        (("m0.n1", "--through", "a1.h9"), "a1.h9"),
        (("m0.n1", "--prompt", "x"), "needs --clamp"),
        (("m0.n1", "--clamp", "nan"), "expected a finite number"),
        (("m0.n1", "--clamp", "1", "--prompt", "x" * 70), "a prompt of 7"),
        (("m0.n1", "--text", "missing.txt"), "missing.txt: No such file"),
        (("m0.n1", "--open", "missing.json"), "leave out NEURON"),
        (("--open", "missing.json"), "leave out --model"),
        (("m0.n1", "--model", "no-such-model"), "no-such-model"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    command: Command, tiny: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    model = () if "--model" in arguments else ("--model", tiny)
    answer = command("neuron", *arguments, *model, "--out", tmp_path / "out")
    check_one_line(answer, words)
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_texts_that_are_none_are_refused(command: Command, tiny: Path, tmp_path: Path) -> None:
    check_one_line(command("neuron", "--open", tmp_path / "missing.json"), "missing.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    check_one_line(command("neuron", "m0.n1", "--model", tiny, "--text", tmp_path / "bytes"), "not UTF-8 text: byte")
    (tmp_path / "empty").write_text("")
    check_one_line(command("neuron", "m0.n1", "--model", tiny, "--text", tmp_path / "empty"), "too short")
