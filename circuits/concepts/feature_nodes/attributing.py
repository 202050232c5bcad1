"""Attribution to features: what the answer, or another feature, owes to each, to first order."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.attribution.batches import prompts_at_once
from circuits.attribution.points import shares
from circuits.attribution.rules import feature_rule
from circuits.concepts.feature_nodes.exact import measure_nodes
from circuits.concepts.feature_nodes.scores import FeatureScores, TapTotal
from circuits.concepts.feature_nodes.taps import Apart, Tap, parsed_node, taps_of
from circuits.concepts.feature_nodes.targets import FeatureTarget, target_of
from circuits.concepts.features.dictionary import Dictionary
from circuits.errors import CircuitsError, NonFiniteError, PromptError
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.sites import differing
from circuits.patching.nodes import about
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted

KEPT, EXACT = 200, 20
"""Nodes that are kept, and of those how many are measured, where not told otherwise."""


def attribute_features(
    model: Model,
    dictionaries: Dictionary | Sequence[Dictionary],
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    to: str | None = None,
    method: str = "eap-ig",
    steps: int = 10,
    keep: int = KEPT,
    exact: int = EXACT,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> FeatureScores:
    """Estimate, for every feature and for what each dictionary leaves over (its error), by how much the metric would move if it
    took its value from the corrupt prompts: (z_corrupt - z_clean) W_dec · gradient, summed over tokens (Marks et al. 2024).

    With the mean gradient on the straight way between the two values of all that stands at the place ("eap-ig") the scores of
    a dictionary's nodes add up to what taking the whole place from the corrupt prompts does, but for the error of few points.
    Features are gone through in blocks that fit the budget. Raises GraphError for dictionaries that do not fit, PromptError
    where the prompts make no difference, NonFiniteError, CircuitsError for options that do not exist.

    Args:
        model: the model.
        dictionaries: one or several, of different places.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        to: a feature of one of the dictionaries (`resid3.f12`) in place of the metric: its pre-activation, at the token of each
            clean prompt where it is largest.
        method: the gradient on the clean run ("eap"), or its mean along the way to the corrupt value ("eap-ig").
        steps: points of that mean.
        keep: nodes of largest score that are kept; errors always are.
        exact: of how many of these the effect is also measured, each by a run of its own.
        seed: that of the bootstrap.
        budget: bytes that are held above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    rule = feature_rule(method)
    if min(steps, keep) < 1 or exact < 0:
        raise CircuitsError(f"steps={steps}, keep={keep}, exact={exact}: expected numbers above 0, and exact from 0 on")
    taps, metric = taps_of(model, dictionaries), fitted(metric, model, pairs, gradient=True)
    goal = target_of(model, pairs, metric, taps, to)
    sources = tuple(tap for tap in taps if goal.place is None or tap.writes.rank < goal.place.rank)
    if not sources:
        raise CircuitsError(f"{to} comes before all dictionaries: there is nothing to attribute it to")
    points = [(1.0, 1.0)] if rule.points is None else shares(steps)
    seen = _look(model, sources, pairs, goal, points, budget, progress or silent)
    clean, corrupt = goal.ends(model, pairs, budget)
    if not bool((corrupt != clean).any()):
        raise PromptError(f"clean and corrupt prompts give the same {to or metric.name}: there is nothing to attribute")
    chosen = _chosen(seen, keep)
    nodes = [(row, feature) for row, features in enumerate(chosen) for feature in (*features.tolist(), *sources[row].rests)]
    parts = [_kept(seen[row], chosen[row], pairs) for row in range(len(sources))]
    # In a causal model nothing behind the answer's token counts.
    offsets = [offset for offset in offsets_of(pairs) if offset <= 0 or not model.weights.causal]
    order = torch.cat([scores for scores, _ in parts]).mean(dim=1).abs().argsort(descending=True, stable=True).tolist()
    scores, places = (torch.cat(some)[order] for some in zip(*parts, strict=True))
    nodes = [nodes[row] for row in order]
    # One run more a dictionary: all that stands there, taken from the corrupt prompts.
    asked = [*nodes[:exact], *((row, "all") for row in range(len(sources)))]
    real = measure_nodes(model, sources, [one.own for one in seen], [one.other for one in seen], asked, pairs, goal, budget)
    measured = torch.full_like(scores, torch.nan)
    measured[: len(nodes[:exact])] = real[: len(nodes[:exact])] - clean
    totals = (real[len(nodes[:exact]) :] - clean).mean(dim=1).tolist()
    details: dict[str, Any] = {
        "method": method,
        "steps": len(points),
        "to": to or "",
        "dictionaries": [tap.name for tap in taps],
    }
    return FeatureScores(
        names=tuple(sources[row].node(feature) for row, feature in nodes),
        scores=scores,
        by_position=places[:, : len(offsets)],
        offsets=tuple(offsets),
        exact=measured,
        clean=clean,
        corrupt=corrupt,
        taps=tuple(one.total(exact) for one, exact in zip(seen, totals, strict=True)),
        metadata=about(model, metric, **details),
        seed=seed,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A tap in the clean and in the corrupt runs, with the mean gradient at its place."""

    tap: Tap
    own: Apart
    other: Apart
    slope: Float[Tensor, "prompt position width"]
    mask: Bool[Tensor, "prompt position"]
    block: int
    moved: Float[Tensor, " feature"]
    """Every feature's score, the mean over prompts."""
    differing: int

    def total(self, exact: float) -> TapTotal:
        """What its nodes come to."""
        by_features = float(self.moved.sum())
        by_error, skip = (float(self.rest(name).sum(dim=1).mean()) for name in ("error", "skip"))
        dictionary = self.tap.dictionary
        about = (self.tap.name, dictionary.name, len(dictionary), self.differing)
        return TapTotal(*about, by_features + by_error + skip, by_features, by_error, exact)

    def rest(self, name: str) -> Float[Tensor, "prompt position"]:
        """The score of what is no feature, at each token."""
        change = self.other.rest(name) - self.own.rest(name)
        return torch.einsum("pcd,pcd,pc->pc", change, self.slope, self.mask.to(change.dtype)).double().cpu()


@torch.no_grad()
def _look(
    model: Model,
    taps: Sequence[Tap],
    pairs: PromptPairs,
    goal: FeatureTarget,
    points: Sequence[tuple[float, float]],
    budget: int,
    report: Progress,
) -> list[Seen]:
    """What stands at every tap in both runs, the gradients there, and every feature's score."""
    size = prompts_at_once(model, pairs, budget, edges=False) if goal.by_prompt else len(pairs)
    rows = [slice(start, min(start + size, len(pairs))) for start in range(0, len(pairs), size)]
    width, element = pairs.clean.ids.shape[1], torch.finfo(model.dtype).bits // 8
    block = max(1, taps[0].block(size * width, budget, element))

    def look(place: int) -> list[tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]]:
        """The taps in some of the prompts: both runs' parts, and the gradient."""
        part = pairs[rows[place]]
        own, other = plain_run(model, part.clean), plain_run(model, part.corrupt)
        found = []
        for tap in taps:
            ends = tap.apart(own, size=block), tap.apart(other, size=block)
            slope = torch.zeros_like(ends[0].y)
            for share, weight in points:
                y = torch.lerp(ends[1].y, ends[0].y, share)
                slope += weight * goal.slope(model, own, tap.writes, y, rows[place])
            if not bool(slope.isfinite().all()):
                raise NonFiniteError(f"a gradient at {tap.name} holds NaN or infinity")
            found.append((ends[0].parts, ends[1].parts, slope))
        return found

    parts = []
    for place, found in enumerate(shards("attributing features", len(rows), look)):
        report("attributing features", rows[place].start, len(pairs))
        parts.append(found)
    report("attributing features", len(pairs), len(pairs))
    mask = differing(pairs, causal=model.weights.causal)
    return [_summed(tap, [part[row] for part in parts], mask, block) for row, tap in enumerate(taps)]


