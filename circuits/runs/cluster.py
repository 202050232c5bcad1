"""Workers as actors of a Ray cluster: one that is there, or one that is made on this machine for the run and gone with it.

What speaks to Ray is a process of its own (`actors.py`): importing Ray takes seconds, it answers signals, prints, and leaves
files; none of that happens here. When that process's standard input ends, so do the actors, and the cluster that was made.
Shards do not go through Ray: each actor asks for them as any other worker does (`circuits.runs.remote`).
"""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

LOCAL = "local"
INSTALL = "pip install 'transformer-circuits[ray]'"
_LONGEST = 32
"""Characters of the folder in which a cluster that is made has its sockets, whose paths a system limits."""
_WAIT = 20.0
"""Seconds in which a cluster ends by itself."""


class Cluster:
    """A Ray cluster whose actors work for a run. Raises CircuitsError without Ray, and where no cluster is heard."""

    def __init__(self, address: str, count: int, *, gpus: int = 0, threads: int) -> None:
        """`address`: `local` makes a cluster on this machine, `auto` is the one that this machine belongs to, else as
        `ray.init` takes it. `gpus`: of each actor."""
        from circuits.errors import CircuitsError

        if importlib.util.find_spec("ray") is None:
            raise CircuitsError(f"--ray needs Ray, which is not installed: {INSTALL}")
        _require_heard(address)
        self._folder = _short_folder() if address == LOCAL else None
        self._listener: threading.Thread | None = None
        self._process = _speaker(threads, made=self._folder is not None)
        try:
            self._say({"address": address, "folder": self._folder, "count": count, "gpus": gpus})
            host = self._heard("host")
        except BaseException as error:
            self.close()
            if isinstance(error, _UnheardError):
                raise CircuitsError(f"--ray {address}: {error}") from None
            raise
        self.host = None if address == LOCAL else host
        """What other machines of the cluster call this one; None where all are on it."""
        self._gone = False
        self.trouble = ""
        """What the last lost actor died of, where it was an error of its own."""

    def start(self, module: str, about: dict[str, Any]) -> None:
        """Start the actors: each calls `work` of a module with `about` and a name of its own."""
        self._say({"module": module, "about": about})
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.trouble, self._gone = said.get("trouble", self.trouble), "gone" in said
        self._gone = True

    def coming(self) -> bool:
        """Whether there are actors, or will be."""
        return not self._gone

    def _say(self, said: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()

    def _heard(self, what: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        said = json.loads(line) if line else {"error": "what speaks to Ray has ended"}
        if what not in said:
            raise _UnheardError(said.get("error", ""))
        return said[what]

    def close(self) -> None:
        """End the actors, and the cluster that was made, with all that it wrote."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener is not None:
            self._listener.join(_WAIT)
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _require_heard(address: str) -> None:
    """Raise CircuitsError where nobody listens at HOST:PORT, which Ray would try for minutes."""
    from circuits.errors import CircuitsError

    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise CircuitsError(f"--ray {address}: no cluster is heard there: {error}") from None


class _UnheardError(Exception):
    """What speaks to Ray says why it cannot."""


def _short_folder() -> str:
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="circuits-", dir=usual if len(usual) <= _LONGEST else "/tmp")


def _speaker(threads: int, *, made: bool) -> "subprocess.Popen[bytes]":
    """The process that speaks to Ray. A cluster that is made inherits what it is given here."""
    package = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": package if not known else os.pathsep.join([package, known]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if made:
        environment |= {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "RAY_AUTH_MODE": "token",  # else it writes a token into the home folder
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",  # else its actors get what the run's own process leaves of the processor
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its actors see the devices that this process sees
        }
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
            environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("actors.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C in a terminal is for the run to answer
    )
