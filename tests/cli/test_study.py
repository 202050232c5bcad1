"""`circuits study`: its files, what it reads again, and one line for what cannot be asked."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuits.cli.commands.study import FILES, TASK_FILES
from circuits.cli.report import Report, Table
from circuits.cli.reports.study import markdown
from circuits.graph import Circuit
from circuits.search import Study, StudyPlan
from circuits.search.judging.verdict import HALF, SIGNIFICANT
from circuits.search.studying import plan as planning
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line


def numbers_in(value: Any) -> Iterator[float]:
    """Every number of a document."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(one)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few prompts and small circuits."""
    monkeypatch.setattr(planning, "USUAL", (8, 4, False))
    monkeypatch.setattr(planning, "LADDER", ((8, 4, False), (8, 4, False)))
    monkeypatch.setattr(planning, "LEAST", 20)


def test_a_study_writes_all_and_a_second_one_reads_it(command: Command, tmp_path: Path) -> None:
    words = ["study", "--tasks", "gendered-pronoun,facts:no such", "--out", tmp_path]
    check_one_line(command(*words), "no relation")
    words[2] = "pronouns"
    answer = command(*words, "--pictures", "png,svg")
    assert answer.status == 0, answer.err
    task = tmp_path / "gendered-pronoun"
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "study.svg", task.name}
    assert {"studied.json", "circuit.json", "circuit.svg", "verdict.json", "prompts.json"} <= {
        path.name for path in task.iterdir()
    }
    study, plan = Study.load(tmp_path / "study.json"), StudyPlan.load(tmp_path / "plan.json")
    assert study.circuits[0].edges == len(Circuit.load(task / "circuit.json")) and plan.behaviours == study.behaviours
    saved = [*numbers_in(json.loads((tmp_path / "study.json").read_text()))]
    for name in ("behaviours.csv", "overlaps.csv"):
        with (tmp_path / name).open(newline="") as file:
            saved += [float(cell) for row in csv.reader(file) for cell in row if re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", cell)]
    page = (tmp_path / "study.md").read_text().split("What this does not show")[0]
    shown = re.findall(r"(-?[0-9]+\.([0-9]+)|[0-9]+(?=%))", page.replace("95 %", ""))
    saved += [SIGNIFICANT, HALF]  # which the legend names
    assert len(shown) > 12
    for number, digits in shown:
        scale, step = (1, 0.5 * 10 ** -len(digits)) if digits else (100, 0.5)
        assert any(abs(scale * value - float(number)) <= 1.001 * step for value in saved), f"{number} is in no file"
    made = {path: path.stat().st_mtime_ns for path in task.iterdir()}
    again = command(*words, "--json")
    assert {path: path.stat().st_mtime_ns for path in task.iterdir()} == made, "nothing is made anew"
    assert json.loads(again.out)["study"] == study.as_json()
    command_line = json.loads(again.out)["again"]["gendered-pronoun"].split()[1:]
    saved_line = Circuit.load(task / "circuit.json").metadata["command"]
    assert saved_line == json.loads(again.out)["again"]["gendered-pronoun"], "so a page of the circuit tells it"
    alone = command(*command_line, "--out", tmp_path / "alone")
    assert alone.status == 0, alone.err
    for name in ("circuit.json", "edges.csv"):
        assert (tmp_path / "alone" / name).read_bytes() == (task / name).read_bytes(), "every number again"
    assert {path.name for path in task.glob("*.json")} <= set(TASK_FILES)


def test_what_cannot_be_asked_is_one_line(command: Command, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    check_one_line(command("study", "--tasks", "induction,riddles", *out), "riddles", "induction")
    check_one_line(command("study", "--tasks", "ioi,ioi", *out), "names ioi twice")
    check_one_line(command("study", "--tasks", ",", *out), "--tasks")
    check_one_line(command("study", "--tasks", "none.csv", *out), "none.csv")
    for budget in ("soon", "0m", "-3"):
        check_one_line(command("study", f"--budget={budget}", *out), "--budget", "10m")
    check_one_line(command("study", "--tasks", "pronouns", "--budget", "1s", *out), "too small", "gendered-pronoun alone takes")
    check_one_line(command("study", "--pictures", "gif", *out), "--pictures", "png, svg, pdf")
    assert not (tmp_path / "out").exists()


def test_what_stands_in_a_page_is_text() -> None:
    table = Table(("a|b", "c"), [("<b>", "*x*"), ("1\n2", "`y`")], below="[link](javascript:alert(1))")
    page = markdown(Report(heading="# one <script>", parts=[table, "<img src=x>\n- item"]))
    assert not re.search(r"(?<!\\)[<>\[\]*`]", page), "no markup but that of the page"
    assert page.splitlines()[0] == r"# \# one \<script\>" and len(page.split("|---|---|\n")) == 2
