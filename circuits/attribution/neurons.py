"""Edge attribution between single neurons, heads, input and logits: every edge is scored, the largest are kept."""

from collections.abc import Iterable, Iterator
from typing import Any

import einops
import torch
from torch import Tensor

from circuits.attribution.batches import batches
from circuits.attribution.blocks import Readers, Scorer, Writers
from circuits.attribution.factors.writers import head_writing, neuron_writing
from circuits.attribution.gradients import Gradients, gradients, neuron_slopes, slot_slopes, slots_apart, unit_and_scale
from circuits.attribution.needs import Needs, counting_rows
from circuits.attribution.points import Point
from circuits.attribution.rules import RULES, Rule
from circuits.attribution.scores import EdgeScores
from circuits.attribution.topk import KEPT, Largest
from circuits.errors import CircuitsError
from circuits.models import Edit, Model, Run
from circuits.models.folding import behind_norm, through_norm
from circuits.models.forward import SLOTS
from circuits.models.memory import BUDGET
from circuits.models.weights import MLP
from circuits.patching.engine.base import plain_run
from circuits.patching.nodes import about
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, Metric, fitted

READ_AT_ONCE = 4096
"""Coordinates of readers whose folded weights are held at a time."""

Factors = dict[tuple[str, int], Tensor]
"""By name and layer, `[step row coordinate]`: changes of writers ("input", "heads", "neurons"); slopes of readers ("slots",
or "q", "k", "v" where a norm joins heads; "in", "gate", "final") times the steps' weights; normed residuals ("attention",
"mlp")."""


