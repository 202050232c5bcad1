"""Shards are computed once, by whoever takes part, and come in their order whoever computed them."""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.errors import CircuitsError, PromptError
from circuits.runs import Aside, Course, ShardError, shards, steps
from circuits.runs.gpus import asked_for, seen_by
from circuits.runs.journal import Journal
from circuits.runs.ledger import Done, Ledger, Lost, Take
from circuits.runs.payload import encoded
from circuits.runs.processes import Processes
from circuits.runs.remote import Remote, RunOver, Server
from circuits.runs.runner import Own, Runner, joining


def ledger_at(path: Path) -> Ledger:
    """A ledger whose journal is that file."""
    return Ledger(lambda: Journal.open(path, {}))


@contextlib.contextmanager
def run_in(path: Path, *, remove: bool = False) -> Iterator[Ledger]:
    """The shards of the block are kept in a journal."""
    ledger = ledger_at(path)
    try:
        with joining(Runner(Own(ledger))):
            yield ledger
    finally:
        ledger.close(remove=remove)


def program(seen: list[tuple[str, int]], *, stop: tuple[str, int] | None = None) -> list[float]:
    """Two kinds of shards, the second as many as the first found; `seen`: which were computed."""

    def work(what: str, shard: int) -> dict[str, torch.Tensor]:
        if (what, shard) == stop:
            raise KeyboardInterrupt
        seen.append((what, shard))
        inside = list(shards("inside", 2, lambda place: place + shard))  # part of the shard, whatever shards there are within
        return {"found": torch.tensor([float(sum(inside))])}

    first = [float(one["found"]) for one in shards("first", 3, lambda shard: work("first", shard))]
    return first + [float(one["found"]) for one in shards("then", int(max(first)), lambda shard: work("then", shard))]


ALL = [("first", 0), ("first", 1), ("first", 2), *(("then", shard) for shard in range(5))]
FOUND = [1.0, 3.0, 5.0, 1.0, 3.0, 5.0, 7.0, 9.0]


def test_without_a_run_each_is_computed_in_turn() -> None:
    seen: list[tuple[str, int]] = []
    assert program(seen) == FOUND and seen == ALL


@pytest.mark.parametrize("stop", ALL)
def test_a_stopped_run_goes_on_and_computes_nothing_twice(tmp_path: Path, stop: tuple[str, int]) -> None:
    path, before, after = tmp_path / "journal", list[tuple[str, int]](), list[tuple[str, int]]()
    with pytest.raises(KeyboardInterrupt), run_in(path):
        program(before, stop=stop)
    with run_in(path, remove=True):
        assert program(after) == FOUND
    assert before + after == ALL and not list(tmp_path.iterdir())


def test_a_run_of_another_course_takes_nothing_from_it(tmp_path: Path) -> None:
    with run_in(tmp_path / "journal"):
        list(shards("one", 2, lambda shard: shard))
        list(shards("two", 2, lambda shard: shard))
    with run_in(tmp_path / "journal", remove=True):
        assert list(shards("one", 2, lambda shard: shard + 10)) == [0, 1]
        assert list(shards("two", 3, lambda shard: shard + 10)) == [10, 11, 12]


def _worker(server: Server, secret: bytes, who: str, found: dict[str, object]) -> None:
    seen: list[tuple[str, int]] = []
    try:
        with joining(Runner(Remote(server.address, secret, who, lambda: "model"))):
            found[who] = program(seen), seen
    except RunOver:
        found[who] = None, seen


def test_workers_share_and_all_see_the_same(tmp_path: Path) -> None:
    secret, found, seen = secrets.token_bytes(8), dict[str, object](), list[tuple[str, int]]()
    with run_in(tmp_path / "journal", remove=True) as ledger:
        server = Server(ledger, host=None, secret=secret, about=lambda: "model")
        threads = [threading.Thread(target=_worker, args=(server, secret, f"w{n}", found)) for n in range(3)]
        for thread in threads:
            thread.start()
        assert program(seen) == FOUND
        for thread in threads:
            thread.join(20)
        server.close()
    computed = seen + [one for _, more in found.values() for one in more]  # type: ignore[misc, attr-defined]
    assert sorted(computed) == sorted(ALL)
    assert all(values == FOUND for values, _ in found.values())  # type: ignore[misc, attr-defined]


def test_a_worker_of_another_model_or_secret_is_sent_away(tmp_path: Path) -> None:
    secret = secrets.token_bytes(8)
    with run_in(tmp_path / "journal", remove=True) as ledger:
        server = Server(ledger, host=None, secret=secret, about=lambda: "model")
        list(shards("one", 1, lambda shard: shard))
        with pytest.raises(CircuitsError, match="cannot be reached"):
            Remote(server.address, b"another", "w", lambda: "model")
        with pytest.raises(RunOver):
            Remote(server.address, secret, "w", lambda: "other").ask(0, "one", 1, 0)
        with pytest.raises(RunOver):
            Remote(server.address, secret, "w", lambda: "model").ask(0, "other", 1, 0)
        assert Remote(server.address, secret, "w", lambda: "model").ask(0, "one", 1, 0) == Done(ledger.journal.data((0, 0)))
        server.close()


