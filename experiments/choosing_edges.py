"""How much of a behaviour a circuit keeps, by how its edges are chosen and how many they are.

    python experiments/choosing_edges.py [--model DIRECTORY] [--task ioi:swap] [--methods eap-ig,refine] [--json]

One of the tasks (default: indirect object identification) on any model (default: mini, far too small for that one), measured by
its own metric, on its prompts as they are drawn, right or wrong. Half of the pairs are searched on; the
other half says what the circuit keeps (the whole model 1, the corrupt prompts 0) with 95 % intervals. Methods that score edges
are taken by size and by support of the metric; `refine` searches anew for every size; `shrink` goes down to the smallest, its
order gives the others. Cost: in plain forwards of the clean and corrupt prompts searched on, with all logits, timed in the same
run.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import attribute_edges
from circuits.errors import CircuitsError
from circuits.graph import Circuit
from circuits.models import Model, load_model
from circuits.patching.subgraphs.members import Members
from circuits.search import refine, shrink
from circuits.search.discover import split
from circuits.search.judging.judge import Judge
from circuits.tasks import PromptPairs, task
from circuits.tasks.metric import Metric
from experiments.attribution_convergence import forwards, timed


def chosen(
    model: Model, pairs: PromptPairs, metric: Metric, method: str, sizes: list[int], steps: int | None
) -> dict[tuple[str, int], tuple[Circuit, float]]:
    """For each way of choosing and each size the circuit, and the seconds of its search."""
    if method == "refine":
        runs = {size: timed(lambda size=size: refine(model, pairs, metric, edges=size)) for size in sizes}
        return {("refine", size): run for size, run in runs.items()}
    if method == "shrink":
        scores, seconds = timed(lambda: shrink(model, pairs, metric, edges=min(sizes)))
        return {("shrink", size): (scores.top(size, connected=True), seconds) for size in sizes}
    scores, seconds = timed(lambda: attribute_edges(model, pairs, metric, method=method, steps=steps))
    ways = ("size", "support")
    return {(f"{method}, {by}", size): (scores.top(size, by=by, connected=True), seconds) for by in ways for size in sizes}


def named(options: argparse.Namespace) -> str:
    """The task's name with its corruption."""
    return options.task if options.corruption is None else f"{options.task}:{options.corruption}"


def measure(model: Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way of choosing and each size."""
    asked = task(named(options))
    pairs = asked.pairs(model, options.count, options.seed)
    metric = asked.metric(model, pairs)
    searched, held_out = split(pairs, options.seed)
    sizes = [max(1, round(float(share) * model.graph().edge_count)) for share in options.shares.split(",")]
    one, judge, rows = forwards(model, searched), Judge(model, held_out, metric), []
    for method in options.methods.split(","):
        for (way, size), (circuit, seconds) in chosen(model, searched, metric, method, sizes, options.steps).items():
            (kept,) = judge.effects(judge.changes([Members.of(circuit)], ""), seed=options.seed)
            row = {"chosen by": way, "asked for": size, "edges": len(circuit), "keeps": kept.effect, "low": kept.low}
            rows.append({**row, "high": kept.high, "forwards": seconds / one})
            if not options.json:
                print(f"{way}: {len(circuit):,} edges keep {kept.effect:.2f} [{kept.low:.2f}, {kept.high:.2f}]", flush=True)
    return rows


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--task", default="ioi", help="which task, such as induction or ioi:swap (default: ioi)")
    parser.add_argument("--corruption", help="the same as --task TASK:CORRUPTION")
    parser.add_argument("--count", type=int, default=64, help="pairs of prompts, half of them held out (default: 64)")
    parser.add_argument("--methods", default="eap,eap-ig,relp,shrink,refine", help="ways to choose, with commas between them")
    parser.add_argument("--steps", type=int, help="points of integrated methods (default: each method's own)")
    parser.add_argument("--shares", default="0.005,0.01,0.02,0.05,0.1", help="of all edges, with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        rows = measure(load_model(options.model), options)
    except (CircuitsError, OSError, ValueError) as error:
        print(f"choosing_edges: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps({"model": options.model, "task": named(options), "rows": rows}))
        return
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
