"""What the search for a recall circuit measures: exact effects of nodes and edges, on the prompts where they can matter."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import Graph, Node, Reader
from circuits.models import Edit, Model, node_output
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.directions import difference, reading_change
from circuits.patching.engine.sites import find_sites, position_masks, value_at
from circuits.patching.nodes import Pair, both_runs
from circuits.progress import Progress
from circuits.statistics import Effect, ratio_intervals
from circuits.tasks import PromptPairs
from circuits.tasks.metric import answer_logits
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
        self, model: Model, pairs: PromptPairs, *, min_effect: float, seed: int, budget: int, progress: Progress | None
    ) -> None:
        self.model, self.pairs, self.min_effect, self.seed, self.progress = model, pairs, min_effect, seed, progress
        self.graph: Graph = model.graph(neurons=model.d_mlp > 0)
        self.pair: Pair = both_runs(model, pairs, logit_difference, "noising", budget=budget)
        clean, corrupt = self.pair.ends
        self.gaps = (clean - corrupt).double().cpu()
        self._importance: dict[Node, Tensor] = {}
        self._means: dict[Node, Tensor] = {}

    @property
    def clean(self) -> Base:
        """The clean run."""
        return self.pair.sweep.base

    def screened(self, most: int) -> list[Node]:
        """The neurons whose change, to first order, moves some prompt's metric most: gradient times difference."""
        if not self.model.d_mlp:
            return []
        scores = []
        with torch.enable_grad():
            start = self.clean.run.residuals[0].detach().clone().requires_grad_()
            run = self.model.run(self.pairs.clean, edits=[Edit("input", lambda _: start)])
            metric = logit_difference(answer_logits(run, self.pairs), self.pairs).sum()
            gradients = torch.autograd.grad(metric, run.neurons)
        for gradient, own, other in zip(gradients, self.clean.run.neurons, self.pair.other.run.neurons, strict=True):
            moved = (gradient * (other - own) * self.pairs.clean.mask[..., None]).sum(dim=1)
            scores.append(moved.abs().amax(dim=0))
        flat = torch.cat(scores)
        chosen = flat.argsort(descending=True, stable=True)[:most].tolist()
        return sorted(Node("neuron", i // self.model.d_mlp, i % self.model.d_mlp) for i in chosen if float(flat[i]) > 0)

    def measure_nodes(self, nodes: Sequence[Node], what: str) -> None:
        """Patch every node by itself and remember how far each prompt's metric moves, `[prompt]`."""
        variants: list[Variant] = []
        for node in nodes:
            site = find_sites(self.model, str(node))[0]
            value = value_at(self.pair.other, site)
            variants.append((Change(site.kind, site.layer, site.index, value, self.pair.mask, label=str(node)),))
        for node, moved in zip(nodes, self._moved(variants, what), strict=True):
            self._importance[node] = moved

    def where(self, node: Node) -> Bool[Tensor, " prompt"]:
        """The prompts on which a node matters; all of them for input and logits."""
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
        return self._claim(self._importance[node], rows, "resample")

    def everywhere(self, node: Node) -> Claim:
        """The effect of patching one measured node, over all prompts: free of any choice of prompts."""
        return self._claim(self._importance[node], torch.ones(len(self.pairs), dtype=torch.bool), "resample")

    def positions_of(self, node: Node, min_effect: float) -> tuple[str, ...]:
        """Those of the pairs' positions where patching the node alone costs `min_effect`, on the prompts where it matters."""
        there = [name for name, columns in self.pairs.positions.items() if bool((columns >= 0).any())]
        site, places = find_sites(self.model, str(node))[0], (*there, "last")
        value, masks = value_at(self.pair.other, site), position_masks(self.pairs, places)
        kept = [mask & self.pair.mask for mask in masks.values()]
        variants = [(Change(site.kind, site.layer, site.index, value, mask, label=str(node)),) for mask in kept]
        rows, having = self.where(node), [mask.any(dim=1).cpu() for mask in masks.values()]
        found = zip(self._moved(variants, "finding positions"), having, strict=True)
        claims = [self._claim(moved, rows & one, "resample") for moved, one in found]
        return tuple(place for place, claim in zip(places, claims, strict=True) if claim.effect.effect >= min_effect)

    def edge_claims(self, writers: Sequence[Node], reader: Reader) -> dict[Node, list[Claim]]:
        """For each writer what its edge into a reader is worth, with its value from the paired prompt and with its mean over
        all tokens of the clean prompts. Only prompts on which the reader's node matters are run."""
        matters = self.where(reader.node)
        kept = matters.nonzero()[:, 0].tolist()
        if not kept:
            return {}
        pair = self.pair
        if len(kept) < len(self.pairs):
            pair = both_runs(self.model, self.pairs[kept], logit_difference, "noising", budget=self.pair.sweep.budget)
        base, variants = pair.sweep.base, list[Variant]()
        for writer in writers:
            with torch.no_grad():
                deltas = difference(base, pair.other, writer), self._mean(writer) - node_output(base.run, writer)
            variants += [(reading_change(self.graph, reader, delta, base.run.tokens.mask),) for delta in deltas]
        scores = pair.sweep.evaluate(variants, progress=self.progress, what="testing edges")
        moved = torch.zeros(len(writers), 2, len(self.pairs), dtype=torch.float64)
        moved[:, :, kept] = (pair.ends[0] - scores).double().cpu().unflatten(0, (len(writers), 2))
        claims = {}
        for writer, (resampled, averaged) in zip(writers, moved, strict=True):
            chosen = self.where(writer) & matters
            found = [self._claim(resampled, chosen, "resample"), self._claim(averaged, chosen, "mean")]
            claims[writer] = found if bool(chosen.any()) else []
        return claims

    def knocked_out(self, head: Node, columns: Tensor) -> Claim:
        """What is lost when a head's answer query may not attend to a column of each prompt that has one (-1: none)."""
        prompts, width = self.pairs.clean.ids.shape
        places = torch.arange(width, device=self.model.device)
        keys = (places == columns[:, None])[:, None].expand(prompts, width, width)
        query = places == self.pairs.answer_columns[:, None]
        own = torch.eye(width, dtype=torch.bool, device=self.model.device)
        change = Change("knockout", head.layer or 0, head.index, keys & ~own, query, label=f"attention of {head}")
        rows = self.where(head) & (columns >= 0).cpu()
        return self._claim(self._moved([(change,)], "blocking attention")[0], rows, "knockout")

    def _mean(self, writer: Node) -> Float[Tensor, " d_model"]:
        """What a node writes, averaged over all tokens of the clean prompts."""
        if writer not in self._means:
            own, mask = node_output(self.clean.run, writer), self.pairs.clean.mask[..., None]
            self._means[writer] = (own * mask).sum(dim=(0, 1)) / mask.sum()
        return self._means[writer]

    def _moved(self, variants: Sequence[Variant], what: str) -> Float[Tensor, "variant prompt"]:
        scores = self.pair.sweep.evaluate(variants, progress=self.progress, what=what)
        return (self.pair.ends[0] - scores).double().cpu()

    def _claim(self, moved: Tensor, rows: Tensor, kind: str) -> Claim:
        if not bool(rows.any()):
            return Claim(Effect(0.0, 0.0, 0.0), kind, 0)
        effect = ratio_intervals(moved[None, rows], self.gaps[rows], seed=self.seed)[0]
        return Claim(effect, kind, int(rows.sum()))