def test_what_a_lost_worker_had_taken_is_free_again(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "journal")
    ledger.begin(0, "one", 2)
    ledger.joined()
    ledger.joined()
    assert ledger.ask(0, "one", 2, 0, "w1") == Take(0)
    assert ledger.ask(0, "one", 2, 0, "w2") == Take(1)
    ledger.gone("w1")
    assert ledger.ask(0, "one", 2, 0, "w2") == Take(0)
    ledger.give((0, 0), b"", 0.1, "w2")
    ledger.give((0, 0), b"late", 0.1, "w1")
    assert ledger.ask(0, "one", 2, 0, "w2") == Done(b"")
    ledger.close(remove=True)


def test_a_shard_whose_only_worker_was_lost_waits_for_the_next_one(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "journal")
    ledger.coming = lambda: True  # as while it is started again
    with joining(Runner(Own(ledger))):
        ledger.begin(0, "one", 1)
        ledger.joined()
        assert ledger.ask(0, "one", 1, 0, "w1") == Take(0)
        ledger.gone("w1")

        def next_one() -> None:
            ledger.joined()
            assert ledger.ask(0, "one", 1, 0, "w2") == Take(0)
            ledger.give((0, 0), encoded("found"), 0.1, "w2")

        thread = threading.Timer(0.05, next_one)
        thread.start()
        assert list(shards("one", 1, lambda shard: "here", aside=True)) == ["found"]
        thread.join()
    ledger.close(remove=True)


def test_a_shard_that_takes_its_workers_with_it_is_set_aside_and_never_run_here(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "journal")
    with joining(Runner(Own(ledger))):
        ledger.begin(0, "one", 2)
        for who in ("w1", "w2"):
            ledger.joined()
            assert ledger.ask(0, "one", 2, 0, who) == Take(0)
            ledger.gone(who)
        here = list[int]()
        found = list(shards("one", 2, lambda shard: here.append(shard) or shard, aside=True))
    assert here == [1] and isinstance(found[0], Aside) and "lost" in found[0].why and found[1] == 1
    ledger.close(remove=True)


def test_a_shard_that_always_fails_is_set_aside_or_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    tried = list[int]()

    def work(shard: int) -> int:
        tried.append(shard)
        if shard == 1:
            raise ZeroDivisionError("by nought")
        return shard

    with run_in(tmp_path / "journal"):
        found = list(shards("one", 3, work, aside=True))
    assert tried == [0, 1, 1, 1, 2] and isinstance(found[1], Aside) and found[1].why == "ZeroDivisionError: by nought"
    ledger = ledger_at(tmp_path / "journal")
    ledger.joined()  # somebody else might succeed
    with joining(Runner(Own(ledger))), pytest.raises(ShardError, match=r"shard 2 of 3 \(one\) failed 3 times.*by nought"):
        list(shards("one", 3, work))
    assert isinstance(ledger.ask(0, "one", 3, 1, "w"), Lost)
    ledger.close(remove=True)


def test_what_is_wrong_with_the_input_is_raised_at_once(tmp_path: Path) -> None:
    tried = list[int]()

    def work(shard: int) -> int:
        tried.append(shard)
        raise PromptError("no such subject")

    with pytest.raises(PromptError), run_in(tmp_path / "journal"):
        list(shards("one", 3, work, aside=True))
    assert tried == [0]
    (tmp_path / "journal").unlink()


class Adding(Course):
    """Each step doubles what is there and adds its number; `stop`: the step that is interrupted."""

    def __init__(self, seen: list[int], *, stop: int | None = None) -> None:
        self.seen, self.stop, self.sum = seen, stop, torch.zeros(1)

    def step(self, number: int) -> None:
        if number == self.stop:
            raise KeyboardInterrupt
        self.seen.append(number)
        self.sum = 2 * self.sum + number

    def state(self) -> dict[str, torch.Tensor]:
        return {"sum": self.sum}

    def take(self, state: dict[str, torch.Tensor]) -> None:
        self.sum = state["sum"]


