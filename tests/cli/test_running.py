"""A command that was stopped goes on where it was, in the same bytes; other runs leave it that; workers change nothing."""

import _socket
import json
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from circuits.cli import running, worker
from circuits.cli.settings import Setting
from circuits.errors import PromptError
from circuits.runs import processes
from circuits.runs.journal import Journal
from circuits.runs.ledger import Ledger
from circuits.runs.remote import Server
from circuits.runs.runner import Own, shards
from tests.cli.conftest import Command
from tests.cli.test_errors import check_one_line

JOB = ("discover", "--method", "eap", "--edges", 6, "--count", 6, "--random-circuits", 20)


class Counting:
    """How many shards this process computed; it is interrupted after some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done, self.most = 0, 10**9
        give = Own.give

        def counted(own: Own, *args: Any) -> None:
            give(own, *args)
            self.done += 1
            if self.done == self.most:
                raise KeyboardInterrupt

        monkeypatch.setattr(Own, "give", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, those that are hidden too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_command_goes_on_in_the_same_bytes(
    command: Command, tiny: Path, tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "WORTH", 0.0)
    ask = (*JOB, "--model", tiny)
    assert command(*ask, "--out", tmp_path / "whole").status == 0
    whole, counting.done = counting.done, 0
    counting.most = whole // 2
    stopped = command(*ask, "--out", tmp_path / "out")
    assert stopped.status == 130 and "the same command goes on from there" in stopped.err.splitlines()[-1]
    assert (tmp_path / "out" / "unfinished-discover.journal").is_file()
    counting.most = 10**9
    ended = command(*ask, "--out", tmp_path / "out", "--json")
    assert ended.status == 0 and "going on with the run begun" in ended.err and f": {whole // 2} shards" in ended.err
    assert counting.done == whole, "none was computed twice"
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_what_another_run_left_is_neither_used_nor_lost(
    command: Command, tiny: Path, tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "WORTH", 0.0)
    out = ("--model", tiny, "--out", tmp_path / "out")
    counting.most = 3
    assert command(*JOB, *out).status == 130
    journal = (tmp_path / "out" / "unfinished-discover.journal").read_bytes()
    monkeypatch.setattr(running, "MUCH", 0.0)
    refused = command(*JOB, "--seed", 1, *out)
    check_one_line(refused, "of another run is kept there (circuits discover")
    assert "seed is 0 there and 1 here" in refused.err and "--fresh" in refused.err
    assert (tmp_path / "out" / "unfinished-discover.journal").read_bytes() == journal
    anew = command(*JOB, "--seed", 1, *out, "--fresh")
    assert anew.status == 0 and "going on" not in anew.err
    assert not [name for name in bytes_of(tmp_path / "out") if "unfinished" in name or name.startswith(".")]


def test_little_of_another_run_gives_way(command: Command, tiny: Path, tmp_path: Path, counting: Counting) -> None:
    out = ("--model", tiny, "--out", tmp_path / "out")
    counting.most = 3
    stopped = command(*JOB, *out)
    assert stopped.status == 130 and "kept" not in stopped.err, "a moment's work is not worth a file"
    counting.most = 10**9
    assert command(*JOB, "--seed", 1, *out).status == 0


def test_workers_share_the_work_and_change_nothing(
    command: Command, tiny: Path, tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = (*JOB, "--model", tiny)
    assert command(*ask, "--out", tmp_path / "one").status == 0
    whole, counting.done = counting.done, 0
    monkeypatch.setattr(socket.socket, "connect", _socket.socket.connect)  # to this process
    threads: list[threading.Thread] = []

    class Threads:
        """Workers in this process, which begin at once."""

        def __init__(self, module: str, count: int, about: dict[str, Any], *, threads: int, around: Any) -> None:
            assert module == worker.__name__
            for number in range(count):
                self.start({**about, "who": f"worker {number}"})

        def start(self, about: dict[str, Any]) -> None:
            """One more."""
            threads.append(threading.Thread(target=worker.work, args=(about,)))
            threads[-1].start()

        def coming(self) -> bool:
            """Whether there are any."""
            return any(thread.is_alive() for thread in threads)

        def close(self) -> None:
            """They end by themselves."""

    monkeypatch.setattr(processes, "Processes", Threads)
    begin = Own.begin

    def late(own: Own, place: int, what: str, count: int) -> None:
        begin(own, place, what, count)
        if place == 0:  # the workers take all of the first shards
            while not own.ledger.computed:
                own.ledger.waited(0.05)

    monkeypatch.setattr(Own, "begin", late)
    shared = command(*ask, "--out", tmp_path / "three", "--workers", 3)
    for thread in threads:
        thread.join(20)
    assert shared.status == 0 and len(threads) == 2 and counting.done < whole
    assert bytes_of(tmp_path / "three") == bytes_of(tmp_path / "one")


def test_a_wrong_number_of_workers_is_refused(command: Command, tiny: Path) -> None:
    assert command(*JOB, "--model", tiny, "--workers", 0).status == 2


def test_a_worker_that_can_be_of_no_use_says_why_and_ends_in_order(tmp_path: Path) -> None:
    ledger = Ledger(lambda: Journal.open(tmp_path / "x.journal", {}))
    secret, folder = secrets.token_bytes(8), tmp_path / "worker"
    server = Server(ledger, host=None, secret=secret, about=lambda: "")
    folder.mkdir()
    about = {"address": list(server.address), "secret": secret.hex(), "who": "w", "threads": 1, "cwd": str(tmp_path)}
    about |= {"words": ["discover", "--model", str(tmp_path / "nowhere")], "folder": str(folder)}
    command = [sys.executable, "-m", worker.__name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(json.dumps(about).encode() + b"\n")
        process.stdin.flush()
        said = process.stderr.read().decode()
    server.close()
    ledger.close(remove=True)
    assert process.returncode == 0 and "Fatal" not in said
    assert "nowhere" in ledger.trouble and "nowhere" in said
    assert not list(folder.iterdir())


def test_a_run_that_fails_takes_its_folders_with_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(PromptError), running.running(running.Running("job", out, {}, ["job"])):  # noqa: SIM117 (one in the other)
        with Setting(job="job", out=out).parts({"a.txt": ""}):
            assert list(shards("counting", 2, lambda shard: shard)) == [0, 1] and out.is_dir()
            raise PromptError("why")
    assert not out.parent.exists()
