"""What each stage of a discovery, or of judging a circuit, costs on a model, in plain forwards.

    python experiments/judging_costs.py --model DIRECTORY [--job evaluate] [--task ioi] [--count 64] [--minimality all]

A forward is one plain Hugging Face forward over the job's own clean and corrupt prompts with all logits, timed in this process
right after it; stages are counted by time of processors, which other work on the machine changes less. With --job discover half
of the pairs are searched on and half held out; with --job evaluate all judge the strongest edges by EAP, or those of a file
(--circuit). Stages are what progress tells of; what is timed between two of them is the base runs for the most part.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import circuits
from circuits.cli.text import table
from circuits.graph import Circuit
from circuits.search.judging.extent import JudgingTime, Minimality
from circuits.tasks import task
from experiments.command_costs import Plain


class Stages:
    """Progress that adds up the seconds of processors that what it is told of takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._what, self._since = "base runs and the rest", time.process_time()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.process_time()
        self.seconds[self._what] = self.seconds.get(self._what, 0.0) + now - self._since
        self._what, self._since = what if done < total else "base runs and the rest", now


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Run the job, then the plain forward."""
    model = circuits.load_model(options.model)
    one = task(options.task)
    pairs = one.draw(model, options.count, options.seed).pairs
    metric, size = one.metric(model, pairs), max(1, round(options.share * model.graph().edge_count))
    circuit = None if options.circuit is None else Circuit.load(options.circuit)
    if options.job == "evaluate" and circuit is None:
        some = one.draw(model, 8, options.seed + 1).pairs
        circuit = circuits.attribute_edges(model, some, one.metric(model, some), method="eap").top(size)
    told = list[JudgingTime]()
    how: dict[str, Any] = {"minimality": options.minimality, "random_circuits": options.random_circuits, "seed": options.seed}
    stages, began, busy = Stages(), time.perf_counter(), time.process_time()
    how |= {"progress": stages, "expected": told.append}
    if circuit is not None and options.job == "evaluate":
        verdict = circuits.evaluate(model, circuit, pairs, metric, **how)
    else:
        verdict = circuits.discover(model, pairs, metric, method=options.method, edges=size, **how).verdict
    stages("", 1, 1)
    whole, cpu = time.perf_counter() - began, time.process_time() - busy
    forward, cpu_forward = Plain(options.model).seconds([tuple(side.ids.shape) for side in (pairs.clean, pairs.corrupt)])
    return {
        "job": options.job,
        "verdict": verdict.summary,
        "nodes": verdict.nodes,
        "forward": forward,
        "seconds": whole,
        "forwards": whole / forward,
        "cpu_seconds": cpu,
        "cpu_forwards": cpu / cpu_forward,
        "stages": {name: seconds / cpu_forward for name, seconds in stages.seconds.items()},
        "expected": {} if not told else {name: seconds / forward for name, seconds in told[0].seconds.items()},
    }


def minimality(text: str) -> Minimality:
    """What --minimality says."""
    return {"usual": True, "none": False, "all": "all"}[text] if not text.isdigit() else int(text)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face directory, or a hub name")
    parser.add_argument("--job", choices=("discover", "evaluate"), default="evaluate")
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--count", type=int, default=64, help="pairs")
    parser.add_argument("--share", type=float, default=0.02, help="of all edges, what the circuit has")
    parser.add_argument("--method", help="with --job discover: how edges are found")
    parser.add_argument("--circuit", help="with --job evaluate: a file with the circuit")
    parser.add_argument("--minimality", type=minimality, default=True, metavar="usual|all|none|N")
    parser.add_argument("--random-circuits", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = work(options)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    rows = [(name, f"{forwards:.2f}") for name, forwards in sorted(found["stages"].items(), key=lambda one: -one[1])]
    print(found["verdict"])
    by_cpu = f"{found['cpu_seconds']:.1f} s of processors, {found['cpu_forwards']:.1f} forwards"
    print(f"{found['seconds']:.1f} s, {found['forwards']:.1f} forwards of {found['forward']:.2f} s; {by_cpu}")
    print(table(("stage", "forwards by time of processors"), rows))
    print(table(("announced", "forwards"), [(name, f"{one:.1f}") for name, one in found["expected"].items()]))


if __name__ == "__main__":
    main()
