"""Completeness and minimality: what a circuit and the whole model lose when nodes are taken out."""

import random
from collections.abc import Sequence

from circuits.graph import Node
from circuits.patching.subgraphs.members import Members
from circuits.search.judging.extent import CANDIDATES, GREEDY_STEPS, LOOK, MANY, SOME
from circuits.search.judging.judge import Judge
from circuits.search.judging.verdict import UNNEEDED, Need, Removal


def completeness(judge: Judge, members: Members, nodes: list[Node], random_sets: int, draw: random.Random) -> list[Removal]:
    """Random halves of the nodes, and sets that a greedy search grew so that circuit and model differ most. The search looks
    at the first few prompts; what it grew is measured on all, of MANY nodes on SOME prompts."""
    if not random_sets or not nodes or judge.neurons:  # the whole graph of neurons is not run edge by edge
        return []
    halves = [[node for node in nodes if draw.random() < 0.5] or [draw.choice(nodes)] for _ in range(random_sets)]
    grown = _grown(judge.few(LOOK), members, nodes, draw)
    sets, what, on = [*halves, *grown], "testing completeness", measured_on(judge, nodes)
    found = zip(sets, on.without(members, sets, what), on.model_without(sets, what), strict=True)
    how = ["random"] * len(halves) + ["greedy"] * len(grown)
    return [Removal(tuple(map(str, some)), kind, own, model) for kind, (some, own, model) in zip(how, found, strict=True)]


def measured_on(judge: Judge, nodes: Sequence[Node]) -> Judge:
    """The prompts on which sets of these nodes are taken out."""
    return judge.few(SOME) if len(nodes) >= MANY else judge


def _grown(judge: Judge, members: Members, nodes: list[Node], draw: random.Random) -> list[list[Node]]:
    """A set for each step of a greedy search: the one before with that of a few other nodes which opens the largest gap."""
    found: list[list[Node]] = []
    grown, what = list[Node](), "growing sets of nodes"
    for _ in range(min(GREEDY_STEPS, len(nodes))):
        rest = [node for node in nodes if node not in grown]
        trials = [[*grown, node] for node in sorted(draw.sample(rest, min(CANDIDATES, len(rest))))]
        values = zip(judge.without(members, trials, what), judge.model_without(trials, what), strict=True)
        gaps = [abs(own - model) for own, model in values]
        grown = trials[gaps.index(max(gaps))]
        found.append(grown)
    return found


def drawn(nodes: list[Node], most: int, draw: random.Random) -> list[Node]:
    """At most so many of the nodes, drawn at random, in their order."""
    return nodes if most >= len(nodes) else sorted(draw.sample(nodes, most))


def minimality(
    judge: Judge, members: Members, nodes: list[Node], removals: Sequence[Removal], *, many: bool = False
) -> list[Need]:
    """For each node the change when it alone goes; where that is next to nothing, the largest one, on the first few prompts,
    when it goes from the circuit without one of the other nodes (of small circuits) or a set tested for completeness. With
    `many` (nodes of a circuit of MANY) each goes by itself alone, on the first few prompts."""
    if not nodes:
        return []
    what = "testing minimality"
    whole, *alone = (judge.few(LOOK) if many else judge).without(members, [[], *([node] for node in nodes)], what)
    needs = {node: Need(str(node), value - whole) for node, value in zip(nodes, alone, strict=True)}
    spare = [] if many else [node for node in nodes if abs(needs[node].change) < UNNEEDED]
    others = [[node] for node in nodes] if len(nodes) <= CANDIDATES else []
    sets = [*others, *([members.graph.node(name) for name in one.nodes] for one in removals)]
    tried = [(node, gone) for gone in sets for node in spare if node not in gone]
    if not tried:
        return list(needs.values())
    # Side by side: a circuit and the same without one more node have nearly all in common.
    few = judge.few(LOOK)
    before = few.without(members, sets, what)
    after = few.without(members, [[*gone, node] for node, gone in tried], what)
    start = {tuple(gone): value for gone, value in zip(sets, before, strict=True)}
    for (node, gone), value in zip(tried, after, strict=True):
        change = value - start[tuple(gone)]
        if abs(change) > abs(needs[node].change):
            needs[node] = Need(str(node), change, tuple(map(str, gone)))
    return list(needs.values())
