"""A command as a run that can be interrupted: what its shards found is kept until it is at its end, and other processes may
take part."""

import contextlib
import contextvars
import dataclasses
import datetime
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import circuits
from circuits.cli.text import one_line
from circuits.errors import CircuitsError
from circuits.files.words import counted, duration

if TYPE_CHECKING:
    import circuits.runs.runner

MUCH, WORTH = 60.0, 1.0
"""Seconds of work: of another run, not given up without being asked; of this one, kept where it fails."""
_ASIDE = ("out", "pictures", "as_json", "workers", "ray", "fresh", "open_file")
"""Options that decide nothing of what is found."""


@dataclasses.dataclass(frozen=True)
class Running:
    """Where a command's shards are kept, and who computes them."""

    command: str
    folder: Path
    options: Mapping[str, Any]
    words: Sequence[str]
    workers: int = 1
    ray: str | None = None
    fresh: bool = False

    @property
    def path(self) -> Path:
        """The journal."""
        return self.folder / f"unfinished-{self.command.replace(' ', '-')}.journal"

    @property
    def here(self) -> int:
        """Processes of this machine that compute; those of a cluster on other machines do not count."""
        if self.ray is None:
            return self.workers
        return 1 + self.workers if self.ray == "local" else 1


@dataclasses.dataclass(frozen=True)
class Worker:
    """This process is a worker: whose, and where its files go, which nobody reads."""

    runner: "circuits.runs.runner.Runner"
    folder: Path


WORKER: contextvars.ContextVar[Worker | None] = contextvars.ContextVar("worker", default=None)


@contextlib.contextmanager
def running(run: Running) -> Iterator[None]:
    """While the block lasts, the shards of the command under way are kept in its folder, and taken from there where an earlier
    run of the same command was stopped; where the block ends well, the journal goes."""
    from circuits.runs.journal import Journal
    from circuits.runs.ledger import Ledger
    from circuits.runs.runner import Own, Runner, joining

    if run.workers < 1:
        raise CircuitsError(f"--workers is {run.workers}; expected a whole number from 1 on")
    if run.fresh:
        Journal.discard(run.path)
    _make_room(run)
    made = [str(folder) for folder in (run.folder, *run.folder.parents) if not folder.exists()]  # before any file is written
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(_threads(run))
        ledger = Ledger(lambda: _opened(run, runner, threads, made))
        runner = Runner(Own(ledger))
        stack.enter_context(joining(runner))
        try:
            if run.workers > 1 or run.ray is not None:
                stack.enter_context(_with_workers(run, ledger, runner, threads))
            yield
        except typer.Exit:  # it has said all that it had to say
            _end(run, ledger)
            raise
        except BaseException as error:
            keep = ledger.kept >= WORTH
            ledger.close(remove=not keep)
            if not keep:
                _remove_made(ledger)
            if keep:
                error.add_note(f"{duration(ledger.kept)} of work is kept: the same command goes on from there")
            raise
        _end(run, ledger)


def _end(run: Running, ledger: Any) -> None:
    """The run has come to its end, and its journal goes: also one that it did not need, as what was killed had written all."""
    from circuits.runs.journal import Journal

    opened = bool(ledger.plan)
    ledger.close(remove=True)
    if not opened:
        Journal.discard(run.path)
    _remove_made(ledger)


def _remove_made(ledger: Any) -> None:
    """Folders that were made for the journal go with it, where nothing else came into them."""
    with contextlib.suppress(OSError):
        for folder in ledger.plan.get("made", ()):
            Path(folder).rmdir()


