"""Edges between roles of tokens in models whose circuit is planted: do exactly the true ones come out, seed by seed?"""

import argparse

import circuits
from circuits import metrics
from circuits.tasks.library.planted import carrying_roles, planted_roles, planted_task


def main() -> None:
    """Print, for each task and method, in how many models the found edges are the true ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--methods", default="eap-ig")
    options = parser.parse_args()
    for name in ("induction", "recall"):
        for method in options.methods.split(","):
            right, sizes = 0, []
            for seed in range(options.seeds):
                planted, pairs = planted_task(name, seed)
                pairs = planted_roles(name, pairs)
                truth = carrying_roles(planted, pairs)
                how = {"method": method, "roles": True}
                scores = circuits.attribute_edges(planted.model, pairs, metrics.logit_difference, **how)
                found = scores.top(len(truth), connected=True)
                sizes.append(len(truth))
                right += set(found.edges) == set(truth.edges)
                if set(found.edges) != set(truth.edges):
                    missing = sorted(map(str, set(truth.edges) - set(found.edges)))
                    print(f"  {name} {seed} {method}: of {len(truth)} without {', '.join(missing)}")
                    print(f"    instead {', '.join(sorted(map(str, set(found.edges) - set(truth.edges))))}")
            span = f"{min(sizes)} to {max(sizes)} of {scores.graph.edge_count:,}"
            print(f"{name}, {method}: {right} of {options.seeds} models, {span} edges", flush=True)


if __name__ == "__main__":
    main()
