"""How many edges it takes to keep a behaviour with roles of tokens and without: the strongest edges of both, from the same
method on the same prompts, run by themselves on the same held-out prompts, size by size."""

import argparse
import dataclasses

import circuits
from circuits.attribution import EdgeScores
from circuits.graph import Edge, Roles
from circuits.patching.subgraphs.members import Members
from circuits.search.discover import split
from circuits.search.judging.judge import Judge
from circuits.statistics import Effect
from circuits.tasks.roles import required_roles

SIZES = (100, 200, 400, 800, 1600, 3200, 6400, 12800)


@dataclasses.dataclass(frozen=True)
class Row:
    """A circuit of one size: how many edges it has on paths, the same counted between roles, and what it keeps."""

    edges: int
    role_edges: int
    kept: Effect


def between_roles(edge: Edge, roles: Roles | None) -> int:
    """As how many edges between roles one counts: one of keys or values as many as there are pairs of roles of which one looks
    at the other, any other one for each role, but one into the logits once, as they are read at one token."""
    if roles is None or str(edge.target) == "logits":
        return 1
    return roles.links if edge.slot in ("k", "v") else len(roles)


def rows_of(scores: EdgeScores, judge: Judge, roles: Roles | None) -> list[Row]:
    """The strongest edges of each size; `roles`: between which a plain one counts."""
    circuits_of = [scores.circuit(scores.rows(size, connected=True)) for size in SIZES]
    effects = judge.effects(judge.changes([Members.of(one) for one in circuits_of], "running circuits"), seed=0)
    sizes = [sum(between_roles(edge, roles) for edge in one.edges) for one in circuits_of]
    return [Row(len(one), size, kept) for one, size, kept in zip(circuits_of, sizes, effects, strict=True)]


def main() -> None:
    """Score, run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = circuits.load_model(options.model)
    task = circuits.tasks.task(options.task)
    pairs = required_roles(task.draw(model, options.count, options.seed).pairs, causal=model.weights.causal)
    searched, held_out = split(pairs, options.seed)
    metric = task.metric(model, pairs)
    judge = Judge(model, held_out, metric)
    assert pairs.roles is not None
    names = pairs.roles.roles
    print(f"{model.name}, {options.task}: {len(searched)} prompts searched on, {len(held_out)} held out", flush=True)
    print(f"roles {', '.join(names.names)}: {names.links} pairs of which one looks at the other", flush=True)
    found = {}
    for roles in (False, True):
        how = {"method": "eap-ig", "steps": options.steps, "roles": roles}
        scores = circuits.attribute_edges(model, searched, metric, **how)
        found[roles] = rows_of(scores, judge, None if roles else names)
        print(f"{'with' if roles else 'without'} roles: {scores.graph.edge_count:,} edges", flush=True)
        for row in found[roles]:
            one = row.kept
            kept = f"{one.effect:6.3f} [{one.low:6.3f}, {one.high:6.3f}]"
            print(f"  {row.edges:5d} edges ({row.role_edges:6d} between roles) keep {kept}", flush=True)
    for least in (0.5, 0.8):
        firsts = {roles: next((row for row in rows if row.kept.effect >= least), None) for roles, rows in found.items()}
        said = [
            f"{'with' if roles else 'without'} roles "
            + ("more" if row is None else f"{row.edges} edges ({row.role_edges} between roles, keep {row.kept.effect:.2f})")
            for roles, row in firsts.items()
        ]
        print(f"to keep {least:g} of the held-out behaviour: {', '.join(said)}")


if __name__ == "__main__":
    main()
