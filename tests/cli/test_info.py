"""`circuits info` of whatever commands save: results of every kind, marks of runs that did not finish, folders."""

import json
from pathlib import Path

import pytest

from circuits.files.unfinished import Unfinished
from circuits.report.kinds import KINDS, load_saved
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line
from tests.files import examples
from tests.files.test_results import EXAMPLES, kinds, suffix


def test_every_kind_of_result_is_known_by_its_format_and_loads() -> None:
    of_package = {kind.FORMAT: kind for kind in kinds()}
    assert set(of_package) == set(KINDS)
    for name, kind in KINDS.items():
        assert kind.result is of_package[name], name


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "circuit"])
def test_a_result_says_what_it_is(command: Command, tmp_path: Path, name: str) -> None:
    result = EXAMPLES[name]()
    file = tmp_path / f"some{suffix(result)}"
    result.save(file)
    answer = command("info", file)
    assert answer.status == 0, answer.err
    kind, again = load_saved(file)
    assert answer.out.startswith(f"{file}: {kind.what}\n") and type(again) is type(result)
    said = json.loads(command("info", file, "--json").out)
    assert said["format"] == result.FORMAT and " ".join(said["summary"].split()) in " ".join(answer.out.split())
    assert "\x1b" not in answer.out
    check_one_line(command("info", file, "--key-value-heads", 1), "--key-value-heads is about circuits")


def test_a_folder_lists_what_is_in_it_and_what_did_not_finish(command: Command, saved: Path) -> None:
    folder = saved.parent
    (folder / "empty").mkdir()
    check_one_line(command("info", folder / "empty"), "a folder without a saved result")
    (folder / "foreign.json").write_text('{"format": "theirs"}')
    examples.verdict().save(folder / "verdict.json")
    said = command("info", folder).out
    assert "2 saved results" in said and "verdict.json   a verdict on a circuit: " in said and "foreign" not in said
    mark = Unfinished(
        command="circuits x \x1b[31m", began="2026-01-01T00:00", done={"a.csv": "a\nb"}, missing={"c.csv": "", "searching": ""}
    )
    mark.save(folder / "unfinished-x.json")
    assert "did not finish (killed); not done: searching; missing: c.csv" in command("info", folder).out
    told = command("info", folder / "unfinished-x.json")
    assert told.status == 0 and "did not finish (killed)" in told.out and "a.csv   a b" in told.out and "\x1b" not in told.out
    assert json.loads(command("info", folder / "unfinished-x.json", "--json").out)["missing"] == ["c.csv", "searching"]


def test_commands_about_circuits_name_what_they_were_given(command: Command, tmp_path: Path) -> None:
    examples.verdict().save(tmp_path / "verdict.json")
    for words in (("export", "--to", "dot"), ("evaluate",)):
        check_one_line(command(words[0], tmp_path / "verdict.json", *words[1:]), "no circuit, but a file of format 'circuits-v")


def test_a_folder_whose_results_cannot_be_read_says_why(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    EXAMPLES["verdict"]().save(file)
    file.write_text(file.read_text().replace('"version": 1', '"version": 99', 1))
    for job in (("info",), ("report", "--no-model")):
        check_one_line(command(*job, tmp_path), "verdict.json", "version")
        assert [path.name for path in tmp_path.iterdir()] == [file.name], "and no page is made"
    check_one_line(command("info", tmp_path / "nowhere"), "nowhere: No such file or directory")


def test_a_table_beside_a_result_is_said_to_be_one(command: Command, saved: Path) -> None:
    table = saved.with_name("edges.csv")
    table.write_text("edge,score\na0.h1->logits,0.5\n")
    check_one_line(command("info", table), "edges.csv: a table, not a saved result", "beside it stand circuit.json")
