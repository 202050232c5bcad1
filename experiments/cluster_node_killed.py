"""Two nodes of a Ray cluster on this machine share a command, and one of them is killed: are the files those of one process?

    pip install 'transformer-circuits[ray]'
    python experiments/cluster_node_killed.py [--facts 24] [--model mini] [--json]

`circuits trace --facts` runs by itself with one thread, then with `--ray HOST:PORT --workers 3` on two nodes with room for two
actors each. When an actor of the second node is at work, all processes of that node get SIGKILL: its raylet, and its actors
with it. Files are compared byte by byte.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.killed_and_resumed import digests, facts_file

_MOST = 300.0
"""Seconds after which a run is given up."""


def begun(words: list[str], folder: Path) -> "subprocess.Popen[str]":
    """The command, with one thread, in a process of its own."""
    whole = [sys.executable, "-m", "circuits", *words, "--out", str(folder)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.Popen(whole, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def alive(node: Any) -> list[int]:
    """The processes of a node that are there."""
    kinds = node.all_processes.values()
    return [one.process.pid for kind in kinds for one in kind if one.process.poll() is None]


def actors_of(raylet: int) -> list[int]:
    """Processes below a raylet that have joined the run: they hold a connection, and the model."""
    told = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(raylet)], capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in told.splitlines() if "Worker" in line or "actor" in line.lower()]


def killed_run(words: list[str], folder: Path, seconds: float) -> dict[str, Any]:
    """The command on a cluster whose second node is killed when it works."""
    from ray.cluster_utils import Cluster

    room = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=room)
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        cluster.wait_for_nodes()
        start = time.monotonic()
        run = begun([*words, "--ray", cluster.address, "--workers", "3"], folder)
        raylet = next(one.process.pid for kind, found in second.all_processes.items() if kind == "raylet" for one in found)
        while run.poll() is None and not actors_of(raylet) and time.monotonic() < start + _MOST:
            time.sleep(0.2)
        working = actors_of(raylet)
        time.sleep(seconds / 4)  # it has loaded the model, and holds a shard
        still = run.poll() is None
        gone = alive(second)
        cluster.remove_node(second, allow_graceful=False)
        _, errors = run.communicate(timeout=_MOST)
        took = time.monotonic() - start
        return {
            "status": run.returncode,
            "seconds": took,
            "actors on the second node": len(working),
            "killed while it ran": still,
            "processes killed": len(gone),
            "said": [line for line in errors.splitlines() if "worker" in line],
        }
    finally:
        cluster.shutdown()


def main() -> None:
    """Parse the command line, run by itself and on a cluster that loses a node, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name")
    parser.add_argument("--facts", type=int, default=24, help="facts that are traced")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if importlib.util.find_spec("ray") is None:
        parser.exit(2, "cluster_node_killed: needs Ray: pip install 'transformer-circuits[ray]'\n")
    with tempfile.TemporaryDirectory() as beside:
        folder = Path(beside)
        facts = facts_file(folder, options.facts)
        words = ["trace", "--facts", str(facts), "--draws", "2", "--model", options.model]
        start = time.monotonic()
        alone = begun(words, folder / "alone")
        if alone.wait() != 0:
            raise SystemExit(alone.stderr.read() if alone.stderr else "")
        seconds = time.monotonic() - start
        found = {"alone": seconds, **killed_run(words, folder / "shared", seconds)}
        found["same bytes"] = digests(folder / "alone") == digests(folder / "shared")
    print(json.dumps(found, indent=1) if options.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    raise SystemExit(not (found["same bytes"] and found["killed while it ran"]))


if __name__ == "__main__":
    main()
