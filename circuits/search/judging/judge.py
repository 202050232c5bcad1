"""What judging runs: circuits on their own, circuits and the whole model without some nodes, on shared base runs."""

import copy
import functools
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Node
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.engine.change import Change
from circuits.patching.engine.sites import differing
from circuits.patching.engine.sweep import Sweep
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.patching.subgraphs.subgraph import Circuits
from circuits.progress import Progress
from circuits.statistics import Effect, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.gaps import refuse_zero_gap
from circuits.tasks.metric import AnyMetric
from circuits.tasks.sharing import groups_of

_ALIKE = 0.5
"""The least part of the mean gap that the gap of a few prompts has if they stand for all."""


class Judge:
    """Base runs that serve every circuit, and the gap `[prompt]` that faithfulness is a share of. Raises PromptError where a
    pair has no gap."""

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
        self.model, self.outside, self.neurons, self.budget, self.progress = model, outside, neurons, budget, progress
        self._runs = Circuits(model, pairs, metric, outside=outside, budget=budget)
        self.metric, self.groups = self._runs.metric, groups_of(pairs)
        self._start = self._runs.baseline(neurons=neurons)
        refuse_zero_gap(self._runs.clean, self._start, pairs)
        self.gap = (self._runs.clean - self._start).double().cpu()
        self._changes: dict[Node, Change] = {}

    def first(self, prompts: int) -> "Judge":
        """The same on the first so many prompts alone, where the metric scores each prompt by itself; else on all."""
        if prompts >= len(self.gap) or not self.metric.by_prompt:
            return self
        rows, one = slice(0, prompts), copy.copy(self)
        one._runs, one.metric, one.groups = self._runs.on(rows), self.metric.on(rows), groups_of(self._runs.pairs[rows])
        one._start, one.gap, one._changes = self._start[rows], self.gap[rows], {}
        return one

    def few(self, prompts: int) -> "Judge":
        """The same on the first so many prompts, where they can stand for all, their gap being like that of all; else on twice
        as many, and so on."""
        # Shares of a gap that is next to nothing, or of the other sign, would be large and turned round. No circuit is looked
        # at here: on whichever prompts, one that is no better than random ones has the same chance among them.
        while prompts < len(self.gap) and float(self.gap[:prompts].mean() / self.gap.mean()) < _ALIKE:
            prompts *= 2
        return self.first(prompts)

    @property
    def independent(self) -> int:
        """How many groups of prompts there are that share none."""
        return int(self.groups.max()) + 1

    def rest(self) -> None:
        """Have what edges outside carry at hand, which is worked out when it is first asked for."""
        self._runs.rest(self.neurons)

    def changes(
        self, circuits: Sequence[Members], what: str, *, place: tuple[int, int] | None = None
    ) -> Float[Tensor, "circuit prompt"]:
        """How far each circuit brings the metric from that of the empty one. `place`: how many such circuits have been run
        before, and how many there will be in all, where progress tells of more than these."""
        report = self.progress
        if report is not None and place is not None:
            before, total = place
            report = functools.partial(_later, report, before, total)
        return (self._runs.scores(circuits, progress=report, what=what) - self._start).double().cpu()

    def effects(self, changes: Float[Tensor, "circuit prompt"], *, seed: int) -> list[Effect]:
        """Each circuit's faithfulness with its 95 % interval; pairs that share a prompt are drawn together."""
        both = torch.cat([changes, self.gap[None]])
        sums = torch.zeros(len(both), self.independent, dtype=torch.float64).index_add_(1, self.groups, both)
        return ratio_intervals(sums[:-1], sums[-1], seed=seed)

    def faithfulness(
        self, circuits: Sequence[Members], what: str, *, place: tuple[int, int] | None = None
    ) -> Float[Tensor, " circuit"]:
        """Every circuit's faithfulness; `place` as in `changes`."""
        if not circuits:
            return torch.zeros(0, dtype=torch.float64)
        return self._shares(self.changes(circuits, what, place=place))

    def without(self, members: Members, sets: Sequence[Iterable[Node]], what: str) -> list[float]:
        """Faithfulness of a circuit without the edges that leave some nodes, set by set."""
        graph = members.graph
        return self.faithfulness([members.without(map(graph.writer_index, nodes)) for nodes in sets], what).tolist()

    def model_without(self, sets: Sequence[Sequence[Node]], what: str) -> list[float]:
        """Faithfulness of the whole model without the edges that leave some heads and whole MLPs (at some roles), set by
        set."""
        weights, known = self.model.weights, self._runs.pairs.roles
        # No edge that leaves a node carries its value: all read what is outside, as if the node wrote that. So the model is run
        # as it is, with a few outputs replaced. But behind a norm the node's own value still counts in the scale of its layer.
        if any(block.attention_post_norm is not None for block in weights.blocks):
            roles = known.roles if known is not None and any(node.at for nodes in sets for node in nodes) else None
            return self.without(Members.whole(self.model.graph(roles=roles)), sets, what)
        if not sets:
            return []
        sweep = Sweep(self.model, self._runs.own, self._runs.reading, budget=self.budget)
        variants = [tuple(self._change(node) for node in sorted(nodes)) for nodes in sets]
        found = sweep.evaluate(variants, progress=self.progress, what=what)
        return self._shares((found - self._start).double().cpu()).tolist()

    def _change(self, node: Node) -> Change:
        """A node's output replaced by what edges outside carry for it; one record a node, which tells the sweep what variants
        have in common."""
        if node not in self._changes:
            pairs, rest = self._runs.pairs, self._runs.rest(False).layers[node.layer or 0]
            mask = pairs.clean.mask
            mask = mask & differing(pairs, causal=self.model.weights.causal) if self.outside == "corrupt" else mask
            if node.at is not None and pairs.roles is not None:
                mask = mask & (pairs.roles.columns == pairs.roles.names.index(node.at))
            head = node.kind == "head"
            value = rest.heads[:, :, node.index] if head else rest.mlp
            assert value is not None, f"{node} writes nothing"
            self._changes[node] = Change("head" if head else "mlp", node.layer or 0, node.index if head else None, value, mask)
        return self._changes[node]

    def _shares(self, changes: Float[Tensor, "circuit prompt"]) -> Float[Tensor, " circuit"]:
        return changes.mean(dim=1) / self.gap.mean()


def _later(report: Progress, before: int, total: int, what: str, done: int, _: int) -> None:
    report(what, before + done, total)
