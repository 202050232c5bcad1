"""Screen then verify: attribution proposes edges, exact patching confirms or rejects them, alone and where others that could
stand in for them are gone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from circuits.attribution import EdgeScores, attribute_edges
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.graph import Circuit, Edge, Graph, Node, Reader
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import Base, held_nodes, plain_run
from circuits.patching.engine.change import Change, Kind, Variant
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import differing
from circuits.patching.engine.sweep import Sweep
from circuits.patching.nodes import about
from circuits.progress import Progress
from circuits.statistics import Effect, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.gaps import refuse_zero_gap
from circuits.tasks.metric import AnyMetric, Metric, fitted

MIN_EFFECT = 0.005
"""Share of the gap between clean and corrupt that an edge must be worth."""
_STEPS = 3
"""Points of integrated gradients where nodes are gone."""
_QUIET = 0.1
"""Share of the gap that may be lost when the nodes of a context go: then others stand in for them."""


def is_seen(effect: Effect) -> bool:
    """Whether an effect is as large as is asked for, with an interval that leaves out zero."""
    return abs(effect.effect) >= MIN_EFFECT and (effect.low > 0 or effect.high < 0)


@dataclasses.dataclass(frozen=True)
class Tested:
    """One proposed edge: what attribution estimated, and what exact patching found."""

    edge: Edge
    estimate: float | None
    """Share of the gap that noising the edge alone costs, to first order; None: not proposed by attribution."""
    alone: Effect
    """The same, exactly."""
    effect: Effect
    """The largest over all contexts that were tried, of those whose interval leaves out zero where there are such."""
    context: tuple[str, ...] = ()
    """Nodes that were taken out before, in the context of that effect; none: the edge matters by itself."""

    @property
    def confirmed(self) -> bool:
        """Whether the effect is as large as is asked for, with an interval that leaves out zero."""
        return is_seen(self.effect)


@dataclasses.dataclass(frozen=True, eq=False)
class Screening(Result, format="circuits-screening"):
    """Every edge that was proposed, tested exactly."""

    graph: Graph
    tested: tuple[Tested, ...]
    redundant: tuple[tuple[str, ...], ...]
    """Smallest sets of nodes of which any one can stand in for the others: seen only when all are taken out."""
    limit: int
    """Edges that were asked for."""
    metadata: dict[str, Any]

    @property
    def summary(self) -> str:
        """How many edges were tested, and how many hold."""
        confirmed = sum(one.confirmed for one in self.tested)
        sets = f"{counted(len(self.redundant), 'set')} of nodes that stand in for each other"
        return f"{confirmed:,} of {len(self.tested):,} proposed edges confirmed; {sets}."

    @property
    def circuit(self) -> Circuit:
        """The strongest confirmed edges that lie on paths, as many as were asked for; each has its largest effect as the score
        (share of the gap; positive: it supports the metric) and with both figures as evidence."""
        kept = sorted((one for one in self.tested if one.confirmed), key=lambda one: -abs(one.effect.effect))[: self.limit]
        evidence = {
            str(one.edge): {
                "estimate": one.estimate,
                "alone": one.alone.as_json(),
                "effect": one.effect.as_json(),
                "without": list(one.context),
            }
            for one in kept
        }
        scores = {str(one.edge): one.effect.effect for one in kept}
        return Circuit(self.graph, scores, evidence=evidence, metadata=self.metadata).connected()

    def to_dataframe(self) -> pd.DataFrame:
        """One row an edge, by size of the effect: edge, estimate, alone, effect, low, high, without, confirmed."""
        rows = [
            {
                "edge": str(one.edge),
                "estimate": one.estimate,
                "alone": one.alone.effect,
                "effect": one.effect.effect,
                "low": one.effect.low,
                "high": one.effect.high,
                "without": " ".join(one.context),
                "confirmed": one.confirmed,
            }
            for one in sorted(self.tested, key=lambda one: -abs(one.effect.effect))
        ]
        return pd.DataFrame(rows)


def screen_then_verify(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    scores: EdgeScores,
    *,
    edges: int = 100,
    contexts: int = 8,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Screening:
    """Patch the strongest edges exactly (noising), alone and where others that could stand in are gone.

    Redundant sets are searched for among the writers of proposed edges and, once some of these are gone, among all nodes (so
    that a backup is found which sleeps until then): smallest sets of nodes whose joint loss is seen while that of all but one
    is not. For each set and each of its members the others are taken out (a context); attribution proposes edges there again,
    and they and all edges not confirmed so far are patched exactly in the context. Raises GraphError for a graph of neurons,
    PromptError where a pair has no gap.

    Args:
        model: the model that was scored.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        scores: what attribution said of the edges.
        edges: how many of the strongest are patched.
        contexts: how many contexts are tried at most.
        seed: that of the bootstrap.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    metric = fitted(metric, model, pairs, gradient=True)
    tester = _Tester(model, pairs, metric, scores, budget, progress, seed)
    proposed = list(scores.top(edges, connected=True).edges)
    found = {edge: [((), effect)] for edge, effect in tester.edges((), proposed).items()}
    sets = tester.redundant_sets(proposed)
    for context in _contexts(sets)[:contexts]:
        fresh = [edge for edge in tester.proposed_without(context, edges) if edge not in found]
        found |= {edge: [((), effect)] for edge, effect in tester.edges((), fresh).items()}
        open_edges = [edge for edge, effects in found.items() if not any(is_seen(effect) for _, effect in effects)]
        for edge, effect in tester.edges(context, [edge for edge in open_edges if edge.writer not in context]).items():
            found[edge].append((tuple(map(str, context)), effect))
    tested = []
    for edge, effects in sorted(found.items()):
        context, effect = max(effects, key=lambda one: (is_seen(one[1]), abs(one[1].effect)))
        tested.append(Tested(edge, tester.estimates.get(edge), effects[0][1], effect, context))
    details = about(model, metric, method="screen then verify", screened_by=scores.metadata.get("method"), seed=seed)
    return Screening(scores.graph, tuple(tested), tuple(tuple(map(str, nodes)) for nodes in sets), edges, details)


