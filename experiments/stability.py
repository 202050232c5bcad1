"""How far circuits that were searched for on other prompts agree, by method, and what the edges that return keep.

    python experiments/stability.py [--model DIRECTORY] [--task ioi] [--methods eap,eap-ig,refine] [--seeds 5] [--out FOLDER]

Half of the pairs are held out. For each seed the others are halved at random, and every half is searched on (`circuits
discover --seeds` does one method). A row a method: the overlap of the two halves' circuits with the interval of a jackknife
over seeds, beside what random circuits of as many edges share, and such as have as many edges into each reader; what the single
circuits, the edges in at least half and in all of them, and one search on all prompts keep on the held-out prompts, with
intervals over these.
With --out each method's result is saved; one that is there already is read, not searched for again.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.errors import CircuitsError
from circuits.models import Model, load_model
from circuits.search import Recurrence, Searching, repeat_search
from circuits.statistics import Effect
from circuits.tasks import task


def found_by(model: Model, method: str, options: argparse.Namespace) -> tuple[Recurrence, float | None]:
    """The searches by one method, and their seconds; of a saved one None."""
    name = f"{options.task.replace(':', '-')}-{method}-{options.sample}.json"
    file = None if options.out is None else Path(options.out) / name
    if file is not None and file.exists():
        return Recurrence.load(file), None
    asked, began = task(options.task), time.perf_counter()
    pairs = asked.pairs(model, options.count, options.seed)
    found = repeat_search(
        model,
        pairs,
        asked.metric(model, pairs),
        searching=Searching(method=method, edges=options.edges),
        seeds=options.seeds,
        sample=options.sample,
        task=options.task,
        seed=options.seed,
    )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        found.save(file)
    return found, time.perf_counter() - began


def row_of(found: Recurrence, method: str, seconds: float | None) -> dict[str, Any]:
    """The numbers of one method."""
    overlap, sizes = found.overlap(), found.chosen.sum(dim=1)
    times, single = found.times(), [one.faithfulness.effect for one in found.runs if one.faithfulness is not None]
    row: dict[str, Any] = {"method": method, "circuits": len(found.runs), "edges": f"{int(sizes.min())}-{int(sizes.max())}"}
    row |= {"overlap": shown(overlap), "by chance": f"{found.expected('size'):.3f}", "readers": f"{found.expected():.3f}"}
    row |= {"in all": int((times == len(found.runs)).sum()), "by chance in all": f"{found.returning()[-1][2]:.1f}"}
    row |= {"single": f"{min(single):.2f}-{max(single):.2f}" if single else ""}
    for one in found.consensus:
        row[one.rule] = f"{shown(one.faithfulness)} ({one.edges})"
        if one.rule == "half":
            row["half, more than single"] = shown(one.more, "+")
    return row | {"seconds": None if seconds is None else round(seconds)}


def shown(effect: Effect | None, sign: str = "") -> str:
    """A mean with its interval."""
    return "-" if effect is None else f"{effect.effect:{sign}.2f} [{effect.low:{sign}.2f}, {effect.high:{sign}.2f}]"


def main() -> None:
    """Parse the command line, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--task", default="ioi", help="which task (default: ioi)")
    parser.add_argument("--methods", default="eap,eap-ig,refine", help="with commas between them")
    parser.add_argument("--sample", default="halves", help="halves, parts, bootstrap or all (default: halves)")
    parser.add_argument("--count", type=int, default=64, help="pairs of prompts, half of them held out (default: 64)")
    parser.add_argument("--edges", type=int, help="edges of a circuit (default: as circuits discover)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="folder for the results (default: none)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    try:
        model = load_model(options.model)
        for method in options.methods.split(","):
            found, seconds = found_by(model, method, options)
            rows.append(row_of(found, method, seconds))
            if not options.json:
                print(found.summary, flush=True)
    except (CircuitsError, OSError, ValueError) as error:
        print(f"stability: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps({"model": options.model, "task": options.task, "rows": rows}))
        return
    print(pd.DataFrame(rows).T.to_string(header=False))


if __name__ == "__main__":
    main()
