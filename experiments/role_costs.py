"""What edges between roles of tokens cost to score beside plain edges: both by turns in one run, the ratio of their times, and
of the operations of their matrix products, which is what the ratio would be if all that is not a product cost nothing."""

import argparse
import statistics
import time

from torch.utils.flop_counter import FlopCounterMode

import circuits
from circuits.tasks.roles import required_roles


def main() -> None:
    """Score both by turns and print the times, their ratio, and how far the sums of role edges are from the plain edges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--method", default="eap")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = circuits.load_model(options.model)
    task = circuits.tasks.task(options.task)
    pairs = required_roles(task.pairs(model, options.count, 0), causal=model.weights.causal)
    metric = task.metric(model, pairs)
    times: dict[bool, list[float]] = {False: [], True: []}
    counted: dict[bool, dict[str, int]] = {}
    for turn in range(options.rounds + 1):
        for roles in (False, True):
            began = time.process_time()
            if turn:
                circuits.attribute_edges(model, pairs, metric, method=options.method, roles=roles)
                times[roles].append(time.process_time() - began)
            else:  # the first round warms up and counts
                with FlopCounterMode(display=False) as counter:
                    scores = circuits.attribute_edges(model, pairs, metric, method=options.method, roles=roles)
                counted[roles] = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
                print(f"{'with' if roles else 'without'} roles: {len(scores):,} edges")
    ratios = [there / plain for plain, there in zip(times[False], times[True], strict=True)]
    print(f"{options.method} on {options.count} pairs of {options.task}, roles {', '.join(pairs.roles.names)}")
    print(
        f"without roles {statistics.median(times[False]):.2f} s, with roles {statistics.median(times[True]):.2f} s of processor"
    )
    whole = {roles: sum(counts.values()) for roles, counts in counted.items()}
    for name in counted[True]:
        print(f"  {name}: {counted[False].get(name, 0) / 1e9:.1f} and {counted[True][name] / 1e9:.1f} billion operations")
    print(f"operations {whole[True] / whole[False]:.3f} times as many")
    print(f"ratio {statistics.median(ratios):.3f} (median of {len(ratios)}; {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