def _opened(run: Running, runner: "circuits.runs.runner.Runner", threads: int, made: Sequence[str]) -> Any:
    """The journal of this very run, begun or gone on with; `made`: the folders that are made for it. Raises FileFormatError
    where much of another's is kept there."""
    from circuits.runs.journal import Journal

    plan = _plan(run, runner.about) | {"threads": threads}
    plan["began"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    plan["made"] = list(made)
    journal = _with_room(run, Journal.open(run.path, plan), plan)
    if journal.resumed:
        begun = str(journal.plan.get("began", ""))[:16].replace("T", " ")
        there = f"{counted(journal.resumed, 'shard')}, {duration(journal.seconds)} of work, are there"
        said = f"going on with the run begun {begun}: {there}"
        typer.echo(one_line(said), err=True)
    return journal


def _plan(run: Running, models: Mapping[str, str]) -> dict[str, Any]:
    """What the run is, on these models."""
    return _asked(run.options, models, command=f"circuits {' '.join(run.words)}")


def _asked(given: Mapping[str, Any], models: Mapping[str, str], *, command: str = "") -> dict[str, Any]:
    """What decides a run: its options, the files that it reads, the versions, and its models."""
    import torch

    from circuits.runs.plan import plan_of

    options = {name: value for name, value in given.items() if name not in _ASIDE}
    versions = {"circuits": circuits.__version__, "torch": torch.__version__}
    return plan_of(command, options, {**versions, **models})


def course(given: Mapping[str, Any]) -> str:
    """What a run was asked, its files and the versions, in one word that is the same in every process that has the same."""
    return hashlib.sha256(json.dumps(_asked(given, {}), sort_keys=True).encode()).hexdigest()[:16]


def _with_room(run: Running, journal: Any, plan: Mapping[str, Any]) -> Any:
    """An open journal that is of this plan: a new one where a little of another run was kept. Raises FileFormatError where it
    was much."""
    from circuits.runs.journal import Journal
    from circuits.runs.plan import difference, require_same

    if difference(journal.plan, plan) is None:
        return journal
    much = journal.seconds >= MUCH
    journal.close(remove=not much)
    if much:
        require_same(run.path, journal.plan, plan, f"{duration(journal.seconds)} of work")
    return Journal.open(run.path, plan)


def _make_room(run: Running) -> None:
    """Refuse or give up, before anything is computed or written, what is kept of a run with other options or files."""
    from circuits.runs.journal import Journal

    if run.path.is_file():
        journal = Journal.open(run.path, {})
        models = journal.plan.get("about", {})
        _with_room(run, journal, {**_plan(run, {}), "about": models}).close(remove=False)


@contextlib.contextmanager
def _threads(run: Running) -> Iterator[int]:
    """How many threads each process computes with: those of the run that is gone on with, for sums depend on it; else those of
    this process, divided among the workers of this machine."""
    import torch

    from circuits.runs.journal import plan_in

    before = torch.get_num_threads()
    kept = plan_in(run.path).get("threads")
    threads = kept if isinstance(kept, int) and kept > 0 else max(1, before // run.here)
    if threads == before:
        yield threads
        return
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _with_workers(run: Running, ledger: Any, runner: "circuits.runs.runner.Runner", threads: int) -> Iterator[None]:
    """Other processes that take part: they run the same command line."""
    import torch

    from circuits.runs.cluster import Cluster
    from circuits.runs.gpus import asked_for, seen_by
    from circuits.runs.processes import Processes
    from circuits.runs.remote import Server

    secret, module, cluster = secrets.token_bytes(32), "circuits.cli.worker", None
    where = run.options.get("device"), run.options.get("devices")
    runner.course = course(run.options)
    with contextlib.ExitStack() as stack:
        if run.ray is not None:
            gpus = 0 if run.ray == "local" else asked_for(*where)
            cluster = stack.enter_context(contextlib.closing(Cluster(run.ray, run.workers, gpus=gpus, threads=threads)))
        server = Server(ledger, host=None if cluster is None else cluster.host, secret=secret, about=runner.signature)
        stack.callback(server.close)
        about = {"words": list(run.words), "address": list(server.address), "secret": secret.hex(), "threads": threads}
        about["cwd"] = str(Path.cwd())
        if cluster is not None:
            cluster.start(module, about)
            ledger.coming = cluster.coming
        else:
            count = torch.cuda.device_count() if where[0] == "cuda" else 0
            processes = Processes(
                module, run.workers - 1, about, threads=threads, around=lambda number: seen_by(number, *where, count)
            )
            stack.enter_context(contextlib.closing(processes))
            ledger.coming = processes.coming
        yield
        if ledger.trouble:
            typer.echo(one_line(f"a worker could not take part: {ledger.trouble}"), err=True)
        elif cluster is not None and cluster.trouble:
            typer.echo(one_line(f"a worker of the cluster was lost: {cluster.trouble}"), err=True)