def stepping(seen: list[int], *, stop: int | None = None) -> float:
    """A shard, six steps, another shard that hangs on them."""
    (before,) = shards("before", 1, lambda shard: 1.0)
    course = Adding(seen, stop=stop)
    steps("adding", 6, course)
    (after,) = shards("after", 1, lambda shard: float(course.sum) + before)
    return after


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize("every", [True, False])
def test_steps_go_on_from_what_was_kept_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, every: bool) -> None:
    if every:
        monkeypatch.setattr("circuits.runs.runner._SECONDS", 0.0)
        monkeypatch.setattr("circuits.runs.runner._SHARE", 0)
    whole: list[int] = []
    expected, path = stepping(whole), tmp_path / "x.journal"
    with run_in(tmp_path / "whole.journal", remove=True):
        assert stepping([]) == expected and whole == [*range(6)]
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt), run_in(path):
        stepping(seen, stop=stop)
    assert (tmp_path / "x.journal.state").exists() == (every and stop > 0)
    again: list[int] = []
    with run_in(path, remove=True):
        assert stepping(again) == expected
    assert [*seen, *again] == [*range(6)] if every else again == [*range(6)]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [0, 5, 60, 200])
def test_a_state_that_is_not_whole_or_of_another_run_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr("circuits.runs.runner._SECONDS", 0.0)
    path, state = tmp_path / "x.journal", tmp_path / "x.journal.state"
    with pytest.raises(KeyboardInterrupt), run_in(path):
        stepping([], stop=4)
    kept = state.read_bytes()
    state.write_bytes(kept[:length])
    again: list[int] = []
    with pytest.raises(KeyboardInterrupt), run_in(path):
        stepping(again, stop=2)
    assert again == [0, 1]
    path.unlink()
    state.write_bytes(kept)
    ledger = Ledger(lambda: Journal.open(path, {"another": "run"}))
    with joining(Runner(Own(ledger))):
        stepping(again)
    ledger.close(remove=True)
    assert again == [0, 1, *range(6)]


def test_a_worker_keeps_its_steps_where_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuits.runs.runner._SECONDS", 0.0)
    monkeypatch.setattr("circuits.runs.runner._SHARE", 0)
    ledger = ledger_at(tmp_path / "x.journal")
    ledger.begin(0, "before", 1)
    ledger.give((0, 0), encoded(1.0), 0.0, "who")
    ledger.begin(1, "adding", 1)
    secret = secrets.token_bytes(8)
    server, seen = Server(ledger, host=None, secret=secret, about=lambda: ""), list[int]()
    for stop, taken in ((3, [0, 1, 2]), (5, [0, 1, 2, 3, 4])):
        remote = Remote(server.address, secret, "far", lambda: "")
        with pytest.raises(KeyboardInterrupt), joining(Runner(remote)):
            stepping(seen, stop=stop)
        assert seen == taken and ledger.so_far(1) is not None
        remote._connection.close()
        while ledger.workers:
            ledger.waited(0.1)
    ledger.close(remove=True)
    server.close()


def test_many_shards_are_handed_out_in_time_that_grows_as_they_do(tmp_path: Path) -> None:
    looked = 0

    class Watched(dict[tuple[int, int], Any]):
        def __contains__(self, key: object) -> bool:
            nonlocal looked
            looked += 1
            return super().__contains__(key)

        def items(self) -> Any:
            raise AssertionError("all records are gone through")

    ledger = ledger_at(tmp_path / "x.journal")
    ledger.journal.entries = Watched()
    with joining(Runner(Own(ledger))):
        for count in (200, 400):
            looked = 0
            assert list(shards(f"{count}", count, lambda shard: shard)) == list(range(count))
            assert looked < 8 * count
    ledger.close(remove=True)


def test_a_shard_that_lost_one_worker_is_computed_here_where_no_other_comes(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "journal")
    with joining(Runner(Own(ledger))):
        ledger.begin(0, "one", 1)
        ledger.joined()
        assert ledger.ask(0, "one", 1, 0, "w1") == Take(0)
        ledger.gone("w1")
        assert list(shards("one", 1, lambda shard: "here")) == ["here"]
    ledger.close(remove=True)


@pytest.mark.parametrize(
    "device, devices, wanted",
    [("cpu", None, 0), ("cuda", None, 1), ("cuda:1", None, 1), ("cuda", "cuda:0, cuda:1", 2), (None, None, 0)],
)
def test_gpus_are_asked_for_by_what_a_run_says(device: str | None, devices: str | None, wanted: int) -> None:
    assert asked_for(device, devices) == wanted


def test_each_worker_has_a_gpu_of_its_own_where_the_machine_has_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [seen_by(number, "cuda", None, 3)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3)] == ["1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [seen_by(number, "cuda", None, 2)["CUDA_VISIBLE_DEVICES"] for number in (1, 2)] == ["6", "4"]
    assert seen_by(1, "cuda:0", None, 2) == seen_by(1, "cuda", "cuda:0,cuda:1", 2) == seen_by(1, "cuda", None, 1) == {}


def test_workers_folders_go_with_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Processes("code", 2, {}, threads=1, around=lambda number: {"WHO": str(number)})  # they never end by themselves
    assert len(list(tmp_path.glob("circuits-*/*"))) == 2
    found.close()
    assert not list(tmp_path.iterdir())