def _summed(tap: Tap, parts: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]], mask: Tensor, block: int) -> Seen:
    """A tap over all prompts, with the score of every feature, a block of them at a time."""
    device = mask.device
    runs = [zip(*(part[side] for part in parts), strict=True) for side in (0, 1)]
    own, other = (Apart(*(torch.cat(values).to(device) for values in run)) for run in runs)
    slope = torch.cat([part[2] for part in parts]).to(device)
    moved, differ = [], 0
    for some, change in _changes(tap, own, other, mask, block):
        along = torch.einsum("pcd,fd->pcf", slope, tap.dictionary.W_dec[some])
        moved.append((torch.einsum("pcf,pcf->f", change, along) / len(mask)).double().cpu())
        differ += int((change != 0).flatten(0, 1).any(dim=0).sum())
    return Seen(tap, own, other, slope, mask, block, torch.cat(moved), differ)


def _changes(tap: Tap, own: Apart, other: Apart, mask: Tensor, block: int) -> Iterator[tuple[slice, Tensor]]:
    """By how much activations differ between the runs, `[prompt position feature]`, some features at a time."""
    both = zip(tap.dictionary.blocks(own.r, size=block), tap.dictionary.blocks(other.r, size=block), strict=True)
    for (some, clean), (_, corrupt) in both:
        yield some, (corrupt - clean) * mask[..., None]


