"""Activation patching: the metric when one node, or one site of a layer, takes its value from the paired prompt."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.models import Model
from circuits.models.choosing import Positions
from circuits.models.memory import BUDGET
from circuits.patching.effects import Direction, Effects, effects_of
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import Site, differing, find_sites, having, position_masks, value_at
from circuits.patching.engine.sweep import Sweep
from circuits.progress import Progress
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, fitted


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """The run that is patched, and the one that values come from."""

    sweep: Sweep
    other: Base
    ends: tuple[Tensor, Tensor]
    """The metric `[prompt]` on the clean and on the corrupt prompts."""
    mask: Tensor
    """Tokens that can differ between the two runs."""


def both_runs(
    model: Model, pairs: PromptPairs, metric: Metric, direction: Direction, *, budget: int = BUDGET, **options: Any
) -> Pair:
    """Clean and corrupt runs with their metric. Raises NonFiniteError, with the first site, for runs that hold NaN."""
    with torch.no_grad():
        clean, corrupt = model.run(pairs.clean), model.run(pairs.corrupt)
        base, other = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
        reading = Reading.of(metric, pairs)
        sweep = Sweep(model, base, reading, budget=budget, **options)
        own, theirs = sweep.base_scores(), Sweep(model, other, reading).base_scores()
    ends = (theirs, own) if direction == "denoising" else (own, theirs)
    return Pair(sweep, Base(model, other), ends, differing(pairs, causal=model.weights.causal))


def about(model: Model, metric: Metric, **more: Any) -> dict[str, Any]:
    """What every result says of where it came from."""
    opened = {} if model.prepend_bos is None else {"prepend_bos": model.prepend_bos}
    return {"model": model.name, "weights_sha256": model.fingerprint, "metric": metric.name, **opened, **more}


def patch_nodes(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    nodes: str | Sequence[str] | None = None,
    *,
    positions: Positions = None,
    direction: Direction = "denoising",
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> Effects:
    """Patch each node by itself and measure how far the metric moves (activation patching), by denoising unless told otherwise:
    clean values go into the corrupt run. `attribute_nodes` estimates the other direction, which may rank nodes otherwise.

    Raises GraphError and PromptError for names and pairs that do not fit, MemoryBudgetError.

    Args:
        model: the model that is patched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        nodes: names or groups as in `find_sites` (default: every node): heads, MLPs, neurons, queries, keys, values,
            patterns, residual streams.
        positions: all together (None), "each", a position of the pairs, a place in each prompt's own count (negative from its
            own end), or several. Prompts that lack a position do not count there.
        direction: "denoising" puts clean values into the corrupt run, "noising" the reverse.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        seed: that of the bootstrap.
        progress: hears what is being done, how much of it is done, and how much there is.

    >>> import circuits
    >>> model = circuits.load_model("mini")
    >>> pairs = circuits.PromptPairs.from_text(
    ...     model,
    ...     clean=["When Mary and John went to the store, Mary gave a drink to"],
    ...     corrupt=["When Mary and John went to the store, John gave a drink to"],
    ...     answers=[" John"],
    ...     distractors=[" Mary"],
    ... )
    >>> effects = circuits.patch_nodes(model, pairs, circuits.metrics.logit_difference, ["input", "a1.h0"])
    >>> effects.names, round(effects.of("input").effect, 3)
    (('input', 'a1.h0'), 1.0)
    """
    sites, masks = find_sites(model, nodes), position_masks(pairs, positions)
    metric = fitted(metric, model, pairs)
    pair = both_runs(model, pairs, metric, direction, budget=budget)
    names = [f"{site.name}@{label}" if label else site.name for site in sites for label in masks]
    variants = _Variants(pair, sites, masks)
    scores = pair.sweep.evaluate_parts(variants.parts(), len(names), progress=progress, what="patching nodes")
    details = about(model, metric, patched="nodes", positions=str(positions))
    return effects_of(names, scores, pair.ends, pairs, direction, details, seed, having=having(masks))


@dataclasses.dataclass(frozen=True, eq=False)
class _Variants:
    """One variant a site and mask, made a layer at a time: values of all neurons are never held at once."""

    pair: Pair
    sites: list[Site]
    masks: dict[str, Tensor]
    at_once: int = 4096

    def parts(self) -> Iterator[list[Variant]]:
        """Lists of variants, in the order of sites."""
        for start in range(0, len(self.sites), self.at_once):
            part: list[Variant] = []
            for site in self.sites[start : start + self.at_once]:
                value = value_at(self.pair.other, site)
                for label, mask in self.masks.items():
                    name = f"{site.name}@{label}" if label else site.name
                    part.append((Change(site.kind, site.layer, site.index, value, mask & self.pair.mask, label=name),))
            yield part
