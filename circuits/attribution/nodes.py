"""Attribution patching of nodes: what taking one node from the corrupt prompts would do, to first order."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.batches import batches, prompts_at_once
from circuits.attribution.completeness import beside_gap
from circuits.attribution.gradients import Gradients, gradients
from circuits.attribution.rules import RULES
from circuits.errors import CircuitsError
from circuits.models import Edit, Model, Run
from circuits.models.memory import BUDGET
from circuits.patching.effects import Effects, effects_of
from circuits.patching.engine.base import plain_run
from circuits.patching.engine.reading import Reading, read_within
from circuits.patching.engine.sites import differing
from circuits.patching.nodes import about
from circuits.progress import Progress, silent
from circuits.runs import shards
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted


def attribute_nodes(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    method: str = "eap-ig",
    steps: int | None = None,
    neurons: bool = False,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Effects:
    """Estimate noising, corrupt values put into the clean run one node at a time: what `patch_nodes` measures with
    `direction="noising"`, not with its default. For the input, every head and every MLP (or neuron): the change of its output
    times the gradient by it. Raises NonFiniteError, CircuitsError for options that do not exist.

    The mean gradient ("eap-ig") names the strongest nodes more surely than that of the clean run alone ("eap"), which is flat
    where attention is saturated; the latter ranks all nodes, most of which do little, more like single patches, for these leave
    the rest of the run clean (docs/measured.md: 0.70 against 0.55 of the strongest 20, rank correlation 0.69 against 0.84).

    The two directions ask different questions, whether a node is needed and whether it is enough, and may rank nodes quite
    differently. `metadata["completeness"]` says how far the input's own estimate is from the whole gap.

    Args:
        model: the model whose nodes are scored.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        method: the gradient on the clean run (Nanda 2023; "eap"), its mean between corrupt and clean inputs ("eap-ig"), or by
            relevance propagation's rules ("relp").
        steps: inputs between corrupt and clean, of "eap-ig" (default: 10).
        neurons: single neurons in place of MLPs.
        seed: that of the bootstrap.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    rule = RULES.get(method)
    if rule is None or not rule.nodes:
        able = ", ".join(name for name, one in RULES.items() if one.nodes)
        raise CircuitsError(f"unknown method {method!r}: there are {able}")
    count = rule.points_of(steps)
    metric = fitted(metric, model, pairs, gradient=True)
    report = progress or silent
    parts, finals = [], []

    def runs(part: PromptPairs) -> Iterator[tuple[Edit, ...]]:
        """The edits of each gradient run on some of the prompts."""
        if rule.points is None:
            return iter([()])
        ends = plain_run(model, part.clean), plain_run(model, part.corrupt)
        return (point.edits for point in rule.at(model, *ends, count))

    some = list(batches(model, pairs, metric, prompts_at_once(model, pairs, budget, edges=False), runs))

    def scored(place: int) -> tuple[Tensor, Tensor]:
        """Of some prompts, how far each node moves the metric, and the final streams of both ends."""
        batch, part = some[place], some[place].pairs
        other, mask = plain_run(model, part.corrupt), differing(part, causal=model.weights.causal)
        if rule.points is not None:
            own, moved = plain_run(model, part.clean), torch.zeros(())
            for place, point in enumerate(rule.at(model, own, other, count)):
                found = gradients(model, batch.reading(place), part.clean, point.edits)
                moved = moved + _moved(own, other, found, mask, neurons) * point.weight
        else:  # the gradient run is the clean run
            found = rule.clean_run(model, batch.reading(0), part.clean, writers=True)
            own, moved = found.run, _moved(found.run, other, found, mask, neurons)
        return moved, torch.stack([Reading.of(metric, part).at_columns(run.residuals[-1]) for run in (own, other)])

    for batch, (moved, final) in zip(some, shards("attributing nodes", len(some), scored), strict=True):
        report("attributing nodes", batch.rows.start, len(pairs))
        parts.append(moved.to(model.device))
        finals.append(final.to(model.device))
    report("attributing nodes", len(pairs), len(pairs))
    clean, corrupt = read_within(budget, metric, pairs, model.weights, torch.cat(finals, dim=1))
    names = [str(node) for node in model.graph(neurons=neurons).nodes() if node.kind != "logits"]
    details = about(model, metric, patched="nodes", method=method, steps=count, estimated=True)
    moved = torch.cat(parts, dim=1)
    details["completeness"] = beside_gap(float(moved[0].double().mean()), clean, corrupt)
    return effects_of(names, clean + moved, (clean, corrupt), pairs, "noising", details, seed)


def _moved(own: Run, other: Run, found: Gradients, mask: Tensor, neurons: bool) -> Float[Tensor, "node prompt"]:
    """Change times gradient of every node, in the order of computation."""
    assert found.input is not None
    rows = [torch.einsum("pcd,pcd,pc->p", other.residuals[0] - own.residuals[0], found.input, mask.to(found.input.dtype))[None]]
    weight = mask.to(found.input.dtype)
    for layer, block in enumerate(own.weights.blocks):
        rows.append(torch.einsum("pchd,pchd,pc->hp", other.z[layer] - own.z[layer], found.z[layer], weight))
        if block.mlp is not None:
            change = (other.neurons[layer] - own.neurons[layer]) * found.neurons[layer]
            by_neuron = torch.einsum("pcn,pc->np", change, weight)
            rows.append(by_neuron if neurons else by_neuron.sum(dim=0, keepdim=True))
    return torch.cat(rows)
