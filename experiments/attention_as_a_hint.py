"""Does attention point at the tokens that an answer needs?

    python experiments/attention_as_a_hint.py [--model gpt2] [--facts known_1000.json] [--count 100] [--json]

For each fact, four ways of reading attention (LAT, rollout, max-flow, attention weighted by what heads write) rank the tokens
of the prompt; so does what the answer loses when a token is taken away, its embedding replaced or hidden from all later
tokens. Printed: Spearman's rank correlation between the two, and how often both put the same token first, means over facts
with 95 % bootstrap intervals. Facts are drawn at random with the seed; without --facts those of the bundled model are used.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import circuits
from circuits.cli.loading import load
from circuits.cli.progress import ProgressBars
from circuits.errors import CircuitsError
from circuits.patching import AttentionTrace
from circuits.tasks import mini_facts
from circuits.tasks.sources.readers import read_facts


def table(found: AttentionTrace) -> pd.DataFrame:
    """One row a way of reading attention and a way of taking tokens away."""
    rows = []
    for one in found.disagreement():
        if one.spearman is not None and one.top is not None:
            ranks = {"spearman": one.spearman.effect, "low": one.spearman.low, "high": one.spearman.high}
            names = {"tracing": one.tracing, "effect": one.effect}
            rows.append({**names, **ranks, "same_top": one.top.effect, "facts": one.prompts})
    return pd.DataFrame(rows)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--facts", type=Path, help="ROME's known_1000.json or an LRE relation (default: those of mini)")
    parser.add_argument("--count", type=int, default=100, help="facts (default: 100)")
    parser.add_argument("--replace", default="mean", choices=["mean", "resample"], help="what stands in for an embedding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        model = load(options.model, device=options.device, dtype=options.dtype)
        facts = list(mini_facts() if options.facts is None else read_facts(options.facts))
        drawn = random.Random(options.seed).sample(facts, min(options.count, len(facts)))
        prompts = [fact.prompt.rstrip() for fact in drawn]
        with ProgressBars() as progress:
            found = circuits.attention(model, prompts, kind=options.replace, seed=options.seed, progress=progress)
    except (CircuitsError, OSError) as error:
        print(f"attention_as_a_hint: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    rows = table(found)
    if options.json:
        print(json.dumps({"model": model.name, "facts": len(prompts), "rows": rows.to_dict("records")}, indent=1))
        return
    said = "rank correlation of what attention points at with what taking a token away costs"
    print(f"{model.name}: {said}, {len(prompts)} facts")
    print(rows.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
