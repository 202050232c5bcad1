"""Commands that are stopped half-way and go on in the same bytes, computing nothing twice; each is a row here."""

from pathlib import Path

import pytest

from circuits.cli import running
from tests.cli.conftest import Command
from tests.cli.test_running import Counting, bytes_of

JOBS = {
    "explain a neuron": "explain m0.n7 --text TEXT --top 6",
    "explain a layer": "explain m1 --neurons 0-3 --text TEXT --top 4",
    "explain a module": "explain a1.h0 --sasc --text TEXT",
    "compose": "compose m1.n3 m0.n5 --text TEXT --share 0.1 --moves 2 --length 2",
}


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.mark.parametrize("job", JOBS)
def test_a_stopped_command_goes_on_in_the_same_bytes(
    command: Command, tiny: Path, tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setattr(running, "WORTH", 0.0)
    (tmp_path / "text.txt").write_text("\n".join(f"On day {n} ship {n * n} went by; a boat waited." for n in range(40)))
    words = [str(tmp_path / "text.txt") if word == "TEXT" else word for word in JOBS[job].split()]
    ask = (*words, "--model", tiny)
    assert command(*ask, "--out", tmp_path / "whole").status == 0
    whole, counting.done = counting.done, 0
    counting.most = whole // 2 + 1
    assert whole > 2 and command(*ask, "--out", tmp_path / "out").status == 130
    counting.most = 10**9
    ended = command(*ask, "--out", tmp_path / "out")
    assert ended.status == 0 and f": {whole // 2 + 1} shards" in ended.err
    assert counting.done == whole, "none was computed twice"
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
