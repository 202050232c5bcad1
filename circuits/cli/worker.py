"""`python -m circuits.cli.worker`: a process that takes part in the run of another. One line of JSON on standard input says
whose; when that input ends, so does it."""

import contextlib
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from circuits.errors import CircuitsError


def main() -> None:
    """Work until the run is over."""
    about = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    status = 0
    try:
        work(about)
    except CircuitsError:  # another worker of the kind would say the same
        pass
    except BaseException:
        status = 1
    finally:
        os._exit(status)  # at its end Python would wait for the thread that reads


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)  # in the middle of a shard that nobody waits for


def work(about: dict[str, Any]) -> None:
    """Run the command line of a run, shard by shard as it asks for them: `words` of the command, `address` and `secret` of who
    keeps the journal, `threads`, `cwd`, `who` this worker is, and the `folder` of its files, which nobody reads. Raises
    CircuitsError, and says so to the run, where it can be of no use."""
    import torch

    from circuits.cli import app
    from circuits.cli.errors import TOLD
    from circuits.cli.running import WORKER, Worker
    from circuits.runs.remote import Remote, RunOver
    from circuits.runs.runner import Runner, joining

    torch.set_num_threads(about["threads"])
    with contextlib.suppress(OSError):
        os.chdir(about["cwd"])
    runner = Runner()
    runner.share = remote = Remote(tuple(about["address"]), bytes.fromhex(about["secret"]), about["who"], runner.signature)
    given = about.get("folder")
    place = tempfile.TemporaryDirectory() if given is None else contextlib.nullcontext(given)
    told: list[str] = []
    with place as folder, contextlib.suppress(RunOver), joining(runner):
        WORKER.set(Worker(runner, Path(folder)))
        TOLD.set(told)
        if app(args=about["words"], standalone_mode=False):
            why = told[-1] if told else "it says nothing"
            remote.leave(why)
            raise CircuitsError(why)


if __name__ == "__main__":
    main()
