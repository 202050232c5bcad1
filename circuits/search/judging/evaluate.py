"""Judging a circuit: is it faithful, complete, minimal, and better than chance?"""

import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from circuits.errors import GraphError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.patching.subgraphs.subgraph import role_masks
from circuits.progress import Found, Progress
from circuits.search.judging.extent import (
    LOOK,
    MANY,
    RANDOM,
    SETS,
    JudgingRuns,
    JudgingTime,
    Minimality,
    asked,
    null_prompts,
)
from circuits.search.judging.judge import Judge
from circuits.search.judging.nulls import random_circuits as circuits_of
from circuits.search.judging.removals import completeness, drawn, measured_on, minimality as needs_of
from circuits.search.judging.verdict import SIGNIFICANT, Verdict
from circuits.statistics import Chance, Effect, sequential_p_value
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted
from circuits.tasks.roles import required_roles

Expected = Callable[[JudgingTime], None]
"""Hears about how long judging will take."""

_BATCH = 16
"""Random circuits that are run together."""


def evaluate(
    model: Model,
    circuit: Circuit,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    searched_on: PromptPairs | None = None,
    outside: OutsideKind = "corrupt",
    random_circuits: int = RANDOM,
    random_sets: int = SETS,
    minimality: Minimality = True,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Found | None = None,
    expected: Expected | None = None,
) -> Verdict:
    """Run a circuit by itself and say how much of the behaviour it keeps.

    Faithfulness: (metric of the circuit - of the empty one) / (of the model - of the empty one). Null: random circuits of as
    many edges on random paths from input to logits, on the first 8 prompts, drawn until so many are as faithful there that p
    stays above 0.05 (`sequential_p_value`). Completeness (Wang et al. 2022): the gap between circuit and model when random
    halves of the circuit's nodes, and greedily grown sets, leave both. Minimality: for each node the change when it goes, or
    where that is next to nothing the largest one after another node or set. In circuits of 96 nodes or more random circuits
    are run on the first 4 prompts, sets are taken out on the first 16, and 60 nodes drawn at random go, each by itself alone
    and on the first 8. Raises GraphError for an empty circuit or one of another graph, PromptError where a pair has no gap.

    Args:
        model: the model that the circuit is of.
        circuit: the edges that are kept.
        pairs: prompts to judge on, which should be held out.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        searched_on: the prompts that the circuit was found on, for their figure beside it.
        outside: what edges outside the circuit carry: the corrupt prompts' values ("corrupt"), their mean, or zero.
        random_circuits: how many random circuits the null has at most.
        random_sets: how many random sets completeness tries.
        minimality: whether to ask of nodes if they are needed; a number: of at most so many, drawn at random; "all": of every
            one also where there are many.
        seed: that of all that is random.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears a verdict without completeness and minimality as soon as it is there.
        expected: hears about how long it will take, once the circuit itself was run.
    """
    asked(minimality, 0)
    pairs, searched_on = with_roles_for(circuit, pairs, model), searched_on and with_roles_for(circuit, searched_on, model)
    first = None if searched_on is None else fitted(metric, model, searched_on)
    judge = Judge(model, pairs, metric, outside=outside, neurons=circuit.graph.neurons, budget=budget, progress=progress)
    seen = None
    if searched_on is not None and first is not None:
        seen = faithfulness(model, circuit, searched_on, first, outside=outside, seed=seed, budget=budget)
    how: dict[str, Any] = {"random_circuits": random_circuits, "random_sets": random_sets, "minimality": minimality}
    return verdict_of(judge, circuit, searched_on=seen, seed=seed, found=found, expected=expected, **how)


