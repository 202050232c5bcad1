"""How far attribution agrees with exact patching of every edge, edge by edge.

    python experiments/attribution_agreement.py [--model gpt2] [--tasks induction,facts] [--count 32] [--out FOLDER] [--json]

Every edge is scored by each method and patched exactly (noising), on the same pairs. For all edges, for the `--top` largest by
exact effect and for the `--top` largest by attribution: Spearman's rank correlation of the scores with their sign and of their
sizes, and the share of edges with the same sign. Exact patching runs the model once an edge: on models larger than `mini` it
takes long.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import EdgeScores, attribute_edges
from circuits.attribution.rules import RULES
from circuits.cli.loading import load
from circuits.cli.progress import ProgressBars
from circuits.errors import CircuitsError
from circuits.models import Model
from circuits.statistics import spearman
from circuits.tasks.registry import task

METHODS = tuple(RULES)


def agreement(exact: pd.Series, estimated: pd.Series, top: int) -> list[dict[str, Any]]:
    """One row a choice of edges: how the two scores agree on it."""
    largest = {"all edges": exact.index, f"{top} largest by exact effect": exact.abs().nlargest(top).index}
    largest[f"{top} largest by attribution"] = estimated.abs().nlargest(top).index
    rows = []
    for name, edges in largest.items():
        one, other = exact[edges], estimated[edges]
        alike = float(((one > 0) == (other > 0))[one != 0].mean())
        both = torch.tensor([list(one), list(other)], dtype=torch.float64)
        sizes, signed = spearman(*both.abs()), spearman(*both)
        rows.append({"edges": name, "signed": signed, "sizes": sizes, "same_sign": alike, "count": len(one)})
    return rows


def measure(model: Model, name: str, methods: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every method on one task."""
    asked = task(name)
    pairs = asked.pairs(model, options.count, options.seed)
    metric = asked.metric(model, pairs)

    def scores(method: Any) -> pd.Series:
        found: EdgeScores = attribute_edges(model, pairs, metric, method=method, progress=progress)
        return pd.Series(found.values.tolist(), index=[str(edge) for edge in found.edges()])

    with ProgressBars() as progress:
        exact = scores("exact")
        rows = []
        for method in methods:
            found = agreement(exact, scores(method), options.top)
            rows += [{"task": name, "method": method, "prompts": len(pairs), **row} for row in found]
    return rows


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--tasks", default="induction,facts,facts:country_capital", help="with commas between them")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"with commas between them (default: {','.join(METHODS)})")
    parser.add_argument("--count", type=int, default=32, help="pairs of prompts (default: 32)")
    parser.add_argument("--top", type=int, default=100, help="edges of the two choices (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for agreement.csv")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        model = load(options.model, device=options.device, dtype=options.dtype)
        rows = [row for name in options.tasks.split(",") for row in measure(model, name, options.methods.split(","), options)]
        table = pd.DataFrame(rows)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            table.to_csv(options.out / "agreement.csv", index=False)
    except (CircuitsError, OSError) as error:
        print(f"attribution_agreement: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps({"model": model.name, "rows": rows}, indent=1))
        return
    print(f"Spearman's rank correlation with exact patching in {model.name}: of the scores, of their sizes; share of like sign")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
