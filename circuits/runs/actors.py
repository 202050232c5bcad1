"""The process that speaks to Ray for a run, which `cluster.py` starts: it joins or makes a cluster, and keeps actors at work.

Nothing but the standard library is imported at the top: it is run as a file, by itself.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
from typing import Any

_ROOM = 80 * 2**20
"""Bytes of Ray's store of objects, in a cluster that is made: nearly the least that it takes, for no object goes there."""
_CPUS = 0.5
"""What an actor asks of a cluster: one each did not start beside each other on two cores."""
_AGAIN = 3
"""How many lost actors are replaced, for each that was asked for."""
_PATIENCE = 60.0
"""Seconds in which a cluster answers."""


def main() -> None:
    """Speak to Ray until the standard input ends: a line of JSON says which cluster, the next what its actors do."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints

    def say(**said: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(said) + "\n")
            out.flush()

    wanted = json.loads(sys.stdin.readline())
    over = threading.Event()
    work: list[dict[str, Any]] = []
    ready = threading.Event()
    threading.Thread(target=_follow, args=(work, ready, over, wanted["folder"]), daemon=True).start()
    patience = threading.Timer(_PATIENCE, _give_up, args=(say, wanted["folder"]))
    patience.daemon = True
    patience.start()
    try:
        _join(wanted["address"], wanted["folder"], wanted["count"])
        say(host=_host())
    except Exception as error:
        lacking = wanted["address"] == "auto" and isinstance(error, ConnectionError)
        say(error="this machine belongs to no running Ray cluster" if lacking else _one_line(error))
        return
    patience.cancel()
    ready.wait()
    try:
        if not over.is_set():
            _keep(work[0], wanted["count"], wanted["gpus"], over, say)
    finally:
        import ray  # pyright: ignore[reportMissingImports]

        ray.shutdown()
        if wanted["folder"] is not None:
            shutil.rmtree(wanted["folder"], ignore_errors=True)


def _follow(work: list[dict[str, Any]], ready: threading.Event, over: threading.Event, folder: str | None) -> None:
    """Read what comes on the standard input, to its end."""
    for line in sys.stdin:
        work.append(json.loads(line))
        ready.set()
    over.set()
    if not ready.is_set():  # before there was a cluster: what Ray has started so far ends with this process
        _leave(folder)


def _give_up(say: Any, folder: str | None) -> None:
    say(error=f"no answer within {_PATIENCE:.0f} seconds")
    _leave(folder)


def _leave(folder: str | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _join(address: str, folder: str | None, count: int) -> None:
    """Join the cluster, or make one in a folder."""
    import ray  # pyright: ignore[reportMissingImports]

    made: dict[str, Any] = {}
    if folder is not None:
        made = {
            "num_cpus": count,
            "object_store_memory": _ROOM,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
    ray.init(address=address, log_to_driver=False, configure_logging=False, **made)


def _host() -> str:
    """What other machines of the cluster call this one: the address from which it speaks to the cluster's head."""
    import ray  # pyright: ignore[reportMissingImports]

    head = ray.get_runtime_context().gcs_address.rsplit(":", 1)[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.connect((head, 9))  # nothing is sent
        return line.getsockname()[0]


def _keep(work: dict[str, Any], count: int, gpus: int, over: threading.Event, say: Any) -> None:
    """Start the actors, and one more where one is lost, until all have done their work or the run is over."""
    import ray  # pyright: ignore[reportMissingImports]

    class Actor:
        """A process that works for the run."""

        def work(self, module: str, about: dict[str, Any]) -> None:
            """Until the run needs it no longer."""
            import importlib

            importlib.import_module(module).work(about)

    kind = ray.remote(num_cpus=_CPUS, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD")(Actor)
    running: dict[Any, Any] = {}
    started = 0

    def start() -> None:
        nonlocal started
        started += 1
        actor = kind.remote()  # type: ignore[attr-defined]
        running[actor.work.remote(work["module"], {**work["about"], "who": f"actor {started}"})] = actor

    for _ in range(count):
        start()
    while not over.wait(0.2):
        ended = ray.wait(list(running), timeout=0)[0] if running else []
        for one in ended:
            actor = running.pop(one)
            try:
                ray.get(one)
            except ray.exceptions.RayTaskError as error:
                say(trouble=_one_line(error.cause if error.cause is not None else error))
            except Exception as error:
                say(lost=_one_line(error))
            else:
                continue
            del actor
            if started < count * (1 + _AGAIN):
                start()
        if ended and not running:
            say(gone="all")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"


if __name__ == "__main__":
    main()
