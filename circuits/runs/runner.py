"""Long work in shards. A function that has much to do says which shards there are and how one is computed; whether they are
computed one after the other, or by several processes, or were computed before an interruption, is decided around it.

    for effects in shards("tracing facts", len(facts), traced):
        ...

Nothing is decided by default: every shard is computed when its turn comes.
"""

import abc
import contextlib
import contextvars
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from circuits.errors import CircuitsError
from circuits.runs.ledger import MAIN, TRIES, Done, Ledger, Lost, Take, elapsed
from circuits.runs.payload import decoded, encoded

_SECONDS, _SHARE = 5.0, 50
"""What a killed course of steps may lose, in seconds of work; and in times what keeping takes, so that it takes its 2 % at
most."""


class ShardError(CircuitsError):
    """A shard failed however often it was tried; the others are kept."""


class Aside:
    """In place of what a shard would have found: it failed however often it was tried. `why` says how."""

    def __init__(self, why: str) -> None:
        self.why = why


class Share(abc.ABC):
    """What a run's shards are asked of: the ledger of this process, or that of another."""

    @abc.abstractmethod
    def begin(self, place: int, what: str, count: int) -> None:
        """The run has come to these shards."""

    @abc.abstractmethod
    def ask(self, place: int, what: str, count: int, shard: int) -> "Done | Take | Lost":
        """The shard that is wanted next, or what is to be done meanwhile."""

    @abc.abstractmethod
    def give(self, place: int, shard: int, data: bytes, seconds: float) -> None:
        """What a shard found."""

    @abc.abstractmethod
    def keep(self, place: int, data: bytes, seconds: float) -> None:
        """What the only shard of a place has come to so far."""

    @abc.abstractmethod
    def so_far(self, place: int) -> tuple[bytes, float] | None:
        """What the only shard of a place had come to, and how long that took; None where there is nothing of it."""

    @abc.abstractmethod
    def fail(self, place: int, shard: int, error: Exception, *, aside: bool) -> None:
        """A shard ended in an error. May raise it, where trying again is of no use; `aside`: the run goes on without it."""


class Course(abc.ABC):
    """Steps that each go on from where the one before it ended."""

    @abc.abstractmethod
    def step(self, number: int) -> None:
        """Take the step of this number, from 0 on."""

    @abc.abstractmethod
    def state(self) -> Any:
        """All that steps change, as it is now: plain values and tensors (`payload.encoded`)."""

    @abc.abstractmethod
    def take(self, state: Any) -> None:
        """Go on from what `state` gave."""


class Runner:
    """Takes part in a run: computes shards that nobody else has computed, in the order in which the run comes to them."""

    share: Share

    def __init__(self, share: Share | None = None) -> None:
        if share is not None:
            self.share = share
        self.place = 0
        """How many times the run has come to shards: the same in all processes, for they run the same program."""
        self.about: dict[str, str] = {}
        """What the run is on: the fingerprint of every model that was loaded."""
        self.course = ""
        """What the run was asked, in a word that is the same in every process that was asked the same."""

    def signature(self) -> str:
        """All that the run is on, in one word that is the same in every process that has the same."""
        return hashlib.sha256(json.dumps([self.course, self.about], sort_keys=True).encode()).hexdigest()[:16]

    def run(self, what: str, count: int, work: Callable[[int], Any], *, aside: bool) -> Iterator[Any]:
        """What the shards found, in their order."""
        place, self.place = self.place, self.place + 1
        self.share.begin(place, what, count)
        for shard in range(count):
            yield self._one(place, shard, (what, count, work), aside)

    def steps(self, what: str, count: int, course: Course) -> None:
        """Bring a course to where its steps lead, as one shard."""
        place, self.place = self.place, self.place + 1
        self.share.begin(place, what, 1)
        course.take(self._one(place, 0, (what, 1, lambda shard: self._stepped(place, count, course)), False))

    def _stepped(self, place: int, count: int, course: Course) -> Any:
        """The state after the last step; that on the way is kept now and then."""
        begin, before, found = 0, 0.0, self.share.so_far(place)
        if found is not None:
            (begin, state), before = decoded(found[0]), found[1]
            course.take(state)
        began = time.monotonic()
        due = began + _SECONDS
        for step in range(begin, count):
            course.step(step)
            now = time.monotonic()
            if now >= due and step + 1 < count:
                self.share.keep(place, encoded((step + 1, course.state())), before + elapsed(began))
                due = time.monotonic() + max(_SECONDS, _SHARE * elapsed(now))
        return course.state()

    def _one(self, place: int, wanted: int, shards: tuple[str, int, Callable[[int], Any]], aside: bool) -> Any:
        what, count, work = shards
        while True:
            answer = self.share.ask(place, what, count, wanted)
            if isinstance(answer, Done):
                return decoded(answer.data)
            if isinstance(answer, Lost):
                if aside:
                    return Aside(answer.why)
                raise ShardError(
                    f"shard {wanted + 1} of {count} ({what}) failed {TRIES} times: {answer.why}; the others are kept"
                )
            began = time.monotonic()
            try:
                with _joining(None):  # a shard is one piece, whatever shards there are within
                    data = encoded(work(answer.shard))
            except Exception as error:
                self.share.fail(place, answer.shard, error, aside=aside)
                continue
            self.share.give(place, answer.shard, data, elapsed(began))
            if answer.shard == wanted:
                return decoded(data)


