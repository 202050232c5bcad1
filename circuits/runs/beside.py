"""A run of a library's function, whose journal stands beside the file that it leads to."""

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from circuits.errors import FileFormatError
from circuits.runs.journal import Journal
from circuits.runs.ledger import Ledger
from circuits.runs.plan import difference, plan_of
from circuits.runs.runner import Own, Runner, joined, joining


@contextlib.contextmanager
def kept_beside(target: Path, options: Mapping[str, Any], about: Mapping[str, str]) -> Iterator[None]:
    """While the block lasts, what the shards of this thread find is kept beside a file, and taken from there where an earlier
    run with the same options about the same was stopped; where the block ends well, the journal goes. Within a command, whose
    shards are kept anyway, nothing more is.

    Raises FileFormatError where what is kept there is another run's, or another process has it, or nothing can be written.
    """
    if joined():
        yield
        return
    versions = {"circuits": importlib.metadata.version("transformer-circuits"), "torch": torch.__version__}
    path, plan = target.with_name(f"unfinished-{target.name}.journal"), plan_of(target.name, options, {**versions, **about})
    journal = Journal.open(path, plan)
    apart = difference(journal.plan, plan)
    if apart is not None:
        journal.close(remove=not journal.resumed)
        if journal.resumed:
            raise FileFormatError(f"{path}: is of another run ({apart}): name another file, or delete this one")
        journal = Journal.open(path, plan)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: journal.close(remove=not journal.seconds))
        with joining(Runner(Own(Ledger(lambda: journal)))):
            yield
        stack.pop_all()
        journal.close(remove=True)
