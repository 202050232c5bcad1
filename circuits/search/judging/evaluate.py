"""Judging a circuit: is it faithful, complete, minimal, and better than chance?"""

import random
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import GraphError
from circuits.graph import Circuit, Node
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.patching.subgraphs.subgraph import Circuits
from circuits.progress import Progress
from circuits.search.judging.nulls import random_paths
from circuits.search.judging.verdict import Need, Removal, Verdict
from circuits.statistics import Effect, p_value, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import AnyMetric, fitted
from circuits.tasks.prompts import refuse_zero_gap

_CANDIDATES = 10
"""Nodes that a greedy step tries, drawn at random."""
_GREEDY_STEPS = 5


def evaluate(
    model: Model,
    circuit: Circuit,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    searched_on: PromptPairs | None = None,
    outside: OutsideKind = "corrupt",
    random_circuits: int = 128,
    random_sets: int = 8,
    minimality: bool = True,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Verdict:
    """Run a circuit by itself and say how much of the behaviour it keeps.

    Faithfulness: (metric of the circuit - of the empty one) / (of the model - of the empty one). Null: random circuits of as
    many edges on random paths from input to logits; p-value (1 + how many are as faithful) / (1 + how many). Completeness
    (Wang et al. 2022): the gap between circuit and model when random halves of the circuit's nodes, and greedily grown sets,
    leave both. Minimality: for each node the largest change when it goes, alone or after another node or set. Raises
    GraphError for an empty circuit or one of another graph, PromptError where a pair has no gap.

    Args:
        model: the model that the circuit is of.
        circuit: the edges that are kept.
        pairs: prompts to judge on, which should be held out.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        searched_on: the prompts that the circuit was found on, for their figure beside it.
        outside: what edges outside the circuit carry: the corrupt prompts' values ("corrupt"), their mean, or zero.
        random_circuits: how many random circuits the null has.
        random_sets: how many random sets completeness tries.
        minimality: whether to try every node.
        seed: that of all that is random.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    first = None if searched_on is None else fitted(metric, model, searched_on)
    judge = Judge(model, pairs, metric, outside=outside, neurons=circuit.graph.neurons, budget=budget, progress=progress)
    seen = None
    if searched_on is not None and first is not None:
        seen = faithfulness(model, circuit, searched_on, first, outside=outside, seed=seed, budget=budget)
    counts = {"random_circuits": random_circuits, "random_sets": random_sets}
    return verdict_of(judge, circuit, searched_on=seen, minimality=minimality, seed=seed, **counts)


def verdict_of(
    judge: "Judge",
    circuit: Circuit,
    *,
    searched_on: Effect | None = None,
    random_circuits: int = 128,
    random_sets: int = 8,
    minimality: bool = True,
    seed: int = 0,
) -> Verdict:
    """`evaluate` on base runs that are there already."""
    model, graph = judge.model, judge.model.graph(neurons=circuit.graph.neurons)
    if circuit.graph != graph:
        raise GraphError(f"the circuit is one of another graph: {circuit.graph} where {model.name} has {graph}")
    if not len(circuit):
        raise GraphError("the circuit has no edges: there is nothing to judge")
    draw, members = random.Random(seed), Members.of(circuit)
    nodes = [node for node in circuit.nodes if node.kind not in ("input", "logits")]
    own = judge.changes([members], "running the circuit")
    chance = [random_paths(graph, len(members), draw) for _ in range(random_circuits)]
    null = judge.faithfulness(chance, "running random circuits")
    removals = judge.completeness(members, nodes, random_sets, draw)
    needs = judge.minimality(members, nodes, removals) if minimality else []
    effect = ratio_intervals(own, judge.gap, seed=seed)[0]
    values = null.tolist()
    return Verdict(
        edges=len(members),
        nodes=len(circuit.nodes),
        share=len(members) / graph.edge_count,
        prompts=len(judge.gap),
        faithfulness=effect,
        null=tuple(values),
        p_value=p_value(effect.effect, values) if values else None,
        completeness=tuple(removals),
        minimality=tuple(needs),
        searched_on=searched_on,
        metadata=about(model, judge.metric, outside=judge.outside, seed=seed),
    )


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
    judge = Judge(model, pairs, metric, outside=outside, neurons=circuit.graph.neurons, budget=budget)
    return ratio_intervals(judge.changes([Members.of(circuit)], ""), judge.gap, seed=seed)[0]


class Judge:
    """Base runs that serve every circuit, and the gap `[prompt]` that faithfulness is a share of."""

    def __init__(
        self,
        model: Model,
        pairs: PromptPairs,
        metric: AnyMetric,
        *,
        outside: OutsideKind = "corrupt",
        neurons: bool = False,
        budget: int = BUDGET,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.outside, self.neurons, self.progress = model, outside, neurons, progress
        self._runs = Circuits(model, pairs, metric, outside=outside, budget=budget)
        self.metric = self._runs.metric
        self._start = self._runs.baseline(neurons=neurons)
        refuse_zero_gap(self._runs.clean, self._start, pairs)
        self.gap = (self._runs.clean - self._start).double().cpu()

    def changes(self, circuits: Sequence[Members], what: str) -> Float[Tensor, "circuit prompt"]:
        """How far each circuit brings the metric from that of the empty one."""
        return (self._runs.scores(circuits, progress=self.progress, what=what) - self._start).double().cpu()

    def faithfulness(self, circuits: Sequence[Members], what: str) -> Float[Tensor, " circuit"]:
        """Every circuit's faithfulness."""
        return self.changes(circuits, what).mean(dim=1) / self.gap.mean() if circuits else torch.zeros(0, dtype=torch.float64)

    def without(self, members: Members, sets: Sequence[Iterable[Node]], what: str) -> list[float]:
        """Faithfulness of a circuit without the edges that leave some nodes, set by set."""
        graph = members.graph
        return self.faithfulness([members.without(map(graph.writer_index, nodes)) for nodes in sets], what).tolist()

    def completeness(self, members: Members, nodes: list[Node], random_sets: int, draw: random.Random) -> list[Removal]:
        """Random halves of the nodes, and sets that a greedy search grew so that circuit and model differ most."""
        if not random_sets or not nodes or self.neurons:  # the whole graph of neurons is not run edge by edge
            return []
        whole = Members.whole(members.graph)
        halves = [[node for node in nodes if draw.random() < 0.5] or [draw.choice(nodes)] for _ in range(random_sets)]
        what = "testing completeness"
        pairs = zip(halves, self.without(members, halves, what), self.without(whole, halves, what), strict=True)
        found = [Removal(tuple(map(str, nodes)), "random", own, model) for nodes, own, model in pairs]
        grown: list[Node] = []
        for _ in range(min(_GREEDY_STEPS, len(nodes))):
            rest = [node for node in nodes if node not in grown]
            trials = [[*grown, node] for node in sorted(draw.sample(rest, min(_CANDIDATES, len(rest))))]
            gaps = list(zip(self.without(members, trials, what), self.without(whole, trials, what), trials, strict=True))
            own, model, grown = max(gaps, key=lambda gap: abs(gap[0] - gap[1]))
            found.append(Removal(tuple(map(str, grown)), "greedy", own, model))
        return found

    def minimality(self, members: Members, nodes: list[Node], removals: Sequence[Removal]) -> list[Need]:
        """For each node the largest change when it goes: from the circuit as it is, from the circuit without one of the other
        nodes, or without a set that was tested for completeness."""
        what = "testing minimality"
        others = [[node] for node in nodes] if len(nodes) <= _CANDIDATES else []
        sets: list[list[Node]] = [[], *others, *([members.graph.node(name) for name in one.nodes] for one in removals)]
        before = self.without(members, sets, what)
        needs = []
        for node in nodes:
            tried = [(base, gone) for base, gone in zip(before, sets, strict=True) if node not in gone]
            after = self.without(members, [[*gone, node] for _, gone in tried], what)
            changes = [(new - base, gone) for new, (base, gone) in zip(after, tried, strict=True)]
            change, gone = max(changes, key=lambda one: abs(one[0]))
            needs.append(Need(str(node), change, tuple(map(str, gone))))
        return needs
