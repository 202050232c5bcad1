"""`circuits study`: its files, what it reads again, and one line for what cannot be asked."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circuits.cli.commands.study import FILES, TASK_FILES
from circuits.cli.report import Report, Table
from circuits.cli.reports.study import command_of, markdown, study_report
from circuits.cli.settings import Setting
from circuits.graph import Circuit
from circuits.search import Study, StudyPlan
from circuits.search.studying import plan as planning
from tests import HANGS
from tests.cli.conftest import Command
from tests.cli.study_numbers import check_markdown, check_page
from tests.cli.test_errors import check_one_line
from tests.files import examples


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few prompts and small circuits."""
    monkeypatch.setattr(planning, "USUAL", (8, 4, False))
    monkeypatch.setattr(planning, "LADDER", ((8, 4, False), (8, 4, False)))
    monkeypatch.setattr(planning, "usual_size", lambda graph: 20)


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
    assert check_markdown(tmp_path) == 2 and check_page(tmp_path) == 3
    made = {path: path.stat().st_mtime_ns for path in task.iterdir()}
    again = command(*words, "--json")
    assert {path: path.stat().st_mtime_ns for path in task.iterdir()} == made, "nothing is made anew"
    assert json.loads(again.out)["study"] == study.as_json()
    command_line = json.loads(again.out)["again"]["gendered-pronoun"].split()[1:]
    saved_line = str(Circuit.load(task / "circuit.json").metadata["command"]).split()[1:]
    alone = tmp_path.parent / f"{tmp_path.name}-gendered-pronoun"
    assert command_line == [*saved_line, "--out", str(alone)], "a page of the circuit tells it; it overwrites nothing"
    assert f"circuits report {tmp_path}" in answer.out and f"circuits report {tmp_path}" in (tmp_path / "study.md").read_text()
    found = command(*command_line)
    assert found.status == 0, found.err
    for name in ("circuit.json", "edges.csv", "verdict.json"):
        assert (alone / name).read_bytes() == (task / name).read_bytes(), "every number again"
    assert {path.name for path in task.glob("*.json")} <= set(TASK_FILES)


