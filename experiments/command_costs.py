"""What each command costs on a model: seconds to the first word and to the end in plain forwards, and memory.

    python experiments/command_costs.py --model DIRECTORY [--commands heads,lens] [--folder out/command_costs] [--json]

Each command runs as a user would run it, in a process of its own. A forward is one plain Hugging Face forward over the own
tokens of the command with all logits, timed right after it; loading and what comes before are left out. First: the first line
on stdout or the first whole file, whichever is earlier; silent: the longest time without a character on stdout or stderr. What
was measured is kept in --folder, so that a few commands can be measured at a time: --commands "" prints the table of all.
"""

import argparse
import dataclasses
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.cli.text import table
from circuits.models.loading.sources import resolve
from experiments.command_costs_jobs import JOBS, SHARE, Shapes, command_line

_RUNNER = Path(__file__).with_name("command_costs_jobs.py")
_AT_ONCE = 2048
"""Tokens of a plain forward; it would take twice as long over twice as many."""
_NEEDS_CIRCUITS = ("CIRCUIT", "OTHER")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one command took. Seconds count from when its model was loaded (from its start where it loads none)."""

    command: str
    line: str
    about: str
    status: int
    start: float
    """Seconds from its start until the model was loaded."""
    first: float | None
    silent: float
    seconds: float
    forward: float | None
    """Seconds of one plain forward over its own tokens."""
    peak: int
    """Bytes at most, the program and its libraries among them."""
    loaded: int
    """Bytes at most until the model was loaded."""
    before: int
    """Bytes before it was loaded."""
    weights: int
    """Bytes of the model's weights."""
    said: str = ""
    """The last line on stderr where it failed."""
    cpu_seconds: float | None = None
    """Seconds of both processors, as `seconds`."""
    cpu_forward: float | None = None
    """The same of a plain forward."""

    @property
    def forwards(self) -> float | None:
        """The whole job in plain forwards."""
        return self.seconds / self.forward if self.forward else None

    @property
    def cpu_forwards(self) -> float | None:
        """The same by the time of processors, which other work on the machine changes less."""
        return self.cpu_seconds / self.cpu_forward if self.cpu_seconds and self.cpu_forward else None


