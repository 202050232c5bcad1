"""Files that appear part by part: whole, of one run, marked until the last is there, also where the process is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import circuits
from circuits.cli import output
from circuits.cli.saved import shown_again
from circuits.cli.settings import Setting
from circuits.errors import FileFormatError, PromptError
from circuits.files.locking import locked
from circuits.files.staging import is_staging, staging
from circuits.files.unfinished import marks, unfinished_run
from circuits.graph import Circuit
from circuits.report import Page
from tests import HANGS
from tests.cli.conftest import Command

FILES = {"a.txt": "the first", "b.txt": "the second", "below/c-*.txt": "more", "d.txt": "not in every run"}
MARK = "unfinished-job.json"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process of its own")


def one_run(folder: Path, name: str) -> None:
    """A run that writes its name into all files, in three parts, the first of them twice."""
    with output.parts(folder, job="job", command=f"circuits job {name}", files=FILES, expected=["a.txt", "b.txt"]) as work:
        for part in (["a.txt"], ["a.txt", "b.txt"], ["below/c-1.txt", "below/c-2.txt"] if name == "old" else []):
            for file in part:
                (work.staging / file).parent.mkdir(exist_ok=True)
                (work.staging / file).write_text(f"{name}\n" * 1000)
            work.publish()


def test_a_run_takes_away_the_page_of_an_earlier_one_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<title>of my own</title>")
    one_run(tmp_path, "old")
    assert page.read_text() == "<title>of my own</title>"
    Page("of the run", []).save(page)
    one_run(tmp_path, "new")
    assert not page.exists()


def test_pictures_of_an_earlier_run_go_whatever_their_format_and_number(tmp_path: Path) -> None:
    files = {one: "" for name in ("a.png", "below/c-*.png") for one in output.pictured([name])}
    for written in (["a.svg", "below/c-1.png", "below/c-2.png"], ["a.png", "a.pdf", "below/c-1.svg"], ["a.png"]):
        with output.parts(tmp_path, job="job", command="circuits job", files=files, expected=written) as work:
            for name in written:
                (work.staging / name).parent.mkdir(exist_ok=True)
                (work.staging / name).touch()
        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
        assert left == sorted(written)


def test_a_result_shown_in_another_folder_takes_away_an_earlier_run_s_pictures(tmp_path: Path) -> None:
    known = {"found.json": "", "found.png": "", "table.csv": "", "more.csv": ""}

    def shown(folder: Path, pictures: str) -> set[str]:
        """What stands there when a result of another folder, or of this one, was shown again."""
        setting = Setting(job="job", out=folder, pictures=pictures)
        replacing, names = shown_again(known, tmp_path / "own" / "found.json", setting)
        with setting.work(replacing=replacing, names=names) as (staging, _):
            (staging / "table.csv").touch()
            (staging / f"found.{pictures}").touch()
        return {path.name for path in folder.iterdir()}

    for folder in (tmp_path / "own", tmp_path / "other"):
        folder.mkdir()
        for name in ("found.svg", "more.csv", "found.json", "mine.svg"):
            (folder / name).touch()
    assert shown(tmp_path / "other", "png") == {"table.csv", "found.png", "found.json", "mine.svg"}, "a result is no picture"
    assert shown(tmp_path / "own", "png") == {"table.csv", "found.png", "found.svg", "more.csv", "found.json", "mine.svg"}


def killed_at(call: int, work: Callable[[], None]) -> bool:
    """Run in a process that dies at its call-th change of the disk, without a chance to clean up; whether it died."""
    child = os.fork()
    if child == 0:
        counted = iter(range(call))

        def dying(change: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                if next(counted, None) is None:
                    os._exit(9)
                return change(*args, **options)

            return run

        for name in ("replace", "unlink", "rmdir", "mkdir", "rename", "remove", "open"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WEXITSTATUS(status) in (0, 9), status
    return os.WEXITSTATUS(status) == 9


def results(folder: Path) -> dict[str, str]:
    """The files of a run, with which run each is of."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.name != MARK:
            lines = path.read_text().split("\n")
            assert len(lines) == 1001 and len(set(lines[:-1])) == 1, "a file is whole"
            found[path.relative_to(folder).as_posix()] = lines[0]
    return found


