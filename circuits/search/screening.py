"""Screen then verify: attribution proposes edges, exact patching confirms or rejects them, alone and where others that could
stand in for them are gone."""

import dataclasses
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from circuits.attribution import EdgeScores
from circuits.graph import Circuit, Edge, Graph, Node, Reader
from circuits.models import Edit, Model, Run, TokenBatch
from circuits.patching.base import Base
from circuits.patching.bootstrap import Effect, ratio_intervals
from circuits.patching.changes import Change, Variant
from circuits.patching.directions import difference, reading_change
from circuits.patching.nodes import about
from circuits.patching.reading import Reading
from circuits.patching.sites import differing
from circuits.patching.sweep import BUDGET, Progress, Sweep
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import Metric
from circuits.tasks.prompts import refuse_zero_gap

MIN_EFFECT = 0.005
"""Share of the gap between clean and corrupt that an edge must be worth."""
_QUIET = 0.1
"""Share of the gap that may be lost when the nodes of a context go: then others stand in for them."""


@dataclasses.dataclass(frozen=True)
class Tested:
    """One proposed edge: what attribution estimated, and what exact patching found."""

    edge: Edge
    estimate: float | None
    """Share of the gap that noising the edge alone costs, to first order; None: not proposed by attribution."""
    alone: Effect
    """The same, exactly."""
    effect: Effect
    """The largest over all contexts that were tried."""
    context: tuple[str, ...] = ()
    """Nodes that were taken out before, in the context of that effect; none: the edge matters by itself."""

    @property
    def confirmed(self) -> bool:
        """Whether the effect is as large as is asked for, with an interval that leaves out zero."""
        one = self.effect
        return abs(one.effect) >= MIN_EFFECT and (one.low > 0 or one.high < 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Screening:
    """Every edge that was proposed, tested exactly."""

    graph: Graph
    tested: tuple[Tested, ...]
    backups: tuple[str, ...]
    """Nodes that matter only after others were taken out, and were not proposed before."""
    metadata: dict

    @property
    def circuit(self) -> Circuit:
        """The confirmed edges, each with its largest effect as the score (share of the gap; positive: it supports the metric)
        and with both figures as evidence."""
        kept = [one for one in self.tested if one.confirmed]
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
        return Circuit(self.graph, scores, evidence=evidence, metadata=self.metadata)

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
    metric: Metric,
    scores: EdgeScores,
    *,
    edges: int = 100,
    contexts: int = 8,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Screening:
    """Patch the `edges` strongest of `scores` exactly (noising), alone and in up to `contexts` contexts.

    A context takes out, all together, nodes that can go without much loss: others stand in for them. Contexts are the
    writers of proposed edges one by one, strongest first, and sets of them grown as long as nine tenths of the gap stay.
    What matters then although it did not before (a backup: a head that wakes when another is gone) is found by patching
    every node in each context; its edges are tested there too. Exact in every context. Raises GraphError for a graph of
    neurons, PromptError where a pair has no gap.
    """
    tester = _Tester(model, pairs, metric, scores, budget, progress, seed)
    proposed = list(scores.top(edges).edges)
    found = {edge: [((), effect)] for edge, effect in tester.edges((), proposed).items()}
    at_rest = tester.nodes(())
    backups: dict[Node, None] = {}
    for context in tester.contexts(proposed, contexts):
        moved = tester.nodes(context)
        for node in moved:
            if node not in context and _grows(at_rest[node], moved[node]):
                backups.setdefault(node)
        near = [edge for node in backups for edge in tester.around(node) if edge not in found]
        found |= {edge: [((), effect)] for edge, effect in tester.edges((), near).items()}
        for edge, effect in tester.edges(context, [edge for edge in found if edge.writer not in context]).items():
            found[edge].append((tuple(map(str, context)), effect))
    tested = []
    for edge, effects in sorted(found.items()):
        context, effect = max(effects, key=lambda one: abs(one[1].effect))
        tested.append(Tested(edge, tester.estimates.get(edge), effects[0][1], effect, context))
    known = {edge.writer for edge in proposed} | {edge.reader for edge in proposed}
    details = about(model, metric, method="screen then verify", screened_by=scores.metadata.get("method"), seed=seed)
    return Screening(scores.graph, tuple(tested), tuple(str(node) for node in backups if node not in known), details)


def _grows(alone: Effect, here: Effect) -> bool:
    """Whether a node's effect rises by what is asked for, beyond both intervals."""
    return abs(here.effect) - abs(alone.effect) >= MIN_EFFECT and (here.low > alone.high or here.high < alone.low)


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
        self.model, self.pairs, self.graph = model, pairs, scores.graph
        scores.matrix()  # refuses a graph of neurons
        self.budget, self.progress, self.seed = budget, progress, seed
        self.reading, self.mask = Reading.of(metric, pairs), differing(pairs, causal=model.weights.causal)
        with torch.no_grad():
            self.other = Base(model, model.run(pairs.corrupt))
            self.corrupt = Sweep(model, self.other.run, self.reading).base_scores()
        self.base = self.context(())
        self.clean = self.base.base_scores()
        refuse_zero_gap(self.clean, self.corrupt, pairs)
        self.gap = self.clean - self.corrupt
        gap = float(self.gap.mean())
        self.estimates = {edge: -value / gap for edge, value in zip(scores.edges(), scores.values.tolist(), strict=True)}

    def context(self, nodes: Sequence[Node]) -> Sweep:
        """The clean run with some nodes at their corrupt values."""
        edits = [Edit(node, self._value(node)) for node in nodes]
        tokens: TokenBatch = self.pairs.clean
        with torch.no_grad():
            run: Run = self.model.run(tokens, edits=edits)
        return Sweep(self.model, run, self.reading, budget=self.budget)

    def _value(self, node: Node) -> Tensor:
        layer = node.layer or 0
        return self.other.run.z[layer][:, :, node.index] if node.kind == "head" else self.other.mlp(layer)

    def nodes(self, context: Sequence[Node]) -> dict[Node, Effect]:
        """What every head and MLP is worth in a context: share of the gap that its corrupt value costs."""
        nodes = [node for node in self.graph.nodes() if node.kind in ("head", "mlp")]
        variants: list[Variant] = []
        for node in nodes:
            kind = "head" if node.kind == "head" else "mlp"
            variants.append((Change(kind, node.layer or 0, node.index, self._value(node), self.mask, label=str(node)),))
        return dict(zip(nodes, self._effects(context, variants, "patching nodes"), strict=True))

    def edges(self, context: Sequence[Node], edges: Sequence[Edge]) -> dict[Edge, Effect]:
        """What edges are worth in a context."""
        if not edges:
            return {}
        sweep = self.base if not context else self.context(context)
        deltas = {writer: difference(sweep.base, self.other, writer) for writer in {edge.writer for edge in edges}}
        variants: list[Variant] = []
        for edge in edges:
            reader = Reader(edge.reader, edge.slot)
            variants.append((reading_change(self.graph, reader, deltas[edge.writer], self.mask, str(edge)),))
        return dict(zip(edges, self._effects(context, variants, "patching edges", sweep), strict=True))

    def _effects(self, context: Sequence[Node], variants: list[Variant], what: str, sweep: Sweep | None = None) -> list[Effect]:
        sweep = sweep or (self.base if not context else self.context(context))
        named = f"{what} without {' '.join(map(str, context))}" if context else what
        scores = sweep.evaluate(variants, progress=self.progress, what=named)
        return ratio_intervals(sweep.base_scores() - scores, self.gap, seed=self.seed)

    def contexts(self, proposed: Sequence[Edge], most: int) -> list[tuple[Node, ...]]:
        """Writers of proposed edges by themselves, strongest first, and a set of them grown while little is lost."""
        sums: dict[Node, float] = {}
        for edge in proposed:
            if edge.writer.kind != "input":
                sums[edge.writer] = sums.get(edge.writer, 0.0) + abs(self.estimates[edge])
        order = sorted(sums, key=lambda node: -sums[node])
        singles = [(node,) for node in order if self._loss((node,)) <= _QUIET]
        grown: tuple[Node, ...] = ()
        sets: list[tuple[Node, ...]] = []
        for (node,) in singles:
            if self._loss((*grown, node)) <= _QUIET:
                grown = (*grown, node)
                sets += [grown] if len(grown) > 1 else []
        kept = (most + 1) // 2
        return [*singles[:kept], *sets[-(most - len(singles[:kept])) :]][:most]

    def _loss(self, nodes: Sequence[Node]) -> float:
        return float((self.clean - self.context(nodes).base_scores()).mean() / self.gap.mean())

    def around(self, node: Node) -> list[Edge]:
        """Every edge that enters or leaves a node."""
        slots = ("q", "k", "v") if node.kind == "head" else (None,)
        readers = [self.graph.reader_of(node, slot) if slot else Reader(node) for slot in slots]
        into = [Edge(writer, reader.node, reader.slot) for reader in readers for writer in self.graph.writers(reader)]
        return [*into, *(Edge(node, reader.node, reader.slot) for reader in self.graph.readers(node))]
