"""Names of two words, old spellings, and help that is whole on a narrow terminal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuits.cli import app
from circuits.cli.dispatch import FORMER, ORDER, renamed
from circuits.patching import AttentionTrace
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

NAMES = sorted(one.name or one.callback.__name__ for one in app.registered_commands if one.callback)


def test_every_file_registers_its_command() -> None:
    files = (Path(__file__).parents[2] / "circuits" / "cli" / "commands").glob("*.py")
    assert {name.replace(" ", "_") for name in NAMES} == {file.stem for file in files} - {"__init__"}
    assert set(ORDER) <= {name for name in NAMES if " " not in name}


def test_commands_are_listed_in_their_order(command: Command) -> None:
    listed = command("--help").out.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in listed]
    rest = sorted({name for name in NAMES if " " not in name} - {*ORDER})
    assert names == [*ORDER, *rest], "those that the order does not name follow, by name"


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_is_whole_at_80_columns(command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = command(*name.split(), "--help")
    assert answer.status == 0 and answer.err == ""
    for line in answer.out.splitlines()[1:]:  # the first one has "..." where an argument may be repeated
        assert len(line) <= 80 and "…" not in line and "..." not in line, line


@pytest.mark.parametrize("name", [name for name in NAMES if " " in name])
def test_help_of_a_command_names_its_subcommands(command: Command, name: str) -> None:
    assert f"  circuits {name} " in command(name.split()[0], "--help").out
    assert f"circuits {name} " in command(*name.split(), "--help").out, "its examples"


def old_spellings() -> Iterator[tuple[list[str], list[str]]]:
    """A command line as it was written, and as it is written now."""
    for (command, option), (name, has_value) in FORMER.items():
        value = ["x"] if has_value else []
        yield [command, option, *value], [command, name, *value]
        yield [command, "a b", "--out", "o", option, *value, "--json"], [command, name, *value, "a b", "--out", "o", "--json"]
        if has_value:
            yield [command, f"{option}=x", "y"], [command, name, "x", "y"]
            yield [command, option], [command, name]


@pytest.mark.parametrize(("old", "new"), list(old_spellings()))
def test_an_option_that_has_become_a_subcommand_still_works(
    capsys: pytest.CaptureFixture[str], old: list[str], new: list[str]
) -> None:
    assert renamed(old) == new
    assert capsys.readouterr().err == f"Note: circuits {old[0]} {former_option(old)} is now circuits {old[0]} {new[1]}\n"
    assert renamed(new) == new and capsys.readouterr().err == "", "what is written as now is left alone"


def former_option(words: list[str]) -> str:
    return next(word.partition("=")[0] for word in words if (words[0], word.partition("=")[0]) in FORMER)


def test_what_stands_after_two_hyphens_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["lens", "--", "--train-tuned"], ["heads", "--labels", "x"], ["tables"], []):
        assert renamed(words) == words
    assert capsys.readouterr().err == ""


def test_old_and_new_spelling_answer_alike(command: Command, tiny: Path, tmp_path: Path) -> None:
    options = ("--model", tiny, "--limit", 64, "--out", tmp_path, "--json")
    new, old = command("tables", "layers", *options), command("tables", "--layers", *options)
    assert old.status == new.status == 0 and old.out == new.out
    assert old.err.replace("\r", "\n").splitlines()[0] == "Note: circuits tables --layers is now circuits tables layers"


def test_a_subcommand_wins_over_a_prompt_of_its_name(command: Command, tmp_path: Path) -> None:
    check_one_line(command("attention", "labels"), "name a file of sentences")
    answer = command("attention", "--prompt", "labels", "--out", tmp_path, "--json")
    assert "".join(row["token"] for row in json.loads(answer.out)["tokens"]).endswith("labels")
    assert command("attention", "labels are", "--out", tmp_path / "b").out.startswith("Attention of mini: labels are")
    assert command("attention", "--out", tmp_path / "c", "labels").out.startswith("Attention of mini: labels\n")
    assert len(AttentionTrace.load(tmp_path / "c" / "attention.json")) == 1


def test_trace_takes_its_prompt_either_way(command: Command, tiny: Path, tmp_path: Path) -> None:
    options = ("--subject", "France", "--kinds", "states", "--draws", 1, "--noise", 0.1, "--model", tiny, "--json")
    new = command("trace", "The capital of France is", *options, "--out", tmp_path)
    old = command("trace", "--prompt", "The capital of France is", *options, "--out", tmp_path)
    assert new.status == 0 and json.loads(new.out)["prompt"] == "The capital of France is" and old.out == new.out
    assert "Note:" not in old.err, "--prompt is a way to give the prompt, as in other commands"
    check_one_line(command("trace", "a", "--prompt", "a", "--subject", "a"), "PROMPT and --prompt")


@pytest.mark.parametrize("arguments", [("--minimal-pairs", "x.jsonl"), ("x.json",), ("--facts", "x.json")])
def test_probe_says_where_its_former_work_went(command: Command, arguments: tuple) -> None:
    check_one_line(command("probe", *arguments), "circuits probe is now circuits behaviour")