OLD = dict.fromkeys(("a.txt", "b.txt", "below/c-1.txt", "below/c-2.txt"), "old")


def test_at_every_moment_a_folder_holds_whole_files_of_one_run(tmp_path: Path) -> None:
    moments = 0
    for call in range(0, 200, 2):  # every second change of the disk
        folder = tmp_path / str(call)
        one_run(folder, "old")
        (folder / "notes.txt").write_text("mine\n" * 1000)
        died = killed_at(call, lambda folder=folder: one_run(folder, "new"))
        found = results(folder)
        assert found.pop("notes.txt") == "mine", "what is not of a run stays"
        assert len(set(found.values())) <= 1, found
        complete = found == OLD or found == {"a.txt": "new", "b.txt": "new"}
        assert complete or (folder / MARK).is_file(), "a set that is not whole is marked"
        moments += died
        one_run(folder, "last")
        left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        assert left == {"a.txt", "b.txt", "notes.txt"} and set(results(folder).values()) == {"last", "mine"}
        if not died:
            break
    assert moments > 10


def test_the_mark_says_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError) as stopped,
        output.parts(tmp_path, job="job", command="circuits job --seed 1", files=FILES, expected=["a.txt", "b.txt"]) as work,
    ):
        work.publish()
        assert not list(tmp_path.glob("[!.]*")), "nothing appears before the first part"
        (work.staging / "a.txt").write_text("1")
        work.publish()
        said = unfinished_run(tmp_path / "a.txt")
        assert said is not None and "circuits job --seed 1" in said and "is still running; missing: b.txt" in said
        (work.staging / "b.txt").write_text("half")
        raise ZeroDivisionError("by nought")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", MARK], "what was not published vanishes"
    ((_, mark),) = marks(tmp_path)
    assert dict(mark.done) == {"a.txt": "the first"} and dict(mark.missing) == {"b.txt": "the second"}
    assert mark.ended == "ZeroDivisionError: by nought"
    said = unfinished_run(tmp_path / "a.txt")
    assert said is not None and "did not finish (ZeroDivisionError: by nought); missing: b.txt" in said
    assert unfinished_run(tmp_path / "other.txt") is None
    (note,) = stopped.value.__notes__
    assert note == f"saved in {tmp_path}, marked by {MARK}: a.txt; missing: b.txt"


def test_two_living_runs_leave_each_other_alone(tmp_path: Path) -> None:
    with staging(tmp_path, names=["x"], who="circuits one"):
        with staging(tmp_path, names=["y"]) as second:
            assert second.is_dir() and len(list(tmp_path.glob(".*.tmp"))) == 2
        with pytest.raises(FileFormatError, match=r"is writing x there \(circuits one\): wait"), staging(tmp_path, names=["x"]):
            pass
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert not list(tmp_path.iterdir())


def test_a_lock_that_somebody_sweeps_as_it_is_made_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    def swept(lock: Path, *, make: bool = True) -> int | None:
        """The first lock is held by a sweeper between its making and its locking."""
        tried.append(lock)
        if len(tried) == 1:
            raise BlockingIOError
        return locked(lock, make=make)

    monkeypatch.setattr("circuits.files.staging.locked", swept)
    with staging(tmp_path) as folder:
        assert folder.is_dir() and folder.stem == tried[1].stem != tried[0].stem
    assert not list(tmp_path.iterdir())


def test_to_ask_after_a_run_brings_no_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with staging(tmp_path) as folder:
        assert is_staging(tmp_path, folder.stem)
    monkeypatch.setattr(Path, "exists", lambda self: True)  # its owner removes it just after somebody has looked
    assert not is_staging(tmp_path, folder.stem)
    assert not list(tmp_path.iterdir())


