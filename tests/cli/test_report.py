"""A report as text and as JSON, and the setting that answers with it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuits.cli.loading import naming_options
from circuits.cli.progress import ProgressBars
from circuits.cli.report import Pairs, Report, Table, records, written
from circuits.cli.settings import Setting
from circuits.cli.text import quoted
from circuits.errors import MemoryBudgetError, ModelError

REPORT = Report(
    heading="mini: two nodes",
    parts=[
        Table(("node", "effect"), [("a0.h1", "+0.5"), ("m3", "-1.25")], below="... and 3 more"),
        "a note",
        Table(("x",), [("1",)], "A title"),
        Pairs("Columns", [("effect", "what is lost")]),
    ],
    data={"model": "mini", "effects": [0.5, -1.25]},
    files={"a.json": "everything", "a.png": "drawn", "more/1.png": "one", "more/2.png": "two"},
    next=[("circuits info x", "again"), ("circuits " + "x" * 80, "long")],
)
TEXT = """\
mini: two nodes

node    effect
a0.h1     +0.5
m3       -1.25
... and 3 more

a note

A title
  x
  1

Columns
  effect   what is lost

Files in out
  a.json   everything
  a.png    drawn
  more/    each of 2 by itself

Try next
  circuits info x   again
  circuits {}
      long""".format("x" * 80)


def test_a_report_as_text_and_as_json() -> None:
    assert REPORT.text(Path("out")) == TEXT
    found = REPORT.as_json(Path("out"))
    assert list(found) == ["model", "effects", "files"] and found["files"]["more/1.png"] == str(Path("out", "more", "1.png"))
    assert [table.title for table in REPORT.tables] == ["", "A title"] and REPORT.notes == ["a note"]
    assert REPORT.pictures == ["a.png", "more/1.png", "more/2.png"]


def test_what_is_empty_leaves_no_gap() -> None:
    assert Report(heading="h", parts=["", "x"]).text(Path("out")) == "h\n\nx"
    assert Report(heading="h").as_json(Path("out")) == {"files": {}}


def test_nothing_in_it_is_obeyed_by_a_terminal() -> None:
    report = Report(heading="h", parts=[Table(("a",), [("\x1b[31m",)])], files={"a": "x\ny \x1b[0m"})
    assert "\x1b" not in report.text(Path("o\x1but"))


def test_files_are_those_that_were_written(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("")
    (tmp_path / "c").write_text("")
    assert written(tmp_path, {"a": "1", "b": "2"}) == {"b": "2"}


def test_records_are_plain_values() -> None:
    rows = records(pd.DataFrame({"name": ["a", "b"], "value": [1.5, float("nan")], "count": [1, 2]}))
    assert rows == [{"name": "a", "value": 1.5, "count": 1}, {"name": "b", "value": None, "count": 2}]
    json.dumps(rows, allow_nan=False)


def test_a_setting_answers_in_the_form_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    Setting(job="heads", out=Path("out")).answer(REPORT)
    assert capsys.readouterr().out == TEXT + "\n"
    Setting(job="heads", out=Path("out"), as_json=True).answer(REPORT)
    assert json.loads(capsys.readouterr().out) == REPORT.as_json(Path("out"))


def test_a_setting_says_how_to_go_on() -> None:
    setting = Setting(job="tables", model="my model", memory=3)
    assert setting.budget == 3 * 2**20 and setting.folder == Path("out/tables-my-model")
    assert setting.command("lens", "a prompt") == "circuits lens 'a prompt' --model 'my model'"
    again = f"circuits tables terms --open {Path('out', 'tables-my-model', 'terms.json')}"
    assert setting.opening("terms.json", "terms") == (again, "this result again")
    assert setting.beside(Path("a/b.json")).folder == Path("a")
    assert Setting(job="x", out=Path("o")).beside(Path("a/b.json")).folder == Path("o")
    assert Setting(job="x").command("info", "y") == "circuits info y"


def test_a_setting_works_in_whole_steps(tmp_path: Path) -> None:
    setting = Setting(job="x", out=tmp_path / "new")
    with pytest.raises(MemoryBudgetError, match=r"12 MiB \(--limit\)$"), setting.work(options="--limit") as (staging, _):
        (staging / "half").write_text("")
        raise MemoryBudgetError("12 MiB")
    assert not list(tmp_path.iterdir())
    with setting.work() as (staging, progress):
        progress("step", 1, 1)
        (staging / "old").write_text("")
    with setting.work(replacing=["old"]) as (staging, _):
        (staging / "whole").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["whole"]
    with pytest.raises(MemoryBudgetError, match="other values of --count"), naming_options("--count"):
        raise MemoryError


@pytest.mark.parametrize("wrong", [{"device": "meta"}, {"dtype": "int8"}, {"model": "./nowhere"}])
def test_a_model_that_cannot_be_had(wrong: dict[str, str]) -> None:
    options: dict[str, Any] = wrong
    with pytest.raises(ModelError, match=next(iter(wrong.values()))), ProgressBars() as progress:
        Setting(job="x", **options).load(progress)


@pytest.mark.parametrize(
    "word", ["plain", "two  spaces", "a 'quoted' \\ word", "<|im_start|>user\nHi\n\tthere's", "\x1b[31m é", ""]
)
def test_a_word_of_a_command_is_one_that_a_shell_reads_back(word: str) -> None:
    said = quoted(word)
    assert said.isprintable()
    read = subprocess.run(["bash", "-c", f"printf %s {said}"], capture_output=True, check=True).stdout
    assert read.decode() == word
