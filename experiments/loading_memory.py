"""How much memory loading a model takes beside its weights, on Linux.

    python experiments/loading_memory.py [--model DIRECTORY|FILE.gguf …] [--dtype float32,bfloat16] [--json]

Each load runs in a process of its own, in which `mini` was loaded before, so that what is imported on the way is not counted.
Told are the sizes of the weights; the most that was resident above what was before; and the most of that which was its
own: the rest are pages of the file itself, which the system takes back where it needs them.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_PAUSE = 0.003


def resident(key: str) -> int:
    """Bytes of this process: `VmRSS`, `VmHWM` (the most so far) or `RssAnon`."""
    return int(re.findall(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)[0]) * 1024


def measured(source: str, dtype: str) -> dict[str, Any]:
    """Load a model here and now, watched by a second thread."""
    import torch

    import circuits

    circuits.load_model("mini")
    _RESET.write_text("5", encoding="ascii")
    before, own, most, done = resident("VmRSS"), resident("RssAnon"), [0], threading.Event()

    def watch() -> None:
        """Keep the largest number of own bytes."""
        while not done.is_set():
            most[0] = max(most[0], resident("RssAnon") - own)
            time.sleep(_PAUSE)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        model = circuits.load_model(source, dtype=getattr(torch, dtype))
    finally:
        done.set()
        watching.join()
    return {"weights": model.weights.nbytes, "peak": resident("VmHWM") - before, "own": most[0]}


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row a model and type."""
    for source in options.model:
        for dtype in options.dtype.split(","):
            line = [sys.executable, __file__, "--here", "--model", source, "--dtype", dtype, "--json"]
            told = subprocess.run(line, check=True, capture_output=True, text=True).stdout
            yield {"model": Path(source).name, "dtype": dtype, **json.loads(told.splitlines()[-1])}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["mini"], help="directories, GGUF files or names (default: mini)")
    parser.add_argument("--dtype", default="float32,bfloat16", help="types, between commas")
    parser.add_argument("--here", action="store_true", help="load one model in this process")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    if not _RESET.exists():
        raise SystemExit("loading_memory: the peak of a process is told and reset by Linux alone")
    if options.here:
        print(json.dumps(measured(options.model[0], options.dtype)))
        return
    for row in rows(options):
        peak, own = (f"{row[name] / 2**20:,.0f} MiB ({row[name] / row['weights']:.2f} times)" for name in ("peak", "own"))
        size = f"weights {row['weights'] / 2**20:,.0f} MiB"
        print(json.dumps(row) if options.json else f"{row['model']}, {row['dtype']}: {size}, peak {peak}, own memory {own}")


if __name__ == "__main__":
    main()