def attribute_neuron_edges(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    method: str = "eap-ig",
    steps: int | None = None,
    keep: int = KEPT,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> EdgeScores:
    """Score every edge of the graph of neurons and keep the `keep` of largest |score| (of equal ones the earlier in the
    order of computation). What a score says, and `method` ("eap" or "eap-ig") and `steps`, are as in `attribute_edges`;
    standard errors are not measured.

    `budget` bounds the bytes held above the model and the runs of one prompt: the changes and slopes that edges are scored
    from and, in what these leave, the runs of further prompts at the same time. Where the slopes of all layers do not fit,
    gradients are taken once for each group of layers that does. Raises NonFiniteError, MemoryBudgetError, and
    CircuitsError for options that do not exist.
    """
    rule, metric = _checked(method, keep), fitted(metric, model, pairs, gradient=True)
    count = rule.points_of(steps)
    graph = model.graph(neurons=True)
    wide = torch.float32 if model.dtype in (torch.bfloat16, torch.float16) else model.dtype
    needs = Needs.of(model, pairs, count, min(keep, graph.edge_count), wide)
    bands = needs.bands(budget)
    largest = Largest(keep, graph)
    report, what = progress or silent, "attributing edges between neurons"
    report(what, 0, model.n_layers + 1)
    for band in bands:
        layers = [*band, model.n_layers] if band.stop == model.n_layers else [*band]
        gathered: list[Factors] = []

        def scored(place: int, band: range = band, layers: list[int] = layers, gathered: list[Factors] = gathered) -> Any:
            """The largest scores of the edges into one layer."""
            if not gathered:
                gathered.append(_gather(model, pairs, metric, rule, count, band, needs.sizes(budget, len(band)), wide))
            own, layer = Largest(keep, graph), layers[place]
            into = _into_layer if layer < model.n_layers else _into_logits
            into(Scorer(own, wide, model.device), model, gathered[0], layer, wide)
            return own.found()

        for layer, found in zip(layers, shards(what, len(layers), scored), strict=True):
            largest.join(*found)
            report(what, layer + 1, model.n_layers + 1)
        gathered.clear()  # before the next group's are gathered
    writers, readers, values = largest.found()
    details = about(model, metric, method=method, steps=count, prompts=len(pairs))
    errors = torch.full_like(values, torch.nan)[None]
    return EdgeScores(graph, writers, readers, values[None], errors, metadata=details)


def _checked(method: str, keep: int) -> Rule:
    """The method's rule, where it and the number are what scores edges between neurons."""
    rule = RULES.get(method)
    if rule is None or not rule.neurons:
        able = " or ".join(name for name, one in RULES.items() if one.neurons)
        raise CircuitsError(f"edges between neurons are scored by {able}, not by {method!r}")
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 0:
        raise CircuitsError(f"keep is a whole number from 0 on, got {keep!r}")
    return rule


def _gather(
    model: Model,
    pairs: PromptPairs,
    metric: Metric,
    rule: Rule,
    steps: int,
    layers: range,
    sizes: list[int],
    dtype: torch.dtype,
) -> Factors:
    """Changes of the writers up to the last of these layers and slopes of the readers in them, over all prompts' rows;
    `sizes`: how many prompts run at a time."""
    parts: dict[tuple[str, int], list[list[Tensor]]] = {}

    def put(name: str, layer: int, step: int, value: Tensor, kept: Tensor) -> None:
        """Keep the rows of a value that count."""
        lists = parts.setdefault((name, layer), [])
        lists += [[]] if step == len(lists) else []
        lists[step].append(value[kept].to(dtype))

    def points_of(own: Run, other: Run) -> Iterable[Point]:
        """The gradient runs between two runs."""
        return rule.at(model, own, other, steps)

    def runs(some: PromptPairs) -> Iterator[tuple[Edit, ...]]:
        """The edits of each gradient run on some of the prompts."""
        return (point.edits for point in points_of(plain_run(model, some.clean), plain_run(model, some.corrupt)))

    for batch in batches(model, pairs, metric, sizes, runs):
        some, kept = batch.pairs, counting_rows(model, batch.pairs)
        own, other = plain_run(model, some.clean), plain_run(model, some.corrupt)
        for name, layer, value in _changes(own, other, layers.stop):
            put(name, layer, 0, value, kept)
        for step, point in enumerate(points_of(own, other)):
            found = gradients(model, batch.reading(step), some.clean, point.edits)
            weight = point.weight / len(pairs)
            put("final", 0, step, found.final * weight, kept)
            for layer in layers:
                for name, value in _slopes(model, found, layer, weight):
                    put(name, layer, step, value, kept)
    return {key: torch.stack([torch.cat(step) for step in parts.pop(key)]) for key in list(parts)}


def _changes(own: Run, other: Run, layers: int) -> Iterator[tuple[str, int, Tensor]]:
    yield "input", 0, other.residuals[0] - own.residuals[0]
    for layer, block in enumerate(own.weights.blocks[:layers]):
        yield "heads", layer, head_writing(own, other, layer).change
        if block.mlp is not None:
            yield "neurons", layer, neuron_writing(own, other, layer).change


def _slopes(model: Model, found: Gradients, layer: int, weight: float) -> Iterator[tuple[str, Tensor]]:
    """What one gradient run tells about a layer's readers, `[prompt position coordinate]`."""
    block = model.weights.blocks[layer]
    # Weights are folded once, when edges are scored, not at every gradient run.
    slopes, unit = slot_slopes(model, found, layer)
    names, parts = (SLOTS, slopes) if slots_apart(block.attention) else (("slots",), [torch.cat(slopes)])
    for name, slope in zip(names, parts, strict=True):
        yield name, einops.rearrange(slope * weight, "reader prompt pos width -> prompt pos (reader width)")
    if unit is not None:
        yield "attention", unit
    if block.mlp is not None:
        read = found.run.reads[layer]
        assert read.mlp is not None
        unit, scale = unit_and_scale(read.mlp, block.mlp_norm)
        slopes = neuron_slopes(block.mlp, read.pre, found.neurons[layer])
        for name, slope in zip(("in", "gate"), slopes, strict=False):
            yield name, slope / scale * weight
        if unit is not None:
            yield "mlp", unit


@torch.no_grad()
def _into_layer(scorer: Scorer, model: Model, factors: Factors, layer: int, dtype: torch.dtype) -> None:
    """Score the edges into one layer."""
    for readers in _slots(model, factors, layer, dtype):
        for writers in _writers(model, factors, layer, dtype):
            scorer.add(writers, readers)
    for readers in _neurons(model, factors, layer, dtype):
        for writers in _writers(model, factors, layer, dtype, heads=not model.weights.parallel):
            scorer.add(writers, readers)


@torch.no_grad()
def _into_logits(scorer: Scorer, model: Model, factors: Factors, layer: int, dtype: torch.dtype) -> None:
    """Score the edges into the logits, which read what all layers wrote."""
    readers = Readers.logits(model.graph(neurons=True).reader_count - 1, factors["final", 0].sum(dim=0))
    for writers in _writers(model, factors, layer, dtype):
        scorer.add(writers, readers)


def _writers(model: Model, factors: Factors, layer: int, dtype: torch.dtype, *, heads: bool = False) -> Iterator[Writers]:
    """The input and the writers of the layers before one, and the heads of that layer if `heads` says so."""
    graph = model.graph(neurons=True)
    yield Writers(0, factors["input", 0][0], None, 1)
    place = 1
    for before, block in enumerate(model.weights.blocks[: layer + heads]):
        W = through_norm(block.attention.W_O, block.attention_post_norm).to(dtype)
        yield Writers(place, factors["heads", before][0], W, block.attention.d_head)
        if block.mlp is not None and before < layer:
            W = through_norm(block.mlp.W_out, block.mlp_post_norm).to(dtype)
            yield Writers(place + graph.n_heads, factors["neurons", before][0], W, 1)
        place += graph.n_heads + graph.mlp_writers


def _slots(model: Model, factors: Factors, layer: int, dtype: torch.dtype) -> Iterator[Readers]:
    """The queries, keys and values of a layer."""
    graph, block = model.graph(neurons=True), model.weights.blocks[layer]
    place, unit = layer * (graph.head_readers + graph.mlp_writers), factors.get(("attention", layer))
    counts = {"q": graph.n_heads, "k": graph.n_key_value_heads, "v": graph.n_key_value_heads}
    for slots in [SLOTS] if ("slots", layer) in factors else [(slot,) for slot in SLOTS]:
        W = torch.cat([getattr(block.attention, f"W_{slot.upper()}") for slot in slots], dim=1)
        W, count = behind_norm(W, block.attention_norm).to(dtype), sum(counts[slot] for slot in slots)
        slope = factors[slots[0] if len(slots) == 1 else "slots", layer]
        # A norm over all heads lets each reader's slope reach the coordinates of all.
        width = slope.shape[2] // count
        at_once = W.shape[1] // width
        for first in range(0, count, at_once):
            part = slope[:, :, first * width : (first + at_once) * width]
            yield Readers.of(place + first, (W,), (part,), unit, width)
        place += count


def _neurons(model: Model, factors: Factors, layer: int, dtype: torch.dtype) -> Iterator[Readers]:
    """The neurons of a layer, so many at a time that copies of their weights stay small."""
    graph, block = model.graph(neurons=True), model.weights.blocks[layer]
    place, unit = layer * (graph.head_readers + graph.mlp_writers) + graph.head_readers, factors.get(("mlp", layer))
    for first in range(0, graph.mlp_writers, READ_AT_ONCE):
        some = slice(first, first + READ_AT_ONCE)
        weights, slopes = [], []
        for name, W in _weights(block.mlp):
            weights.append(behind_norm(W[:, some], block.mlp_norm).to(dtype))
            slopes.append(factors[name, layer][:, :, some])
        yield Readers.of(place + first, tuple(weights), tuple(slopes), unit, 1)


def _weights(mlp: MLP | None) -> Iterator[tuple[str, Tensor]]:
    """What a layer's neurons read with."""
    if mlp is not None:
        yield "in", mlp.W_in
        if mlp.W_gate is not None:
            yield "gate", mlp.W_gate