def test_what_dead_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".0123abcd.tmp", ".deadbeef.tmp", ".somebody.tmp", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    for name in (".0123abcd.lock", ".89abcdef.lock", ".circuit.json.lock"):
        (tmp_path / name).touch()
    (tmp_path / ".89abcdef.tmp").mkdir()
    living = locked(tmp_path / ".89abcdef.lock")
    assert living is not None
    before = time.time() - 3 * 24 * 3600
    os.utime(tmp_path / ".deadbeef.tmp", (before, before))
    with output.staged(tmp_path):
        pass
    os.close(living)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".89abcdef.tmp", ".89abcdef.lock", ".somebody.tmp", ".circuit.json.lock", "kept"}


@pytest.fixture
def stopped_after_scores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Makes the search for induction heads end behind its first part, by what is given."""
    # Whoever is started in the background of a shell hears no SIGINT, and neither do its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nor SIGHUP under nohup

    def ends_by(stop: Callable[[], None]) -> None:
        def search(model: circuits.Model, *, found: Callable[[Any], None], **options: object) -> None:
            found(circuits.score_heads(model, seed=0))
            stop()
            raise AssertionError("the signal came to nothing")

        monkeypatch.setattr(circuits, "find_induction_circuit", search)

    yield ends_by
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGHUP, hung_up)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "word", "status"), [(2, "interrupted", 130), (15, "SIGTERM", 143), (1, "SIGHUP", 129)])
def test_a_stopped_command_says_what_it_leaves(
    command: Command, tiny: Path, tmp_path: Path, stopped_after_scores: Any, number: int, word: str, status: int
) -> None:
    out = tmp_path / "out"
    stopped_after_scores(lambda: os.kill(os.getpid(), number))
    answer = command("induction", "--model", tiny, "--out", out, "--sequences", 2)
    assert answer.status == status and "heads with most prefix matching" in answer.out, "the first table was there at once"
    last = answer.err.splitlines()[-1]
    assert last.startswith("Error: ") and word in last and f"saved in {out}" in last and "head_scores.csv" in last
    assert "circuit.json" in last.partition("missing: ")[2]
    assert {path.name for path in out.iterdir()} == {"head_scores.csv", "heads.png", "unfinished-induction.json"}
    answer = command("induction", "--model", tiny, "--out", out, "--sequences", 2, "--json")
    assert answer.status == status and answer.out == "", "no half document"


def test_a_killed_command_leaves_a_circuit_that_says_so(command: Command, tmp_path: Path) -> None:
    out, draw = tmp_path / "out", random.Random(0)
    line = [sys.executable, "-m", "circuits", "induction", "--sequences", "4", "--out", str(out)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + HANGS
    while not (out / "circuit.json").is_file() and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.02)
    time.sleep(0.3 * draw.random())
    process.kill()
    process.wait()
    circuit = Circuit.load(out / "circuit.json")
    mark = out / "unfinished-induction.json"
    if circuit.metadata["verdict"] != "unjudged":
        pytest.skip("it was judged before it could be killed")
    assert "circuit.json" in json.loads(mark.read_text())["done"]
    shown = command("info", out / "circuit.json")
    assert shown.status == 0 and shown.err.count("\n") == 1
    assert "did not finish (killed); not done: the verdict; missing: circuit.mib.json" in shown.err
    assert [path.name for path in out.iterdir() if path.name.startswith(".")], "the process had no time to clean up"
    command("induction", "--model", "./nowhere", "--out", out)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")] and mark.is_file()


@pytest.mark.parametrize(("found", "error"), [(False, PromptError), (True, PromptError), (False, KeyboardInterrupt)])
def test_a_run_that_is_refused_before_anything_is_found_leaves_nothing(
    tmp_path: Path, found: bool, error: type[BaseException]
) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(error), output.parts(out, job="job", command="circuits job", files=FILES) as work:
        (work.staging / "a.txt").touch()
        work.publish(found=False)
        (work.staging / "b.txt").touch()
        if found:
            work.publish()
        raise error("why")
    left = {path.name for path in out.iterdir()} if out.exists() else set()
    assert left == ({"a.txt", "b.txt", MARK} if found else {"a.txt", MARK} if error is KeyboardInterrupt else set())
    assert out.parent.exists() == bool(left)