def _contexts(sets: Sequence[tuple[Node, ...]]) -> list[tuple[Node, ...]]:
    """All of a set but one, for every set and member, without repeats."""
    found = [tuple(other for other in nodes if other != node) for nodes in sets for node in nodes]
    return list(dict.fromkeys(found))


class _Tester:
    """Exact patches of nodes and edges in the run on the clean prompts, with some nodes taken out before."""

    def __init__(
        self,
        model: Model,
        pairs: PromptPairs,
        metric: Metric,
        scores: EdgeScores,
        budget: int,
        progress: Progress | None,
        seed: int,
    ) -> None:
        self.model, self.pairs, self.metric, self.graph = model, pairs, metric, scores.graph
        scores.matrix()  # refuses a graph of neurons
        self.budget, self.progress, self.seed = budget, progress, seed
        self.reading, self.mask = Reading.of(metric, pairs), differing(pairs, causal=model.weights.causal)
        with torch.no_grad():
            self.other = Base(model, plain_run(model, pairs.corrupt))
            self.corrupt = Sweep(model, self.other.run, self.reading).base_scores()
            self.sweep = Sweep(model, plain_run(model, pairs.clean), self.reading, budget=budget)
            self.clean = self.sweep.base_scores()
        refuse_zero_gap(self.clean, self.corrupt, pairs)
        self.gap = self.clean - self.corrupt
        gap = float(self.gap.mean())
        self.estimates = {edge: -value / gap for edge, value in zip(scores.edges(), scores.values.tolist(), strict=True)}

    def run(self, context: Sequence[Node]) -> Base:
        """The clean run with some nodes at their corrupt values."""
        return Base(self.model, plain_run(self.model, self.pairs.clean, held_nodes(self.other.run, context)))

    def _value(self, node: Node) -> Tensor:
        layer = node.layer or 0
        return self.other.run.z[layer][:, :, node.index] if node.kind == "head" else self.other.mlp(layer)

    def _taken_out(self, node: Node) -> Change:
        kind: Kind = "head" if node.kind == "head" else "mlp"
        return Change(kind, node.layer or 0, node.index, self._value(node), self.mask, label=str(node))

    def nodes(self, context: Sequence[Node]) -> dict[Node, Effect]:
        """What every other head and MLP is worth in a context: share of the gap that its corrupt value costs."""
        nodes = [node for node in self.graph.nodes() if node.kind in ("head", "mlp") and node not in context]
        changes = [self._taken_out(node) for node in nodes]
        return dict(zip(nodes, self._effects(context, changes, "patching nodes"), strict=True))

    def edges(self, context: Sequence[Node], edges: Sequence[Edge]) -> dict[Edge, Effect]:
        """What edges are worth in a context."""
        if not edges:
            return {}
        base = self.run(context)
        deltas = {writer: difference(base, self.other, writer) for writer in {edge.writer for edge in edges}}
        changes = []
        for edge in edges:
            reader = Reader(edge.reader, edge.slot)
            changes.append(reading_change(self.graph, reader, deltas[edge.writer], self.mask, str(edge)))
        return dict(zip(edges, self._effects(context, changes, "patching edges"), strict=True))

    def _effects(self, context: Sequence[Node], changes: Sequence[Change], what: str) -> list[Effect]:
        """Effects of changes that come on top of a context: it is part of every variant, so that it stays when what comes
        before it is recomputed."""
        gone = tuple(self._taken_out(node) for node in context)
        variants: list[Variant] = [gone, *((*gone, change) for change in changes)]
        named = f"{what} without {' '.join(map(str, context))}" if context else what
        scores = self.sweep.evaluate(variants, progress=self.progress, what=named)
        return ratio_intervals(scores[:1] - scores[1:], self.gap, seed=self.seed)

    def redundant_sets(self, proposed: Sequence[Edge]) -> list[tuple[Node, ...]]:
        """Smallest sets of nodes that can only go together with a loss; none of one node."""
        sums: dict[Node, float] = {}
        for edge in proposed:
            if edge.writer.kind != "input":
                sums[edge.writer] = max(sums.get(edge.writer, 0.0), abs(self.estimates[edge]))
        order = sorted((node for node in sums if sums[node] >= MIN_EFFECT), key=lambda node: -sums[node])
        order = [node for node in order if self._loss((node,)) <= _QUIET]
        gone: tuple[Node, ...] = ()
        sets: list[tuple[Node, ...]] = []
        for node in order:
            if self._loss((*gone, node)) <= _QUIET:
                gone = (*gone, node)
            else:
                sets.append(self._smallest(gone, node))
        if gone:
            alone, here = self.nodes(()), self.nodes(gone)
            for node, effect in here.items():
                if node not in (*gone, *order) and effect.effect > _QUIET >= alone[node].effect:
                    sets.append(self._smallest(gone, node))
        return list(dict.fromkeys(sets))

    def _smallest(self, gone: tuple[Node, ...], node: Node) -> tuple[Node, ...]:
        """A set of as few nodes as may be, with `node`, whose loss is still seen."""
        kept = list(gone)
        for other in gone:
            rest = [one for one in kept if one != other]
            if self._loss((*rest, node)) > _QUIET:
                kept = rest
        return tuple(sorted((*kept, node)))

    def _loss(self, nodes: Sequence[Node]) -> float:
        """Share of the gap that is lost when nodes go together."""
        scores = self.sweep.evaluate([tuple(self._taken_out(node) for node in nodes)])[0]
        return float((self.clean - scores).mean() / self.gap.mean())

    def proposed_without(self, context: Sequence[Node], most: int) -> list[Edge]:
        """The strongest edges by attribution where some nodes are gone, without those that seem to be worth next to nothing."""
        names = [str(node) for node in context]
        how: dict[str, Any] = {"steps": _STEPS, "without": names, "budget": self.budget}
        found = attribute_edges(self.model, self.pairs, self.metric, method="eap-ig", **how)
        least = MIN_EFFECT / 2 * abs(float(self.gap.mean()))
        return [edge for edge, value in found.top(most).edges.items() if abs(value or 0.0) >= least]
