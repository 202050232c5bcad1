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


def main() -> None:
    """Work until the run is over."""
    about = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    work(about)


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)  # in the middle of a shard that nobody waits for


def work(about: dict[str, Any]) -> None:
    """Run the command line of a run, shard by shard as it asks for them: `words` of the command, `address` and `secret` of who
    keeps the journal, `threads`, `cwd`, and `who` this worker is. Its files and words go nowhere."""
    import torch

    from circuits.cli import app
    from circuits.cli.running import WORKER, Worker
    from circuits.runs.remote import Remote, RunOver
    from circuits.runs.runner import Runner, joining

    torch.set_num_threads(about["threads"])
    with contextlib.suppress(OSError):
        os.chdir(about["cwd"])
    runner = Runner()
    runner.share = Remote(tuple(about["address"]), bytes.fromhex(about["secret"]), about["who"], runner.signature)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(RunOver), joining(runner):
        WORKER.set(Worker(runner, Path(folder)))
        app(args=about["words"], standalone_mode=False)


if __name__ == "__main__":
    main()
