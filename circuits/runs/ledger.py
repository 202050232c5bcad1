"""Who computes which shard: what is done is kept, what is taken is waited for, what a lost worker had taken is free again."""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from circuits.runs.journal import Journal, Key

MAIN = "this process"
TRIES = 3
"""How often a shard is tried that ends in an unforeseen error or takes its worker with it."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A shard is there: what it found."""

    data: bytes


@dataclasses.dataclass(frozen=True)
class Take:
    """A shard is to be computed by who asked."""

    shard: int


@dataclasses.dataclass(frozen=True)
class Lost:
    """A shard was tried in vain, and all others are there: why it failed."""

    why: str


Answer = Done | Take | Lost


@dataclasses.dataclass(eq=False)
class _Shards:
    """The shards of one place of the run, on their way."""

    what: str
    count: int
    done: int = 0
    """All shards below this one are there."""
    taken: dict[int, str] = dataclasses.field(default_factory=dict)
    failed: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    deadly: Counter[int] = dataclasses.field(default_factory=Counter)
    """Shards with which workers were lost, and how many."""


class Ledger:
    """The shards of a run, for any number of threads. `opened` opens the journal when the first shard is asked for."""

    def __init__(self, opened: Callable[[], Journal]) -> None:
        self._opened = opened
        self._journal: Journal | None = None
        self._places: list[_Shards] = []
        self._changed = threading.Condition(threading.RLock())
        self.workers = 0
        """How many others take shards at present."""
        self.coming: Callable[[], bool] = lambda: False
        """Whether others may yet come that would take shards: they are starting, or are started again."""
        self.computed: dict[str, int] = {}
        """How many shards each worker has computed."""
        self.trouble: str = ""
        """Why a worker could not take part, by its own account."""

    @property
    def journal(self) -> Journal:
        """The journal, which is opened when it is first asked for."""
        with self._changed:
            if self._journal is None:
                self._journal = self._opened()
            return self._journal

    @property
    def plan(self) -> dict[str, Any]:
        """What the journal is of; empty where there is none."""
        return {} if self._journal is None else self._journal.plan

    @property
    def kept(self) -> float:
        """Seconds of work that the journal holds; 0 where there is none."""
        return 0.0 if self._journal is None else self._journal.seconds

    def begin(self, place: int, what: str, count: int) -> None:
        """The run has come to these shards: this process says which they are, the workers follow. What an earlier run kept of
        others from here on is of another course, and goes."""
        with self._changed:
            if place == len(self._places):
                self._places.append(_Shards(what, count))
                self._changed.notify_all()
            if self.journal.kinds.get(place, (what, count)) != (what, count):
                self.journal.cut(place)

    def ask(self, place: int, what: str, count: int, shard: int, who: str) -> Answer | None:
        """The shard that somebody wants next, or what is to be done meanwhile. None where the run has taken another course:
        who asked cannot be of use. Waits while all that is left is being computed by others."""
        with self._changed:
            while len(self._places) <= place:  # a worker may be ahead of this process
                self._changed.wait(1.0)
            shards = self._places[place]
            if (shards.what, shards.count) != (what, count):
                return None
            while True:
                if (place, shard) in self.journal.entries:
                    return Done(self.journal.data((place, shard)))
                free = self._free(place, shards, who)
                if free is not None:
                    shards.taken[free] = who
                    return Take(free)
                if self._aside(shards, shard) and not shards.taken:
                    return Lost(shards.failed[shard][-1])
                self._changed.wait(1.0)

    def _free(self, place: int, shards: _Shards, who: str) -> int | None:
        while (place, shards.done) in self.journal.entries:
            shards.done += 1
        for shard in range(shards.done, shards.count):
            if shard in shards.taken or self._aside(shards, shard) or (place, shard) in self.journal.entries:
                continue
            if shard in shards.deadly and who == MAIN:  # it took a worker with it: not this process too
                if self.workers or self.coming():
                    continue
                if shards.deadly[shard] > 1:  # once may be chance
                    shards.failed.setdefault(shard, []).extend(["its worker was lost"] * TRIES)
                    continue
            return shard
        return None

    def _aside(self, shards: _Shards, shard: int) -> bool:
        return len(shards.failed.get(shard, ())) >= TRIES

    def give(self, key: Key, data: bytes, seconds: float, who: str) -> None:
        """What a shard found; a second time, after its worker was given up, is none."""
        with self._changed:
            shards = self._places[key[0]]
            if key not in self.journal.entries:
                self.journal.add(key, shards.what, shards.count, seconds, data)
                self.computed[who] = self.computed.get(who, 0) + 1
            shards.taken.pop(key[1], None)
            self._changed.notify_all()

    def keep(self, place: int, data: bytes, seconds: float) -> None:
        """What the only shard of a place has come to so far."""
        with self._changed:
            if (place, 0) not in self.journal.entries:
                self.journal.keep(place, self._places[place].what, seconds, data)

    def so_far(self, place: int) -> tuple[bytes, float] | None:
        """What the only shard of a place had come to, and how long that took; None where there is nothing of it."""
        with self._changed:
            found = self.journal.kept(place, self._places[place].what)
            return None if found is None or self.journal.so_far is None else (found, self.journal.so_far.seconds)

    def fail(self, key: Key, why: str) -> None:
        """A shard ended in an error: it is tried again, or set aside."""
        with self._changed:
            shards = self._places[key[0]]
            shards.failed.setdefault(key[1], []).append(why)
            shards.taken.pop(key[1], None)
            self._changed.notify_all()

    def joined(self) -> None:
        """A worker has come."""
        with self._changed:
            self.workers += 1

    def gone(self, who: str) -> None:
        """A worker is lost: what it had taken is free again."""
        with self._changed:
            self.workers -= 1
            for shards in self._places:
                for shard in [shard for shard, owner in shards.taken.items() if owner == who]:
                    shards.deadly[shard] += 1
                    shards.failed.setdefault(shard, []).append("its worker was lost")
                    del shards.taken[shard]
            self._changed.notify_all()

    def waited(self, seconds: float) -> None:
        """Wait until something changes, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def close(self, *, remove: bool) -> None:
        """The run is over."""
        with self._changed:
            if self._journal is not None:
                self._journal.close(remove=remove)


def elapsed(since: float) -> float:
    """Seconds since then, by the clock that never goes back."""
    return time.monotonic() - since