class Plain:
    """Hugging Face's own model, loaded when it is first asked for."""

    def __init__(self, directory: str) -> None:
        self.directory, self.network = directory, None

    @torch.no_grad()
    def seconds(self, shapes: Shapes) -> tuple[float, float]:
        """One forward over prompts of these shapes, with all logits: the median of three, or of one where that takes long; by
        the clock, and of processors."""
        if self.network is None:
            from transformers import AutoModelForCausalLM

            self.network = AutoModelForCausalLM.from_pretrained(resolve(self.directory), dtype=torch.float32).eval()
        network: Any = self.network
        total, cpu = 0.0, 0.0
        for rows, width in shapes:
            some = min(rows, max(1, _AT_ONCE // width))
            ids = torch.randint(network.config.vocab_size, (some, width), generator=torch.Generator().manual_seed(0))
            times = []
            for _ in range(4):
                start, busy = time.perf_counter(), time.process_time()
                assert network(ids).logits.shape[:2] == ids.shape
                times.append((time.perf_counter() - start, time.process_time() - busy))
                if times[-1][0] > 3:
                    break
            clock, own = zip(*(times[1:] or times), strict=True)
            total, cpu = total + statistics.median(clock) * rows / some, cpu + statistics.median(own) * rows / some
        return total, cpu


def measure(name: str, model: str, folder: Path, threads: int, plain: Plain) -> Cost:
    """Run one command and watch it."""
    job, record_file = JOBS[name], folder / "record.json"
    shutil.rmtree(folder / "files", ignore_errors=True)
    (folder / "files").mkdir()
    record_file.unlink(missing_ok=True)
    words = [sys.executable, str(_RUNNER), "--threads", str(threads), str(record_file), name, model, str(folder)]
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        watch = _Watch(process, folder / "files")
        watch.join()
    if not record_file.is_file():
        raise SystemExit(f"command_costs: {name} left no record (exit status {process.returncode}): {watch.last}")
    record = json.loads(record_file.read_text())
    start, shapes = record.get("load ends", began), [tuple(one) for one in record.get("tokens", [])]
    words = [f"'{word}'" if " " in word else word for word in command_line(job, "MODEL", Path())]
    stamps = [stamp for stamp in (watch.line, watch.file) if stamp is not None]
    heard = [start, *sorted(stamp for stamp in watch.heard if start < stamp < record["ends"]), record["ends"]]
    forward, cpu_forward = plain.seconds(shapes) if shapes else (None, None)
    return Cost(
        command=name,
        line=" ".join(["circuits", *words]),
        about=job.about,
        status=record["status"],
        start=start - began,
        first=min(stamps) - start if stamps else None,
        silent=max(after - before for before, after in itertools.pairwise(heard)),
        seconds=record["ends"] - start,
        forward=forward,
        peak=record["peak"],
        loaded=record.get("peak loaded", 0),
        before=record.get("peak before", 0),
        weights=record.get("weights", 0),
        said=watch.last if record["status"] else "",
        cpu_seconds=record["cpu"],
        cpu_forward=cpu_forward,
    )


class _Watch:
    """Notes when a process says something, and when a file of its own is there."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.line: float | None = None
        self.file: float | None = None
        self.heard: list[float] = []
        self.last = ""
        self._process, self._folder = process, folder
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, True)),
            threading.Thread(target=self._read, args=(process.stderr, False)),
            threading.Thread(target=self._look),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, answers: bool) -> None:
        while text := stream.read1(65536):
            now = time.monotonic()
            self.heard.append(now)
            if answers and self.line is None and text.strip():
                self.line = now
            if not answers:
                self.last = ([self.last, *text.decode(errors="replace").replace("\r", "\n").strip().split("\n")])[-1]

    def _look(self) -> None:
        while self._process.poll() is None and self.file is None:
            names = [path.name for path in self._folder.rglob("*") if path.is_file()]
            if any(not name.startswith((".", "unfinished-", "tmp")) for name in names):
                self.file = time.monotonic()
            time.sleep(0.05)

    def join(self) -> None:
        """Wait for the end."""
        for thread in self._threads:
            thread.join()
        self._process.wait()


def row(cost: Cost) -> tuple[str, ...]:
    """A row of the table."""
    megabytes = f"{cost.peak / 1e6:,.0f} MB"
    sized = f" ({cost.peak / cost.weights:.1f} × the weights)" if cost.weights else ""
    one = "" if cost.forward is None else f"{cost.forward:.2f} s"
    forwards = ["" if many is None else f"{many:.1f}" for many in (cost.forwards, cost.cpu_forwards)]
    first = "" if cost.first is None else f"{cost.first:.1f} s"
    return (
        cost.line,
        cost.about,
        first,
        f"{cost.silent:.1f} s",
        f"{cost.seconds:.1f} s",
        one,
        *forwards,
        megabytes + sized,
        "" if not cost.status else f"exit status {cost.status}: {cost.said}",
    )


HEADER = ("command", "its own tokens", "first", "silent", "whole job", "a forward", "forwards", "by CPU", "peak memory", "")


def main() -> None:
    """Parse the command line, run the commands, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a bundled model, a Hugging Face directory, or a hub name")
    parser.add_argument("--commands", default=",".join(JOBS), help=f"some of {', '.join(JOBS)}")
    parser.add_argument("--folder", type=Path, default=Path("out/command_costs"), help="where what was measured is kept")
    parser.add_argument("--share", type=float, default=SHARE, help="of all edges, what the circuits have that are judged")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="the table as a page holds it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    names = [name for name in options.commands.split(",") if name]
    if unknown := [name for name in names if name not in JOBS]:
        parser.error(f"unknown command {unknown[0]!r}: there are {', '.join(JOBS)}")
    torch.set_num_threads(options.threads)
    (options.folder / "costs").mkdir(parents=True, exist_ok=True)
    if any(word in _NEEDS_CIRCUITS for name in names for word in JOBS[name].words):
        _prepare(options.model, options.folder, options.share)
    plain = Plain(options.model)
    for name in names:
        cost = measure(name, options.model, options.folder, options.threads, plain)
        (options.folder / "costs" / f"{name}.json").write_text(json.dumps(dataclasses.asdict(cost), indent=1))
        print("  ".join(part for part in row(cost) if part), file=sys.stderr)
    kept = [options.folder / "costs" / f"{name}.json" for name in JOBS]
    show([Cost(**json.loads(path.read_text())) for path in kept if path.is_file()], options)


def _prepare(model: str, folder: Path, share: float) -> None:
    """The circuits that commands are about, where they are not there yet."""
    if not (folder / "other.json").is_file():
        words = [sys.executable, str(_RUNNER), "--prepare", "--share", str(share), model, str(folder)]
        subprocess.run(words, check=True)


def show(costs: Sequence[Cost], options: argparse.Namespace) -> None:
    """Print the table."""
    if options.json:
        ratios = [{"forwards": cost.forwards, "cpu_forwards": cost.cpu_forwards} for cost in costs]
        print(json.dumps([dataclasses.asdict(cost) | more for cost, more in zip(costs, ratios, strict=True)], indent=1))
        return
    rows = [row(cost) for cost in costs]
    if options.markdown:
        lines = [HEADER[:-1], ("---",) * (len(HEADER) - 1), *((f"`{one[0]}`", *one[1:-1]) for one in rows)]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    loaded = [cost for cost in costs if cost.weights]
    if loaded:
        seconds, most = statistics.median(cost.start for cost in loaded), max(cost.loaded for cost in loaded)
        print(
            f"weights {loaded[0].weights / 1e6:,.0f} MB; until they were loaded {seconds:.1f} s and "
            f"{loaded[0].before / 1e6:,.0f} to {most / 1e6:,.0f} MB\n"
        )
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