class Own(Share):
    """The ledger of this process, as what its shards are asked of."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def begin(self, place: int, what: str, count: int) -> None:
        """The run has come to these shards."""
        self.ledger.begin(place, what, count)

    def ask(self, place: int, what: str, count: int, shard: int) -> Done | Take | Lost:
        """The shard that is wanted next, or what is to be done meanwhile."""
        answer = self.ledger.ask(place, what, count, shard, MAIN)
        assert answer is not None, "this process says which shards there are"
        return answer

    def give(self, place: int, shard: int, data: bytes, seconds: float) -> None:
        """What a shard found."""
        self.ledger.give((place, shard), data, seconds, MAIN)

    def keep(self, place: int, data: bytes, seconds: float) -> None:
        """What the only shard of a place has come to so far."""
        self.ledger.keep(place, data, seconds)

    def so_far(self, place: int) -> tuple[bytes, float] | None:
        """What the only shard of a place had come to, and how long that took; None where there is nothing of it."""
        return self.ledger.so_far(place)

    def fail(self, place: int, shard: int, error: Exception, *, aside: bool) -> None:
        """A shard ended in an error: a foreseen one comes again however often it is tried and is raised, as is any other where
        nobody else could try."""
        if isinstance(error, (CircuitsError, MemoryError)) or not (aside or self.ledger.workers):
            raise error
        self.ledger.fail((place, shard), f"{type(error).__name__}: {error}")


_RUNNER: contextvars.ContextVar[Runner | None] = contextvars.ContextVar("runner", default=None)


@contextlib.contextmanager
def _joining(runner: Runner | None) -> Iterator[None]:
    before = _RUNNER.set(runner)
    try:
        yield
    finally:
        _RUNNER.reset(before)


@contextlib.contextmanager
def joining(runner: Runner) -> Iterator[None]:
    """While the block lasts, all shards of this thread are asked of a runner."""
    with _joining(runner):
        yield


def joined() -> bool:
    """Whether shards of this thread are asked of a runner."""
    return _RUNNER.get() is not None


def run_on(name: str, fingerprint: str) -> None:
    """Say what the run under way is on, so that nothing is taken from a run on something else."""
    runner = _RUNNER.get()
    if runner is not None:
        runner.about[name] = fingerprint


def shards(what: str, count: int, work: Callable[[int], Any], *, aside: bool = False) -> Iterator[Any]:
    """What shards 0 to `count` - 1 found, in their order: plain values and CPU tensors (`payload.encoded`).

    `work(shard)` computes one, from what is there when the run comes to them and from nothing that another shard did; in the
    same words the same bytes. It may be called in another order, in another process, or not at all. `aside`: a shard that
    fails with an unforeseen error however often it is tried is an `Aside` in place of the end of the run.
    """
    runner = _RUNNER.get()
    if runner is not None:
        yield from runner.run(what, count, work, aside=aside)
        return
    for shard in range(count):
        yield work(shard)


def steps(what: str, count: int, course: Course) -> None:
    """Take steps 0 to `count` - 1 of a course: one shard, whose state is kept on the way, so that a stopped run goes on."""
    runner = _RUNNER.get()
    if runner is not None:
        runner.steps(what, count, course)
        return
    for step in range(count):
        course.step(step)
