"""Processes that begin with torch and its like loaded: forks of one that has loaded them and done nothing else. Each loads this
package by itself, as one that a shell starts does, but does not take seconds for what every one of them needs."""

import atexit
import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from tests import HANGS

ROOT = Path(__file__).parent.parent
FORKS = sys.platform == "linux"
"""Elsewhere a process with these libraries cannot always be forked: there each begins from nothing."""
LIBRARIES = (
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "networkx",
    "pandas",
    "safetensors.torch",
    "transformer_lens.model_bridge",
    "transformers.models.gpt2.modeling_gpt2",
)
"""What is loaded once: nothing of this package, so that nothing of it that a page or a notebook lacks is there by chance."""


class Fork:
    """A process that the nursery forked, with as much of `subprocess.Popen` as a kernel's manager asks for."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> int:
        return self.poll() or 0

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedKernelManager(AsyncKernelManager):
    """Starts kernels in the nursery."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        if not FORKS:
            await super()._async_launch_kernel(kernel_cmd, **options)
            return
        provisioner: Any = self.provisioner
        provisioner.process = Fork(ask(kernel=self.connection_file, folder=str(options["cwd"])))
        provisioner.pid = provisioner.process.pid
        self._reconcile_connection_info(provisioner.connection_info)


def run_code(code: str, folder: Path) -> str:
    """What a Python program prints, run with `folder` as its working directory. Fails where it does."""
    program, out = folder / "program.py", folder / "printed.txt"
    program.write_text(code, encoding="utf-8")
    if not FORKS:
        line = [sys.executable, str(program)]
        return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=HANGS, check=True).stdout
    assert ask(code=str(program), folder=str(folder), out=str(out)) == 0, "the code failed; its traceback is above"
    return out.read_text(encoding="utf-8")


def ask(**request: str) -> int:
    """The id of a kernel's process, or the exit status of code that was run."""
    process = _nursery()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@functools.cache
def _nursery() -> Any:
    line = [sys.executable, "-m", "tests.nursery"]
    process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


def _serve() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        # Kernels are not waited for; code is.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN if "kernel" in request else signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            _begin(request)
        answer = child if "kernel" in request else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, f"{answer}\n".encode())


def _begin(request: dict[str, str]) -> None:
    """Be what was asked for, to the end of this process."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.chdir(request["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if "kernel" in request:
            import pandas
            from ipykernel.kernelapp import IPKernelApp

            pandas.set_option("display.max_columns", 20)  # as it sets itself where it is imported by a kernel
            os.dup2(2, 1)
            IPKernelApp.launch_instance(argv=["-f", request["kernel"]])
        else:
            os.dup2(os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            runpy.run_path(request["code"], run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
