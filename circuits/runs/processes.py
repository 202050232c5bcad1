"""Workers as processes of this machine: started with the run, started again where one is lost, gone with it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

AGAIN = 3
"""How many lost workers are replaced, for each that was asked for."""


class Processes:
    """Processes that run a module with one line of JSON on their standard input: `about` and a name of their own. A lost one is
    started again; all end when this process does, for then that input ends."""

    def __init__(
        self,
        module: str,
        count: int,
        about: dict[str, Any],
        *,
        threads: int,
        around: Callable[[int], Mapping[str, str]] | None = None,
    ) -> None:
        """`around`: what the environment of a worker says besides, by its number from 1 to `count`; one that comes in place of
        another has its."""
        self._around, self._numbers = around, dict[int, int]()
        self._module, self._about, self._threads = module, about, threads
        self._over = threading.Event()
        self.started = 0
        self._folder = tempfile.mkdtemp(prefix="circuits-")
        self.running: list[subprocess.Popen[bytes]] = []
        for number in range(1, count + 1):
            self._start(number)
        self._most = count * (1 + AGAIN)
        self._watch = threading.Thread(target=self._replace, daemon=True)
        self._watch.start()

    def _start(self, number: int) -> None:
        self.started += 1
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads), "MKL_NUM_THREADS": str(self._threads)}
        environment |= self._around(number) if self._around is not None else {}
        about = {"who": f"worker {self.started}", "folder": tempfile.mkdtemp(dir=self._folder)}
        line = json.dumps({**self._about, **about}).encode() + b"\n"
        command: Sequence[str] = [sys.executable, "-m", self._module]
        # Their words are of no use beside this process's own, and Ctrl-C in a terminal is for this one to answer.
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()
        self.running.append(process)
        self._numbers[process.pid] = number

    def coming(self) -> bool:
        """Whether there are any: a lost one is among them until another is in its place, or will not be."""
        return bool(self.running)

    def _replace(self) -> None:
        while not self._over.wait(0.2):
            for process in [one for one in self.running if one.poll() is not None]:
                if self.started < self._most and process.returncode != 0:
                    self._start(self._numbers[process.pid])
                self.running.remove(process)

    def close(self) -> None:
        """End them all."""
        self._over.set()
        self._watch.join()
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)
