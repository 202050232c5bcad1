"""A journal keeps whole records, whatever happens to its end, and belongs to one run."""

import multiprocessing
import resource
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from circuits.errors import FileFormatError
from circuits.runs.journal import Journal, plan_in
from circuits.runs.plan import difference, plan_of, require_same

PLAN = {"command": "circuits x", "options": {}, "files": {}, "about": {}}


def written(path: Path, records: int) -> bytes:
    """The bytes of a journal of so many records."""
    journal = Journal.open(path, PLAN)
    for shard in range(records):
        journal.add((0, shard), "counting", 9, 0.5, bytes([shard]) * (10 + shard))
    journal.close(remove=False)
    return path.read_bytes()


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path, 3)
    journal = Journal.open(path, {"command": "another"})
    assert journal.plan == PLAN == plan_in(path)
    assert journal.resumed == len(journal) == 3 and journal.seconds == 1.5
    assert [journal.data((0, shard)) for shard in range(3)] == [bytes([shard]) * (10 + shard) for shard in range(3)]
    journal.close(remove=True)
    assert not list(tmp_path.iterdir())


def test_a_record_cut_anywhere_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    two, three = len(written(path, 2)), written(tmp_path / "other", 3)
    for end in range(two, len(three)):
        path.write_bytes(three[:end])
        journal = Journal.open(path, PLAN)
        assert sorted(journal.entries) == [(0, 0), (0, 1)], end
        journal.add((0, 2), "counting", 9, 0.5, b"\x02" * 12)
        journal.close(remove=False)
        assert path.read_bytes() == three, end


def test_a_beginning_cut_anywhere_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    none = written(path, 0)
    for end in range(len(none)):
        path.write_bytes(none[:end])
        Journal.open(path, PLAN).close(remove=False)
        assert path.read_bytes() == none, end


def test_a_flipped_byte_ends_the_journal_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    one, two, three = (len(written(tmp_path / str(count), count)) for count in (1, 2, 3))
    whole = bytearray((tmp_path / "3").read_bytes())
    whole[(one + two) // 2] ^= 1
    path.write_bytes(whole)
    journal = Journal.open(path, PLAN)
    assert sorted(journal.entries) == [(0, 0)] and path.stat().st_size == one < three
    journal.close(remove=True)


def test_another_file_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("somebody's notes")
    with pytest.raises(FileFormatError, match="not a journal"):
        Journal.open(path, PLAN)
    assert path.read_text() == "somebody's notes" and list(tmp_path.iterdir()) == [path]


def test_what_is_of_another_course_is_cut(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", PLAN)
    for key in ((0, 1), (0, 0), (1, 0), (2, 0)):
        journal.add(key, "counting", 2, 0.1, b"data")
    journal.cut(1)
    journal.add((1, 0), "other", 5, 0.1, b"more")
    journal.close(remove=False)
    again = Journal.open(tmp_path / "journal", PLAN)
    assert sorted(again.entries) == [(0, 0), (0, 1), (1, 0)] and again.data((1, 0)) == b"more"
    again.close(remove=True)


def _hold(path: Path, told: Connection) -> None:
    Journal.open(path, PLAN)
    told.send_bytes(b"open")
    time.sleep(60)


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(path, theirs), daemon=True)
    process.start()
    assert mine.recv_bytes() == b"open"
    with pytest.raises(FileFormatError, match="another run of this command is under way"):
        Journal.open(path, PLAN)
    with pytest.raises(FileFormatError, match="another run of this command is under way"):
        Journal.discard(path)
    assert path.is_file()
    process.kill()
    process.join()
    Journal.open(path, PLAN).close(remove=False)
    Journal.discard(path)
    assert not list(tmp_path.iterdir())


def test_plans_differ_by_options_files_and_models(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text("[]")
    plan = plan_of("circuits trace", {"facts": facts, "limit": 3}, {"mini": "abc"})
    assert difference(plan, plan_of("circuits trace  --limit 3", {"limit": 3, "facts": facts}, {"mini": "abc"})) is None
    assert difference(plan, plan_of("", {"facts": facts, "limit": 4}, {"mini": "abc"})) == "limit is 3 there and 4 here"
    assert "mini is abc there" in str(difference(plan, plan_of("", {"facts": facts, "limit": 3}, {"mini": "abd"})))
    facts.write_text("[1]")
    with pytest.raises(FileFormatError, match=r"2 min of another run.*circuits trace.*facts\.json is .*--fresh"):
        require_same(tmp_path / "j", plan, plan_of("", {"facts": facts, "limit": 3}, {"mini": "abc"}), "2 min")


def test_a_full_disk_leaves_the_journal_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.journal"
    journal = Journal.open(path, PLAN)
    journal.add((0, 0), "one", 3, 0.1, b"kept")
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(OSError):
            journal.add((0, 1), "one", 3, 0.1, b"x" * 400)  # less than a buffer holds
        assert path.stat().st_size == size and (0, 1) not in journal.entries
        journal.close(remove=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert list(tmp_path.iterdir()) == [path]
    again = Journal.open(path, PLAN)
    assert again.data((0, 0)) == b"kept" and len(again) == 1
    again.close(remove=True)


def test_a_plan_knows_the_files_of_folders_and_of_lists(tmp_path: Path) -> None:
    folder, one, two = tmp_path / "dictionary", tmp_path / "a.json", tmp_path / "b.json"
    folder.mkdir()
    for file in (folder / "cfg.json", one, two):
        file.write_text("{}")
    options = {"dictionary": str(folder), "prompts": f"{one},{two}", "model": str(folder), "keep": folder}
    plan = plan_of("", options, {})
    assert set(plan["files"]) == {str(folder), str(one), str(two)}
    for file in (folder / "cfg.json", two):
        file.write_text("[]")
        assert difference(plan, plan_of("", options, {})) is not None
        file.write_text("{}")
    assert difference(plan, plan_of("", options, {})) is None