def verdict_of(
    judge: Judge,
    circuit: Circuit,
    *,
    searched_on: Effect | None = None,
    random_circuits: int = RANDOM,
    random_sets: int = SETS,
    minimality: Minimality = True,
    seed: int = 0,
    found: Found | None = None,
    expected: Expected | None = None,
    curve: bool = False,
) -> Verdict:
    """`evaluate` on base runs that are there already. `found` hears a verdict without completeness and minimality first;
    `curve`: whether sizes are run afterwards, which counts in what is `expected`."""
    model, graph = judge.model, judge.model.graph(neurons=circuit.graph.neurons, roles=circuit.graph.roles)
    if circuit.graph != graph:
        raise GraphError(f"the circuit is one of another graph: {circuit.graph} where {model.name} has {graph}")
    if not len(circuit):
        raise GraphError("the circuit has no edges: there is nothing to judge")
    draw, members = random.Random(seed), Members.of(circuit)
    nodes = [node for node in circuit.nodes if node.kind not in ("input", "logits")]
    many, ask = len(nodes) >= MANY, asked(minimality, len(nodes))
    judge.rest()
    began = time.perf_counter()
    changes, few = judge.changes([members], "running the circuit"), judge.few(null_prompts(len(nodes)))
    if expected is not None:
        sets = 0 if judge.neurons else random_sets
        how = {"prompts": len(judge.gap), "nodes": len(nodes), "random_circuits": random_circuits, "sets": sets}
        runs = JudgingRuns.of(**how, asked=ask, curve=curve, null=len(few.gap))
        expected(JudgingTime.of(runs, (time.perf_counter() - began) / len(judge.gap)))
    effect = judge.effects(changes, seed=seed)[0]
    details: dict[str, Any] = {"outside": judge.outside, "seed": seed}
    chance = None
    if random_circuits:
        chance = _chance(few, members, random_circuits, seed)
        details |= {"random_circuits": random_circuits, "random_reached": chance.reached}
        details |= {"random_prompts": len(few.gap)} if few is not judge else {}
    verdict = Verdict(
        edges=len(members),
        nodes=len(circuit.nodes),
        share=len(members) / graph.edge_count,
        prompts=len(judge.gap),
        faithfulness=effect,
        null=() if chance is None else chance.null,
        p_value=None if chance is None else chance.p_value,
        searched_on=searched_on,
        metadata=about(model, judge.metric, **details),
        independent=judge.independent,
    )
    if found is not None:
        found(verdict)
    removals = completeness(judge, members, nodes, random_sets, draw)
    tried = drawn(nodes, ask, draw)
    needs = needs_of(judge, members, tried, removals, many=many)
    details = {"completeness_prompts": len(measured_on(judge, nodes).gap)} if many and removals else {}
    details |= {"minimality_prompts": len(judge.few(LOOK).gap)} if many and needs else {}
    details |= {"minimality_of": len(nodes)} if 0 < len(needs) < len(nodes) else {}
    metadata = {**verdict.metadata, **details}
    return dataclasses.replace(verdict, completeness=tuple(removals), minimality=tuple(needs), metadata=metadata)


def _chance(judge: Judge, members: Members, most: int, seed: int) -> Chance:
    """How a circuit stands against random ones of as many edges, on the judge's prompts."""
    what, others = "running random circuits", circuits_of(members.graph, len(members), seed)

    def values() -> Iterator[list[float]]:
        """The faithfulness of random circuits, some at a time; each time those of a batch are run when they are asked for."""
        for start in range(0, most, _BATCH):
            drawn = list(itertools.islice(others, min(_BATCH, most - start)))
            yield judge.faithfulness(drawn, what, place=(start, most)).tolist()

    own = float(judge.faithfulness([members], "running the circuit")[0])
    return sequential_p_value(own, values(), most=most, level=SIGNIFICANT)


def faithfulness(
    model: Model,
    circuit: Circuit,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    outside: OutsideKind = "corrupt",
    seed: int = 0,
    budget: int = BUDGET,
) -> Effect:
    """A circuit's faithfulness alone, with its 95 % interval over prompts."""
    pairs = with_roles_for(circuit, pairs, model)
    judge = Judge(model, pairs, metric, outside=outside, neurons=circuit.graph.neurons, budget=budget)
    return judge.effects(judge.changes([Members.of(circuit)], ""), seed=seed)[0]


def with_roles_for(circuit: Circuit, pairs: PromptPairs, model: Model) -> PromptPairs:
    """The pairs, with roles of tokens where the circuit has some. Raises PromptError where they are not the circuit's."""
    if circuit.graph.roles is None:
        return pairs
    pairs = required_roles(pairs, causal=model.weights.causal)
    role_masks(circuit.graph, pairs.roles)
    return pairs
