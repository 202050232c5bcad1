"""Long commands that are killed at random moments and run again until they end: are their files those of an undisturbed run?

    python experiments/killed_and_resumed.py [--kills 50] [--commands discover,trace] [--model mini] [--overhead 0] [--json]

Each command runs twice undisturbed, then in a fresh folder over and over with SIGKILL at a random moment of the processor time
that a whole run takes, until one ends by itself, for each goes on where the one before it was; then in another folder, until
it has been killed so many times. What is killed how often is said as it goes, and Ctrl-C prints the table of what was done.
After every kill all bytes of its journal are read: is what an earlier run had kept still there, is no shard there twice? After
every end all files are compared with those of the undisturbed run, byte by byte, and what is hidden or marked is counted.
Processes are forked from one that has everything imported, so that moments fall into the work. With `--overhead` each command
runs so many times with and without its journal, in turn: the median of processor seconds with, as a ratio to those without.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from circuits import tasks
from circuits.cli import app, settings
from circuits.cli.text import table
from circuits.runs.journal import Journal

_PAST = 1.5
"""How far moments go, in times of a whole run, which takes more of the processor on a busy machine: some come too late."""
COMMANDS = {
    "discover": "discover --count 8 --method eap-ig --edges 30",
    "refine": "discover --count 8 --edges 30",
    "acdc": "discover --count 4 --method acdc --edges 20",
    "trace": "trace --facts FACTS --draws 2",
    "patch": "patch --count 4 --nodes neurons",
    "recall": "recall --count 4",
    "behaviour": "behaviour --out OUT/behaviour.csv",
    "neuron": "neuron m2.n5",
    "neurons": "neurons --words 500 --sentences 4 --layers 2",
    "prune": "discover --count 4 --method prune --edges 20 --no-minimality --random-circuits 0",
    "explain": "explain m2.n5",
    "explain-layer": "explain m2 --neurons 0-29",
    "explain-module": "explain m2 --sasc",
    "tables-layers": "tables layers --limit 1024 --memory 16",
    "tables-terms": "tables terms --limit 512 --memory 16",
    "probe-anomaly": "probe anomaly --pairs 40 --limit 4000",
    "compose": "compose m2.n5 --words 3000 --moves 20 --use 8",
    "probe": "probe --words 1000 --layers 1,2,3 --seeds 1 --hidden 0",
    "probe-tree": "probe tree --words 500 --layers 1,2",
    "probe-spans": "probe spans --words 500 --layers 1,2",
    "probe-coreference": "probe coreference",
    "probe-heads": "probe heads",
    "lens": "lens train OUT/tuned.safetensors --text TEXT --steps 20",
    "classify": "classify train --train all --count 400 --epochs 1",
}
"""What is killed: `FACTS` stands for a file of facts that the bundled model knows, `TEXT` for a text, `OUT` for the folder."""


def facts_file(folder: Path, count: int) -> Path:
    """Facts of the bundled model in ROME's layout."""
    rows = [
        {"known_id": number, "subject": fact.subject, "attribute": fact.attribute.strip(), "prompt": fact.prompt}
        for number, fact in enumerate(tasks.mini_facts()[:count])
    ]
    (folder / "facts.json").write_text(json.dumps(rows))
    return folder / "facts.json"


def text_file(folder: Path) -> Path:
    """A text that is long enough to train a lens on."""
    lines = [f"{fact.prompt} {fact.attribute.strip()}." for fact in tasks.mini_facts()]
    (folder / "text.txt").write_text("\n".join(lines * 40))
    return folder / "text.txt"


def started(words: Sequence[str], folder: Path, *, kept: bool = True) -> int:
    """A process that runs a command with its files in a folder, and says nothing; without its journal where not `kept`."""
    child = os.fork()
    if child:
        return child
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    if not kept:
        settings.running = lambda run: contextlib.nullcontext()  # type: ignore[assignment, misc]
    status = 1
    try:
        where = [] if "--out" in words else ["--out", str(folder)]
        if not where:
            folder.mkdir(exist_ok=True)
        status = app(args=[*(word.replace("OUT/", f"{folder}/") for word in words), *where], standalone_mode=False) or 0
    finally:
        os._exit(status)


def ended(child: int, seconds: float) -> int | None:
    """The wait status of a process that ends within some seconds of its own; None where it has to be killed, and is."""
    clock = (~child << 3) | 2  # a process's processor time: how busy the machine is makes no difference
    while time.clock_gettime(clock) < seconds:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def digests(folder: Path) -> dict[str, str]:
    """Every file in a folder, those that are hidden too, by content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def shards_in(folder: Path) -> list[tuple[int, int]]:
    """The shards in a folder's journal, as often as they are there."""
    found: list[tuple[int, int]] = []
    for path in folder.glob("unfinished-*.journal"):
        journal = Journal(path, {}, {}, path.open("rb"), None)
        start, size = len(b"circuits journal 1\n"), path.stat().st_size
        while (record := journal._record(start, size)) is not None:
            head, _, start = record
            found += [(head["place"], head["shard"])] if "shard" in head else []
        journal.file.close()
    return found


