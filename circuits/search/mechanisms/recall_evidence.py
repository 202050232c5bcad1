"""What the search for a recall circuit measures: exact effects of nodes and edges, on the prompts where they can matter."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import Graph, Node, Reader
from circuits.models import Model, node_output
from circuits.patching.engine.base import Base, some_prompts
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import find_sites, position_masks, value_at
from circuits.patching.engine.sweep import Sweep
from circuits.patching.nodes import Pair, both_runs
from circuits.progress import Progress
from circuits.search.mechanisms.recall_estimates import Slopes
from circuits.statistics import Effect, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.metrics import logit_difference


@dataclasses.dataclass(frozen=True)
class Claim:
    """An effect as a share of the clean-corrupt gap, the kind of patch that showed it, and on how many prompts."""

    effect: Effect
    kind: str
    prompts: int

    def as_json(self) -> dict[str, float | int | str]:
        """As it stands in circuit files."""
        return {**self.effect.as_json(), "kind": self.kind, "prompts": self.prompts}


class Evidence:
    """Noising effects on the logit difference: clean runs, with values from the paired prompt or averaged over all tokens.

    Every effect is measured on the prompts where its nodes matter: those on which patching the node costs `min_effect` of
    the prompt's gap, and for a neuron those of them on which its activation differs at least half as much as on its
    strongest prompt, and (where there are such) on which it fires more than on the corrupt prompt."""

    def __init__(
        self,
        model: Model,
        pairs: PromptPairs,
        *,
        min_effect: float,
        seed: int,
        budget: int,
        progress: Progress | None,
        steps: int = 0,
    ) -> None:
        self.model, self.pairs, self.min_effect, self.seed, self.progress = model, pairs, min_effect, seed, progress
        self.graph: Graph = model.graph(neurons=model.d_mlp > 0)
        self.pair: Pair = both_runs(model, pairs, logit_difference, "noising", budget=budget)
        clean, corrupt = self.pair.ends
        self.gaps = (clean - corrupt).double().cpu()
        self.steps = steps
        """Points at which gradients for estimates are taken; 0: the clean run alone."""
        self.spent = 1.0
        """Plain forwards over both prompts of all pairs that were taken, about."""
        self._importance: dict[Node, Tensor] = {}
        self._where: dict[Node, Tensor] = {}
        self._part: tuple[list[int], Pair] = (list(range(len(pairs))), self.pair)
        self._means: dict[Node, Tensor] = {}

    @property
    def clean(self) -> Base:
        """The clean run."""
        return self.pair.sweep.base

    @functools.cached_property
    def slopes(self) -> Slopes:
        """Gradients, for estimates."""
        ends, steps = (self.clean, self.pair.other), self.steps
        self.spent += 1.5 * max(1, steps)  # forward and back, over half of all prompts
        options: dict[str, Any] = {"steps": steps, "budget": self.pair.sweep.budget, "progress": self.progress}
        return Slopes.of(self.model, self.pairs, *ends, **options)

    def screened(self, kind: str, most: int) -> list[Node]:
        """The heads or neurons whose change, to first order, moves some prompt's metric most: gradient times difference."""
        if not most or (kind == "neuron" and not self.model.d_mlp):
            return []
        return self.slopes.strongest(kind, self.clean, self.pair.other, most)

    def measure_nodes(self, nodes: Sequence[Node], what: str) -> None:
        """Patch every node by itself and remember how far each prompt's metric moves, `[prompt]`."""
        if not nodes:
            return
        moved = torch.zeros(len(nodes), len(self.pairs), dtype=torch.float64)
        sites = find_sites(self.model, list(map(str, nodes)))
        for rows in self._alike:
            kept, pair = self.on(rows)
            variants: list[Variant] = []
            for site in sites:
                value = value_at(pair.other, site)
                variants.append((Change(site.kind, site.layer, site.index, value, pair.mask, label=site.name),))
            moved += self.moved(variants, what, kept, pair)
        for node, own in zip(nodes, moved, strict=True):
            self._importance[node] = own
            self._where.pop(node, None)

    @functools.cached_property
    def _alike(self) -> list[Bool[Tensor, " prompt"]]:
        """The prompts in groups of like length and first differing token: a run takes, in every prompt, the columns from the
        first of these to the longest."""
        lengths, starts = self.pairs.clean.mask.sum(dim=1).tolist(), self.pair.mask.long().argmax(dim=1).tolist()
        count = len(self.pairs)
        order = sorted(range(count), key=lambda row: (lengths[row], starts[row], row))
        groups = 1 if len(set(zip(lengths, starts, strict=True))) == 1 else max(1, min(4, count // 8))
        found = []
        for group in range(groups):
            rows = torch.zeros(count, dtype=torch.bool)
            rows[order[group * count // groups : (group + 1) * count // groups]] = True
            found.append(rows)
        return found

    def where(self, node: Node) -> Bool[Tensor, " prompt"]:
        """The prompts on which a node matters; all of them for input and logits."""
        if node not in self._where:
            self._where[node] = self._matters(node)
        return self._where[node]

    def _matters(self, node: Node) -> Bool[Tensor, " prompt"]:
        everywhere = torch.ones(len(self.pairs), dtype=torch.bool)
        if node not in self._importance:
            return everywhere
        matters = self._importance[node] / self.gaps >= self.min_effect
        if node.kind != "neuron":
            return matters
        layer, index = node.layer or 0, node.index
        mask = self.pairs.clean.mask
        own, other = (base.run.neurons[layer][:, :, index] * mask for base in (self.clean, self.pair.other))
        change = (own - other).abs().amax(dim=1).cpu()
        matters = matters & (change >= 0.5 * change.max())
        firing = (own.abs().amax(dim=1) > other.abs().amax(dim=1)).cpu()
        return matters & firing if bool((matters & firing).any()) else matters

    def node_claim(self, node: Node) -> Claim:
        """The effect of patching one measured node."""
        rows = self.where(node)
        return self.claim(self._importance[node], rows, "resample")

    def everywhere(self, node: Node) -> Claim:
        """The effect of patching one measured node, over all prompts: free of any choice of prompts."""
        return self.claim(self._importance[node], torch.ones(len(self.pairs), dtype=torch.bool), "resample")

    def whole(self, node: Node) -> float:
        """The effect of patching one measured node, over all prompts, without its interval."""
        return float(self._importance[node].sum() / self.gaps.sum())

    def positions_of(self, node: Node, min_effect: float) -> tuple[str, ...]:
        """Those of the pairs' positions where patching the node alone costs `min_effect`, on the prompts where it matters."""
        there = [name for name, columns in self.pairs.positions.items() if bool((columns >= 0).any())]
        rows, site, places = self.where(node), find_sites(self.model, str(node))[0], (*there, "last")
        kept, pair = self.on(rows)
        value, masks = value_at(pair.other, site), position_masks(self.pairs, places)
        variants = []
        for mask in masks.values():
            mask = mask[kept, : pair.mask.shape[1]] & pair.mask
            variants.append((Change(site.kind, site.layer, site.index, value, mask, label=str(node)),))
        having = [mask.any(dim=1).cpu() for mask in masks.values()]
        found = zip(self.moved(variants, "finding positions", kept, pair), having, strict=True)
        claims = [self.claim(moved, rows & one, "resample") for moved, one in found]
        return tuple(place for place, claim in zip(places, claims, strict=True) if claim.effect.effect >= min_effect)

    def where_read(self, reader: Reader) -> Bool[Tensor, " prompt"]:
        """The prompts on which a node that computes with this reading matters: of a shared key or value any measured head."""
        nodes = self.graph.targets(reader) if reader.slot else [reader.node]
        known = [node for node in nodes if node in self._importance or node.kind == "logits"]
        return torch.stack([self.where(node) for node in known]).any(dim=0)

    def on(self, rows: Bool[Tensor, " prompt"]) -> tuple[list[int], Pair]:
        """Which prompts these are (all, where there is none), and both runs of them alone."""
        kept = rows.nonzero()[:, 0].tolist()
        if not kept or len(kept) == len(self.pairs):
            return list(range(len(self.pairs))), self.pair
        if self._part[0] != kept:
            pairs, whole = self.pairs[kept], self.pair
            width = int(pairs.clean.mask.sum(dim=1).max())
            # Of the other run only what nodes write is read: copies of the rest would cost as much as they save.
            written = dataclasses.replace(whole.other.run, middles=(), q=(), k=(), v=())
            own, other = (some_prompts(run, torch.tensor(kept), width) for run in (self.clean.run, written))
            sweep = Sweep(self.model, own, Reading.of(logit_difference, pairs), budget=whole.sweep.budget)
            ends = whole.ends[0][kept], whole.ends[1][kept]
            self._part = kept, Pair(sweep, Base(self.model, other), ends, whole.mask[kept, :width])
        return self._part

    def knocked_out(self, head: Node, columns: Tensor) -> Claim:
        """What is lost when a head's answer query may not attend to a column of each prompt that has one (-1: none)."""
        prompts, width = self.pairs.clean.ids.shape
        places = torch.arange(width, device=self.model.device)
        keys = (places == columns[:, None])[:, None].expand(prompts, width, width)
        query = places == self.pairs.answer_columns[:, None]
        own = torch.eye(width, dtype=torch.bool, device=self.model.device)
        change = Change("knockout", head.layer or 0, head.index, keys & ~own, query, label=f"attention of {head}")
        rows = self.where(head) & (columns >= 0).cpu()
        return self.claim(self.moved([(change,)], "blocking attention")[0], rows, "knockout")

    def mean(self, writer: Node) -> Float[Tensor, " d_model"]:
        """What a node writes, averaged over all tokens of the clean prompts."""
        if writer not in self._means:
            own, mask = node_output(self.clean.run, writer), self.pairs.clean.mask[..., None]
            self._means[writer] = (own * mask).sum(dim=(0, 1)) / mask.sum()
        return self._means[writer]

    def moved(
        self, variants: Sequence[Variant], what: str, kept: list[int] | None = None, pair: Pair | None = None
    ) -> Float[Tensor, "variant prompt"]:
        """How far each variant moves the metric of each prompt; 0 for prompts that are not `kept`."""
        pair = pair or self.pair
        scores = pair.sweep.evaluate(variants, progress=self.progress, what=what)
        self.spent += sum(self.price(variant[0].layer, variant[0].mask) for variant in variants)
        moved = torch.zeros(len(variants), len(self.pairs), dtype=torch.float64)
        moved[:, list(range(len(self.pairs))) if kept is None else kept] = (pair.ends[0] - scores).double().cpu()
        return moved

    def price(self, layer: int, mask: Tensor) -> float:
        """Plain forwards over both prompts of all pairs that one run takes which leaves the clean one at a layer, about."""
        weights, (prompts, width) = self.model.weights, mask.shape
        block, first = weights.blocks[0], mask.any(dim=0).nonzero()
        matrices = [block.attention.W_Q, block.attention.W_K, block.attention.W_V, block.attention.W_O]
        if block.mlp is not None:
            matrices += [one for one in (block.mlp.W_in, block.mlp.W_gate, block.mlp.W_out) if one is not None]
        size, tokens = sum(matrix.numel() for matrix in matrices), prompts * (width - int(first[0])) if len(first) else 0
        whole = 2 * self.pairs.clean.ids.numel() * (size * len(weights.blocks) + weights.W_U.numel())
        return tokens * (len(weights.blocks) - layer) * size / whole

    def claim(self, moved: Float[Tensor, " prompt"], rows: Bool[Tensor, " prompt"], kind: str) -> Claim:
        """What a change costs on some prompts, from how far it moved each of them; zero where there are none."""
        if not bool(rows.any()):
            return Claim(Effect(0.0, 0.0, 0.0), kind, 0)
        effect = ratio_intervals(moved[None, rows], self.gaps[rows], seed=self.seed)[0]
        return Claim(effect, kind, int(rows.sum()))