def _chosen(seen: Sequence[Seen], keep: int) -> list[Tensor]:
    """Of each tap the features that are among the `keep` of largest |score| of all, in their order."""
    every = torch.cat([one.moved for one in seen])
    best = every.abs().argsort(descending=True, stable=True)[:keep]
    best = best[every[best] != 0].sort().values
    starts = torch.tensor([0, *(len(one.moved) for one in seen)]).cumsum(0).tolist()
    return [best[(best >= first) & (best < last)] - first for first, last in itertools.pairwise(starts)]


@torch.no_grad()
def _kept(one: Seen, features: Tensor, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
    """The scores of some features and of a tap's rests: `[node prompt]`, and their means over prompts by token, counted from
    that of the answer, `[node offset]`."""
    at = features.to(one.slope.device)
    clean, corrupt = (one.tap.dictionary.some(part.r, at) for part in (one.own, one.other))
    change = (corrupt - clean) * one.mask[..., None]
    along = torch.einsum("pcd,fd->pcf", one.slope, one.tap.dictionary.W_dec[at])
    rows = [(change * along).permute(2, 0, 1).double().cpu()]
    rows += [one.rest(name)[None] for name in one.tap.rests]
    found = torch.cat(rows)
    offsets = offsets_of(pairs)
    columns = torch.arange(found.shape[2]) - pairs.answer_columns.cpu()[:, None]
    by_offset = torch.zeros(len(found), len(offsets), dtype=found.dtype)
    index = (columns - offsets[0]).expand(len(found), -1, -1)
    by_offset.scatter_add_(1, index.flatten(1), found.flatten(1))
    return found.sum(dim=2), by_offset / len(pairs)


def offsets_of(pairs: PromptPairs) -> tuple[int, ...]:
    """Places of tokens counted from the answer's, of all prompts."""
    columns = torch.arange(pairs.clean.ids.shape[1]) - pairs.answer_columns.cpu()[:, None]
    return tuple(range(int(columns.min()), int(columns.max()) + 1))


def nodes_of(taps: Sequence[Tap], names: Sequence[str]) -> list[tuple[int, int | str]]:
    """Which tap and which feature some names mean. Raises GraphError."""
    return [parsed_node(taps, name) for name in names]