def undisturbed(words: Sequence[str], folder: Path) -> float:
    """Processor seconds that a command takes to its end."""
    _, status, used = os.wait4(started(words, folder), 0)
    if status != 0:
        raise SystemExit(f"killed_and_resumed: circuits {' '.join(words)} does not run")
    return used.ru_utime + used.ru_stime


def killed(words: Sequence[str], beside: Path, kills: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Kill a command so many times, and say what became of it: after each end, and last when all kills are done."""
    folder, took, expected = beside / "run", list[float](), dict[str, str]()  # one folder: files say which command made them
    for _ in range(2):  # what the first imports, no later one does
        took.append(undisturbed(words, folder))
        expected = digests(folder)
        shutil.rmtree(folder)
    whole = min(took)
    if not expected:
        raise SystemExit(f"killed_and_resumed: circuits {' '.join(words)} writes nothing")
    said = {"seconds": whole, "kills": 0, "ends": 0, "same": 0, "resumed": 0, "lost": 0, "twice": 0, "hidden": 0}
    while said["kills"] < kills:
        before = list[tuple[int, int]]()
        while (status := ended(started(words, folder), draw.uniform(0.0, _PAST * whole))) is None:
            said["kills"] += 1
            after = shards_in(folder)
            said["resumed"] += bool(before)
            said["lost"] += len(set(before) - set(after))
            said["twice"] += len(after) - len(set(after))
            before = after
        found = digests(folder)
        said["ends"] += 1
        said["same"] += status == 0 and found == expected
        said["hidden"] += sum(name.startswith(".") or "unfinished" in name for name in found)
        shutil.rmtree(folder, ignore_errors=True)
        yield said


def overhead(words: Sequence[str], beside: Path, times: int) -> float:
    """Processor seconds of a command with its journal, as a ratio to those without: medians of runs in turn."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for number in range(times):
        for kept in (True, False):
            child = started(words, beside / f"overhead-{kept}-{number}", kept=kept)
            _, _, used = os.wait4(child, 0)
            took[kept].append(used.ru_utime + used.ru_stime)
    return statistics.median(took[True]) / statistics.median(took[False])


HEADER = (
    "command",
    "takes",
    "kills",
    "ends",
    "same bytes",
    "killed after going on",
    "shards lost",
    "computed twice",
    "left over",
)


def measure(options: argparse.Namespace, beside: Path, data: dict[str, dict[str, Any]]) -> None:
    """Kill each command, and put what became of it into `data` as it goes."""
    draw, facts, text = random.Random(options.seed), facts_file(beside, options.facts), text_file(beside)
    for name in options.commands.split(","):
        words = [{"FACTS": str(facts), "TEXT": str(text)}.get(word, word) for word in COMMANDS[name].split()] + [
            "--model",
            options.model,
        ]
        (beside / name).mkdir()
        found: dict[str, Any] = {} if options.kills else {"seconds": 0.0}
        for found in killed(words, beside / name, options.kills, draw) if options.kills else ():
            data[name] = dict(found)
            print(f"{name}: {found['kills']} kills, {found['same']} of {found['ends']} ends the same bytes", file=sys.stderr)
        if options.overhead:
            data[name] = {**found, "overhead": overhead(words, beside / name, options.overhead)}


def main() -> None:
    """Parse the command line, kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name")
    parser.add_argument("--kills", type=int, default=50, help="kills of each command")
    parser.add_argument("--commands", default=",".join(COMMANDS), help=f"some of {', '.join(COMMANDS)}")
    parser.add_argument("--facts", type=int, default=16, help="facts that trace takes")
    parser.add_argument("--overhead", type=int, default=0, help="runs with and without the journal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other threads
    data: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as beside, contextlib.suppress(KeyboardInterrupt):
        measure(options, Path(beside), data)
    rows = []
    for name, (seconds, *counts) in ((name, found.values()) for name, found in data.items()):
        rows.append((name, f"{seconds:.1f} s", *(f"{one:.3f}" if isinstance(one, float) else str(one) for one in counts)))
    header = (*(HEADER if options.kills else HEADER[:2]), *(["with journal / without"] if options.overhead else []))
    rows = [(*row, *[""] * (len(header) - len(row))) for row in rows]
    print(json.dumps({"model": options.model, "commands": data}, indent=1) if options.json else table(header, rows))


if __name__ == "__main__":
    main()
