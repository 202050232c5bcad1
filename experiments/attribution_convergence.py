"""How many points integrated attribution needs, and how well its best edges fare when they are patched.

    python experiments/attribution_convergence.py [--model DIRECTORY] [--corruption swap] [--count 8] [--out FOLDER] [--json]
    python experiments/attribution_convergence.py --only patching --edges 300
    python experiments/attribution_convergence.py --only nodes

Indirect object identification, on any model (default: mini, far too small for the task). `convergence`: every edge's score by
the methods and numbers of points asked for, beside the most points: rank correlation of all edges and of the strongest
`--edges`, how many of these are the same, and the completeness error, how far the edges out of the input are from adding up to
the gap between clean and corrupt prompts. `patching`: the strongest edges by each method patched exactly, one by one: rank
correlation of estimate and effect, share of like sign, and what all of it takes, in plain forwards of the clean and the corrupt
prompts with all logits, timed in the same run. `nodes`: every head and MLP by attribution, beside exact patching of noising
(corrupt values into the clean run, which attribution estimates) and of denoising (the reverse), and which of the strongest
20 are the same.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import EdgeScores, attribute_edges, attribute_nodes
from circuits.attribution.rules import RULES
from circuits.errors import CircuitsError
from circuits.models import Model, load_model
from circuits.patching import patch_edges, patch_nodes
from circuits.statistics import spearman
from circuits.tasks import PromptPairs
from circuits.tasks.library.ioi import ioi
from circuits.tasks.metrics import logit_difference

PARTS = ("convergence", "patching", "nodes")
STRONGEST = 20
"""Nodes of which it is said how many are the same."""


def forwards(model: Model, pairs: PromptPairs, *, rounds: int = 3) -> float:
    """Seconds of a plain forward of the clean and the corrupt prompts with all logits: the least of some rounds."""

    @torch.no_grad()
    def both() -> None:
        for side in (pairs.clean, pairs.corrupt):
            model.run(side, keep="logits")

    both()
    return min(timed(both)[1] for _ in range(rounds))


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and how many seconds it takes."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def beside(found: EdgeScores, best: EdgeScores, edges: int) -> dict[str, float]:
    """How scores agree with those of more points: of all edges, of the strongest by these, and which are the strongest."""
    top = best.order()[:edges]
    shared = set(top.tolist()) & set(found.order()[:edges].tolist())
    ranks = {"rank, all": spearman(found.values, best.values), "rank, strongest": spearman(found.values[top], best.values[top])}
    return {**ranks, "shared": len(shared) / len(top)}


def convergence(model: Model, pairs: PromptPairs, asked: dict[str, list[int]], edges: int) -> list[dict[str, Any]]:
    """A row a method and number of points; the gradient at the clean prompts alone is held against eap-ig."""
    unit, runs = forwards(model, pairs), {}
    for method, steps in asked.items():
        for count in steps:
            run = lambda method=method, count=count: attribute_edges(model, pairs, logit_difference, method=method, steps=count)  # noqa: E731
            runs[method, count] = timed(run)
    rows = []
    for (method, count), (found, seconds) in runs.items():
        like = "eap-ig" if method == "eap" else method
        best = runs[like, max(asked[like])][0]
        told = found.metadata["completeness"]
        sums = {"sum": told["input_edges"], "gap": told["gap"], "error": told["error"]}
        rows.append({"method": method, "points": count, **sums, **beside(found, best, edges), "forwards": seconds / unit})
    return rows


def patching(model: Model, pairs: PromptPairs, methods: list[str], edges: int) -> list[dict[str, Any]]:
    """A row a method: its strongest edges, and what patching them says."""
    unit, rows = forwards(model, pairs), []
    for method in methods:
        found, attributed = timed(lambda method=method: attribute_edges(model, pairs, logit_difference, method=method))
        best = found.top(edges)
        names, estimates = list(best.edges), torch.tensor(list(best.edges.values()), dtype=torch.float64)
        effects, patched = timed(lambda names=names: patch_edges(model, pairs, logit_difference, names, direction="noising"))
        exact = (effects.scores - effects.clean).mean(dim=1)
        alike = {"rank": spearman(estimates, exact), "same sign": float((estimates.sign() == exact.sign()).double().mean())}
        sizes = {"sum of estimates": float(estimates.sum()), "sum of effects": float(exact.sum())}
        taken = {"forwards, scores": attributed / unit, "forwards, patching": patched / unit}
        rows.append({"method": method, "edges": len(names), **alike, **sizes, **taken})
    return rows


def nodes(model: Model, pairs: PromptPairs, methods: list[str], ways: list[str]) -> list[dict[str, Any]]:
    """A row a method that scores nodes: rank correlation over heads and MLPs with exact patching in either direction, and how
    many of the strongest are the same."""
    moved, names = dict[str, torch.Tensor](), tuple[str, ...]()
    for way in ways:  # as the part of the gap that the node carries
        found = patch_nodes(model, pairs, logit_difference, direction="noising" if way == "noising" else "denoising")
        change = found.clean - found.scores if way == "noising" else found.scores - found.corrupt
        moved[way], names = change.mean(dim=1), found.names
    rows, estimates = [], dict[str, torch.Tensor]()
    for method in [name for name in methods if RULES[name].nodes]:
        for steps in (None, 20) if RULES[method].points is not None else (None,):
            found = attribute_nodes(model, pairs, logit_difference, method=method, steps=steps)
            known = dict(zip(found.names, (found.clean - found.scores).mean(dim=1), strict=True))
            label = method if found.metadata["steps"] == 1 else f"{method}, {found.metadata['steps']} points"
            estimates[label] = torch.stack([known[name] for name in names])
    for label, values in {**estimates, **{f"{way} itself": moved[way] for way in ways}}.items():
        row: dict[str, Any] = {"method": label, "nodes": len(values)}
        for way, exact in moved.items():
            row |= {way: spearman(values, exact), f"strongest {STRONGEST}, {way}": _shared(values, exact)}
        rows.append(row)
    return rows


def _shared(first: torch.Tensor, second: torch.Tensor) -> float:
    """Which part of the strongest by one are among the strongest by the other."""
    count = min(STRONGEST, len(first))
    best = [set(values.abs().topk(count).indices.tolist()) for values in (first, second)]
    return len(best[0] & best[1]) / count


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--corruption", default="abc", choices=["abc", "swap", "third"], help="what the corrupt prompts change")
    parser.add_argument("--count", type=int, default=8, help="pairs of prompts (default: 8)")
    parser.add_argument("--edges", type=int, default=300, help="of the strongest ones (default: 300)")
    parser.add_argument(
        "--points", default="1,2,3,5,10,20,60", help="of eap-ig, with commas between them; the most is held true"
    )
    parser.add_argument("--activation-points", default="1,5", help="of eap-ig-activations, which takes them for every layer")
    parser.add_argument("--methods", default=",".join(RULES), help="whose best edges are patched, with commas between them")
    parser.add_argument("--directions", default="noising,denoising", help="in which nodes are patched, likewise")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for a CSV file a table")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        tables = measure(options)
    except (CircuitsError, OSError) as error:
        print(f"attribution_convergence: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps({"model": options.model, **tables}, indent=1))
        return
    for name, rows in tables.items():
        print(f"{name}, {options.model}, {options.count} pairs of ioi, corruption {options.corruption}")
        print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The tables asked for, by name."""
    model = load_model(options.model)
    pairs = ioi(model, options.count, options.seed, corruption=options.corruption)
    tables: dict[str, list[dict[str, Any]]] = {}
    if options.only in (None, "convergence"):
        asked = {"eap": [1], "eap-ig": _numbers(options.points), "eap-ig-activations": _numbers(options.activation_points)}
        tables["convergence"] = convergence(
            model, pairs, {name: steps for name, steps in asked.items() if steps}, options.edges
        )
    if options.only in (None, "patching"):
        tables["patching"] = patching(model, pairs, options.methods.split(","), options.edges)
    if options.only in (None, "nodes"):
        tables["nodes"] = nodes(model, pairs, options.methods.split(","), options.directions.split(","))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            pd.DataFrame(rows).to_csv(options.out / f"{name}.csv", index=False)
    return tables


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


if __name__ == "__main__":
    main()
