"""What is left of a command that is killed: whole files of what it had found, marked, and nothing hidden after the next run.

    python experiments/kill_commands.py [--model mini] [--moments 10] [--within SECONDS] [--commands induction,trace] [--json]

Each command runs once undisturbed, which says how long it takes, then once for each random moment within that time, at which it
gets a signal (SIGKILL, SIGTERM and SIGINT in turn), then once more to its end. After each, every file in its folder is read:
results by what loads them, tables and pictures to their last byte. The table says at how many moments some file was there, how
many of all files could be read, how many folders were marked as unfinished or held all files of a whole run (of those that hold
files), and how many hidden files and folders were left when the next run had ended.
"""

import argparse
import dataclasses
import json
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import EdgeScores
from circuits.cli.text import table
from circuits.errors import CircuitsError
from circuits.files.reading import read_json
from circuits.files.unfinished import marks
from circuits.graph import Circuit
from circuits.patching import Effects, Trace, Traces
from circuits.search import Curve, Verdict
from circuits.tasks import PromptReport

COMMANDS = {"induction": "induction", "discover": "discover", "recall": "recall", "trace": "trace"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
_LOADED_BY: dict[str, Callable[[Path], Any]] = {
    "circuit.json": Circuit.load,
    "circuit.mib.json": Circuit.load,
    "scores.json": EdgeScores.load,
    "verdict.json": Verdict.load,
    "curve.json": Curve.load,
    "prompts.json": PromptReport.load,
    "sites.json": Effects.load,
    "trace.json": Trace.load,
    "traces.json": Traces.load,
}


@dataclasses.dataclass
class Moment:
    """One run that was stopped: when and by what, its exit status, and what its folder held."""

    seconds: float
    signal: str
    status: int | None
    files: list[str]
    unreadable: list[str]
    marked: bool
    said: str
    """The last line on stderr."""
    hidden: list[str] = dataclasses.field(default_factory=list)
    """What was hidden in the folder when the next run had ended."""


def unreadable(path: Path) -> str | None:
    """Why a file cannot be read to its end; None where it can."""
    try:
        if path.name in _LOADED_BY:
            _LOADED_BY[path.name](path)
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".csv":
            pd.read_csv(path)
        elif path.suffix == ".graphml":
            xml.etree.ElementTree.parse(path)
        elif path.suffix == ".png" and path.read_bytes()[-8:-4] != b"IEND":
            return f"{path.name}: no whole picture"
        elif path.suffix == ".dot" and not path.read_text().rstrip().endswith("}"):
            return f"{path.name}: no whole graph"
    except (CircuitsError, ValueError, OSError, xml.etree.ElementTree.ParseError) as error:
        return f"{path.name}: {error}"
    return None


def hidden(folder: Path) -> list[str]:
    """What a user would not see."""
    return sorted(path.name for path in folder.glob(".*")) if folder.is_dir() else []


def run(words: list[str], folder: Path, stop: tuple[float, signal.Signals] | None = None) -> tuple[float, int, str]:
    """Run a command with its files in a folder, to its end or until it gets a signal; seconds, exit status, last line."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        line = [sys.executable, "-m", "circuits", *words, "--out", str(folder)]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=said)
        try:
            process.wait(None if stop is None else stop[0])
        except subprocess.TimeoutExpired:
            process.send_signal(stop[1] if stop else signal.SIGKILL)
            process.wait()
        said.seek(0)
        lines = said.read().replace("\r", "\n").strip().split("\n")
    return time.monotonic() - begun, process.returncode, lines[-1]


def moments(words: list[str], folder: Path, count: int, within: float, draw: random.Random) -> list[Moment]:
    """Stop a command at random moments, one run after another in the same folder."""
    found: list[Moment] = []
    for place, seconds in enumerate(draw.uniform(0.0, within) for _ in range(count)):
        kind = SIGNALS[place % len(SIGNALS)]
        before = hidden(folder)
        _, status, last = run(words, folder, (seconds, kind))
        if found:
            found[-1].hidden = sorted(set(before) & set(hidden(folder)))
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
        wrong = [said for said in map(unreadable, files) if said is not None]
        names = [path.name for path in files if not path.name.startswith("unfinished-")]
        found.append(Moment(seconds, kind.name, status, names, wrong, any(marks(folder)), last))
    return found


def row_of(name: str, whole: float, found: list[Moment], names: set[str]) -> tuple[str, ...]:
    """One command's row of the table; `names`: the files of a whole run."""
    stopped = [one for one in found if one.status != 0]
    with_files = [one for one in stopped if one.files]
    total, wrong = sum(len(one.files) for one in found), sum(len(one.unreadable) for one in found)
    statuses = all(one.status in (STATUS[signal.Signals[one.signal]], -signal.Signals[one.signal]) for one in stopped)
    return (
        name,
        f"{whole:.0f} s",
        f"{len(stopped)} of {len(found)}",
        f"{len(with_files)}",
        f"{total - wrong} of {total}",
        f"{sum(one.marked or set(one.files) == names for one in with_files)} of {len(with_files)}",
        str(sum(len(one.hidden) for one in found)),
        "as they should be" if statuses else ", ".join(f"{one.signal} {one.status}" for one in stopped),
    )


HEADER = (
    "command",
    "takes",
    "stopped",
    "with files",
    "files read",
    "marked or whole",
    "hidden after the next run",
    "exit statuses",
)


def main() -> None:
    """Parse the command line, kill and look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name")
    parser.add_argument("--moments", type=int, default=10, help="runs of each command that are stopped")
    parser.add_argument("--within", type=float, help="seconds within which they are stopped (default: what a whole run takes)")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="some of induction, discover, recall, trace")
    parser.add_argument("--unfinished", action="store_true", help="with --within: no whole runs, neither before nor after")
    parser.add_argument("--options", default="", help="more options of these commands, as one text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    draw, rows, data = random.Random(options.seed), [], {}
    with tempfile.TemporaryDirectory() as beside:
        for name in options.commands.split(","):
            words = [*COMMANDS[name].split(), "--model", options.model, *shlex.split(options.options)]
            whole, names = options.within or 0.0, set[str]()
            if not options.unfinished:
                whole = run(words, Path(beside) / f"{name}-whole")[0]
                names = {path.name for path in (Path(beside) / f"{name}-whole").rglob("*") if path.is_file()}
            folder = Path(beside) / name
            folder.mkdir()
            found = moments(words, folder, options.moments, options.within or whole, draw)
            before = hidden(folder)
            if not options.unfinished:
                run(words, folder)
                left = {path.name for path in folder.iterdir()}
                expected = {path.name for path in (Path(beside) / f"{name}-whole").iterdir()}
                if left != expected:
                    raise SystemExit(f"kill_commands: after all, {name} leaves {sorted(left ^ expected)} more or less")
            else:
                run(["induction", "--model", "./nowhere"], folder)
            found[-1].hidden = sorted(set(before) & set(hidden(folder)))
            rows.append(row_of(name, whole, found, names))
            data[name] = {"seconds": whole, "moments": [dataclasses.asdict(one) for one in found]}
    if options.json:
        print(json.dumps({"model": options.model, "commands": data}, indent=1))
    else:
        print(f"Stopped at {options.moments} random moments each, {options.model}\n\n{table(HEADER, rows)}")
        for wrong in [said for one in data.values() for moment in one["moments"] for said in moment["unreadable"]]:
            print(wrong)


if __name__ == "__main__":
    main()
