"""ACDC: edges are cut one after the other, from the logits backwards, wherever that costs less than a threshold."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from circuits.errors import CircuitsError, GraphError
from circuits.graph import Circuit
from circuits.graph.places import edge_at, target_places
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Progress, silent
from circuits.runs.runner import shards
from circuits.search.acdc.deciding import Descent, after, decide, decisions, ones
from circuits.search.acdc.plan import plan
from circuits.search.acdc.state import Ground, State
from circuits.search.acdc.variants import Variants
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted


def acdc(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric | None = None,
    *,
    threshold: float = 0.01,
    outside: OutsideKind = "corrupt",
    connected: bool = True,
    neurons: bool = False,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Circuit:
    """Automatic circuit discovery (Conmy et al. 2023): cut every edge whose loss costs less than `threshold`, one at a time.

    Readers are visited from the logits backwards, in the reverse of the order of computation (a layer's MLP, then values,
    keys and queries, each from the last head or group to the first), and for each its writers from the latest to the
    earliest. With KL to the clean run (no `metric`) an edge is cut where KL after - KL before < threshold; with another
    metric, where before - after < threshold (the other way round for one that says `lower_is_better`, as `kl_divergence`
    and `rank` do); means over prompts, in the metric's unit. What is cut stays cut. A node that nothing in the circuit
    reads is not visited: its own edges go.

    An edge's score is what cutting it would have cost when it was kept. Decisions are those of one run an edge, but for
    rounding. Raises NonFiniteError, CircuitsError for a threshold that is no number, GraphError for a graph of neurons.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        metric: what an edge may cost: None is KL to the clean run, in nats; else as in `patch_nodes`.
        threshold: edges that cost less are cut, in the unit of the metric.
        outside: what cut edges carry, as in `run_circuits`.
        connected: leave out, at the end, what is on no path from the input to the logits.
        neurons: refused: a graph of neurons has too many edges for a run each (`attribute_edges` takes them).
        budget: bytes of variants that run together.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    return acdc_thresholds(
        model,
        pairs,
        [threshold],
        metric,
        outside=outside,
        connected=connected,
        neurons=neurons,
        budget=budget,
        progress=progress,
    )[0]


@torch.no_grad()
def acdc_thresholds(
    model: Model,
    pairs: PromptPairs,
    thresholds: Sequence[float],
    metric: AnyMetric | None = None,
    *,
    outside: OutsideKind = "corrupt",
    connected: bool = True,
    neurons: bool = False,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> list[Circuit]:
    """`acdc` for several thresholds, a circuit each in their order. They share a descent for as long as they decide alike.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        thresholds: one a circuit, in any order; at least one.
        metric: as in `acdc`.
        outside: what cut edges carry, as in `run_circuits`.
        connected: leave out what is on no path from the input to the logits.
        neurons: refused, as in `acdc`.
        budget: bytes of variants that run together.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    wanted = [_checked(threshold) for threshold in thresholds]
    if not wanted:
        raise CircuitsError("acdc needs a threshold")
    if neurons:
        raise GraphError("ACDC cuts edges between heads and whole MLPs one by one; for neurons use attribute_edges")
    ground = Ground.of(model, pairs, None if metric is None else fitted(metric, model, pairs), outside)
    found: dict[float, Descent] = {}
    waiting = [Descent.begin(ground, sorted(set(wanted)))]
    total, report = ground.graph.edge_count * len(waiting[0].thresholds), progress or silent
    while waiting:
        descent = waiting.pop()
        while descent.place >= 0:
            seen = sum(len(one.thresholds) * one.seen for one in [*waiting, descent, *found.values()])
            report("cutting edges", seen, total)
            descent, *others = _visit(descent, budget)
            waiting += others
        found |= dict.fromkeys(descent.thresholds, descent)
    report("cutting edges", total, total)
    circuits = {threshold: _circuit(found[threshold], threshold, outside) for threshold in found}
    return [circuits[threshold].connected() if connected else circuits[threshold] for threshold in wanted]


def _checked(threshold: float) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise CircuitsError(f"a threshold is a finite number, got {threshold!r}")
    return float(threshold)


def _visit(descent: Descent, budget: int) -> list[Descent]:
    """Decide about all writers of one reader. Several descents come back where thresholds disagree; the others are then
    where they part."""
    state, writers = descent.state, descent.writers
    if not _read_by_circuit(state, descent.place):
        forced = any(block.attention_post_norm is not None for block in state.ground.model.weights.blocks)
        if forced:  # what nothing reads still weighs in the scale that a layer's heads share
            every = Variants(state, plan(state, descent.place), writers, ones(state, len(writers)))
            loss = float(every.run()[0])
            return [descent.next_reader(dataclasses.replace(every.commit(0, writers), loss=loss))]
        return [descent.next_reader(state.without(writers, descent.place))]
    reach = plan(state, descent.place)

    def decided(shard: int) -> list[dict[str, Any]]:
        now, parted = descent, list[Descent]()
        while now.decided < len(writers):
            now, *others = decide(now, reach, max(1, min(now.stride, budget // reach.nbytes)))
            parted += others
        return [decisions(descent, one) for one in (now, *parted)]

    (found,) = shards("cutting edges", 1, decided)  # each reader goes on from the one before it
    done, *others = (after(descent, reach, one) for one in found)
    return [done.next_reader(done.state), *others]


def _read_by_circuit(state: State, place: int) -> bool:
    """Whether something in the circuit reads one of the nodes that compute with a reader."""
    nodes, logits = target_places(state.ground.graph, place), len(state.kept)
    return logits in nodes or bool(state.kept[nodes.start : nodes.stop].any())


def _circuit(descent: Descent, threshold: float, outside: OutsideKind) -> Circuit:
    ground = descent.state.ground
    graph, model = ground.graph, ground.model
    edges = {
        edge_at(graph, writer, reader): descent.costs[writer, reader]
        for writer, reader in descent.state.kept.nonzero().tolist()
    }
    details = {
        "model": model.name,
        "weights_sha256": model.fingerprint,
        "metric": ground.metric,
        "method": "acdc",
        "threshold": threshold,
        "outside": outside,
        "evaluations": descent.evaluations,
        "kept": len(edges),
        "total": graph.edge_count,
    }
    return Circuit(graph, edges, metadata=details)