STOPPED = """
from circuits.cli import main
from circuits.search.studying import plan
plan.USUAL, plan.LADDER, plan.usual_size = (8, 4, False), ((8, 4, False), (8, 4, False)), lambda graph: 20
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name != "posix", reason="interrupts a process of its own")
def test_a_study_that_was_interrupted_goes_on_where_it_was(command: Command, tmp_path: Path) -> None:
    """A process of its own gets Ctrl-C behind its first circuit; a second study reads that, and makes the rest alone."""
    words = ["study", "--tasks", "pronouns,greater-than", "--out", str(tmp_path)]
    line = [sys.executable, "-c", STOPPED, *words]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first, ends = tmp_path / "gendered-pronoun" / "studied.json", time.monotonic() + HANGS
    while (not first.is_file() or any(first.parent.glob("unfinished-*"))) and process.poll() is None:
        assert time.monotonic() < ends
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 130, err
    assert "All of it should take" in out and "plan.json" in err.splitlines()[-1] and "study.json" in err.splitlines()[-1]
    assert not (tmp_path / "study.json").exists() and "did not finish (interrupted)" in command("info", tmp_path).out
    made = {path: path.stat().st_mtime_ns for path in first.parent.iterdir()}
    measured = StudyPlan.load(tmp_path / "plan.json").measuring
    answer = command(*words)
    assert answer.status == 0, answer.err
    assert f"(read from {first.parent})" in answer.out
    assert {path: path.stat().st_mtime_ns for path in first.parent.iterdir()} == made, "nothing of it is made anew"
    study = Study.load(tmp_path / "study.json")
    assert [one.task for one in study.circuits] == ["gendered-pronoun", "greater-than"]
    assert StudyPlan.load(tmp_path / "plan.json").measuring == measured and not list(tmp_path.glob("unfinished-*"))


def test_every_number_of_a_study_of_several_is_that_of_its_file(tmp_path: Path) -> None:
    """Also of what circuits share; and a number that is another one is found out."""
    study, plan, setting = examples.study(), examples.study_plan(), Setting(job="study")
    both = [
        dataclasses.replace(study.overlaps[0], kind=kind, shared=shared) for kind, shared in (("edges", 1234), ("heads", 1))
    ]
    circuits = [dataclasses.replace(study.circuits[0], why="", edges=1234), study.circuits[1]]
    behaviours = [study.behaviours[0], dataclasses.replace(study.behaviours[1], task="b")]
    study = dataclasses.replace(study, behaviours=tuple(behaviours), circuits=tuple(circuits), overlaps=tuple(both))
    study.save(tmp_path / "study.json")
    plan.save(tmp_path / "plan.json")
    page = markdown(study_report(study, plan, {}, {}, setting, 61.0))
    (tmp_path / "study.md").write_text(page)
    assert check_markdown(tmp_path) == 4 and check_page(tmp_path) == 4
    for shown, other in (("1,234", "1,235"), ("0.25", "0.24"), ("2 behaviours", "3 behaviours"), ("95 %", "94 %")):
        assert shown in page
        (tmp_path / "study.md").write_text(page.replace(shown, other))
        with pytest.raises(AssertionError):
            check_markdown(tmp_path)
    asked = [dataclasses.replace(circuits[0].settings, method=method) for method in (None, "refine")]
    lines = [command_of(one, "ioi", dataclasses.replace(setting, memory=64)) for one in asked]
    assert [("--method" in line, "--memory 64" in line) for line in lines] == [(False, True), (True, True)]


def test_prompts_that_were_edited_are_asked_anew(command: Command, tmp_path: Path) -> None:
    """Also where the model does not have the behaviour, and of another file of this name."""
    file, words = tmp_path / "induction.csv", ["study", "--json", "--out", tmp_path / "out", "--tasks"]
    lines = [f'{clean},{corrupt},"[""{clean}"", ""{corrupt}""]"' for clean, corrupt in ((" one", " two"), (" two", " one"))]

    def prompts(rows: list[str], *options: str, name: Path = file) -> int:
        name.parent.mkdir(exist_ok=True)
        name.write_text("\n".join(["clean,corrupted,label", *rows]))
        answer = command(*words, name, *options)
        assert answer.status == 0, answer.err
        return json.loads(answer.out)["study"]["behaviours"][0]["prompts"]

    def measured() -> tuple[bool | None, float]:
        plan = StudyPlan.load(tmp_path / "out" / "plan.json")
        return plan.prepend_bos, plan.measuring

    assert prompts(lines) == 2
    first = measured()
    assert prompts(lines) == 2 and measured() == first, "the same file is not measured again"
    assert prompts(lines[:1]) == 1
    assert prompts(lines, name=tmp_path / "other" / file.name) == 2
    assert prompts(lines, "--no-bos", name=tmp_path / "other" / file.name) == 2 and measured()[0] is False


def test_what_cannot_be_asked_is_one_line(command: Command, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    check_one_line(command("study", "--tasks", "induction,riddles", *out), "riddles", "induction")
    check_one_line(command("study", "--tasks", "ioi,ioi", *out), "names ioi twice")
    check_one_line(command("study", "--tasks", ",", *out), "--tasks")
    check_one_line(command("study", "--tasks", "none.csv", *out), "none.csv")
    for budget in ("soon", "0s", "-3"):
        check_one_line(command("study", f"--budget={budget}", *out), "--budget", "1s or more", "10m")
    check_one_line(command("study", "--pictures", "gif", *out), "--pictures", "png, svg, pdf")
    assert not (tmp_path / "out").exists()


def test_what_stands_in_a_page_is_text() -> None:
    table = Table(("a|b", "c"), [("<b>", "*x*"), ("1\n2", "`y`")], below="[link](javascript:alert(1))")
    page = markdown(Report(heading="# one <script>", parts=[table, "<img src=x>\n- item"]))
    hostile = ("a`<b>`", "``x", "two\nlines", "plain.csv")
    files: dict[str, str] = dict.fromkeys(hostile, "")
    names = markdown(Report(heading="", files=files)).partition("## Files\n\n")[2].splitlines()
    assert [name.rstrip() for name in names] == ["- `` a`<b>` ``:", "- ``` ``x ```:", "- `two lines`:", "- `plain.csv`:"]
    assert not re.search(r"(?<!\\)[<>\[\]*`]", page), "no markup but that of the page"
    assert page.splitlines()[0] == r"# \# one \<script\>" and len(page.split("|---|---|\n")) == 2
