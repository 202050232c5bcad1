"""Commands in processes of their own, stopped by signals at random moments: one line, 128 + n, and a folder in order."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circuits.errors import FileFormatError
from circuits.files.unfinished import load_mark
from tests import HANGS

COMMANDS = {
    "induction": ["induction", "--sequences", "4"],
    "trace": ["trace", "--draws", "4"],
    "discover": ["discover", "--count", "12"],
    "patch": ["patch", "--count", "4", "--nodes", "heads"],
}


def as_from_a_terminal() -> None:
    """Hear signals that whoever is started in the background of a shell does not hear."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_run_in_order(name: str, number: int, tmp_path: Path) -> None:
    out, draw = tmp_path / "out", random.Random(f"{name} {number}")
    line = [sys.executable, "-m", "circuits", *COMMANDS[name], "--out", str(out)]
    run = subprocess.Popen(
        line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_from_a_terminal,
    )
    ends = time.monotonic() + HANGS
    while run.poll() is None and not list(tmp_path.glob("out/.*.tmp")) and time.monotonic() < ends:
        time.sleep(0.01)  # it has begun
    time.sleep(2.0 * draw.random())
    run.send_signal(number)
    _, said = run.communicate(timeout=HANGS)
    if run.returncode == 0:
        pytest.skip("it was done before it could be stopped")
    assert run.returncode == 128 + number, said
    last = said.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("Error: ") and ("interrupted" in last or f"stopped by {signal.Signals(number).name}" in last)
    assert "Traceback" not in said
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".journal"]
    assert not [path for path in left if path.name.startswith(".")], left
    marks = [path for path in left if path.name.startswith("unfinished-")]
    if not left:
        assert "nothing was written" in last
        return
    (mark,) = marks
    try:
        found = load_mark(mark)
    except FileFormatError as error:  # pragma: no cover
        raise AssertionError(str(error)) from None
    assert set(found.done) == {path.relative_to(out).as_posix() for path in left} - {mark.name}
    assert "interrupted" in found.ended or "stopped by" in found.ended
