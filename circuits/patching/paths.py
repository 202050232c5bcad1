"""Edge and path patching: what one node passes to one reader directly, and along paths of any length."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from circuits.errors import CircuitsError, GraphError
from circuits.graph import Edge, Graph, Node, Reader
from circuits.models import Model
from circuits.models.choosing import Positions
from circuits.models.memory import BUDGET
from circuits.patching.effects import Direction, Effects, effects_of
from circuits.patching.engine.change import Change, Variant
from circuits.patching.engine.directions import (
    Delta,
    Path,
    difference,
    moved_output,
    moved_values,
    reading_change,
    role_changes,
)
from circuits.patching.engine.sites import having, position_masks
from circuits.patching.nodes import Pair, about, both_runs
from circuits.progress import Progress
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric, fitted
from circuits.tasks.roles import required_roles

WHAT = "patching edges"


def patch_edges(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    edges: Sequence[str | Edge] | None = None,
    *,
    positions: Positions = None,
    direction: Direction = "denoising",
    neurons: bool = False,
    roles: bool = False,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> Effects:
    """Patch each edge by itself: one reader reads the residual stream with the writer's output taken from the paired
    prompt, its norm recomputed, and everything downstream of this reader recomputes (exact direct path).

    An edge between roles of tokens is patched at the tokens of its writer's role, and where it runs into keys or values for the
    queries of its reader's role alone. Raises GraphError for an edge that the model lacks.

    Args:
        model: the model that is patched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        edges: names such as `a0.h1->a2.h0<k>`, `m0->m3`, `m0.n5->logits`, `a0.h1->m2.n7` (default: all edges of
            `model.graph(neurons=neurons)`).
        positions: where the reader reads the other value, as in `patch_nodes`.
        direction: as in `patch_nodes`.
        neurons: all edges between single neurons, where no `edges` are given.
        roles: edges between the roles that the pairs have, such as `a0.h1@S2->a2.h0@end<k>`: all, or those given.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        seed: that of the bootstrap.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if edges is not None and not edges:
        raise GraphError("there is nothing to patch: the list of edges is empty")
    if roles and (neurons or positions is not None):
        raise CircuitsError("roles say where edges read, between heads and whole MLPs: leave out neurons and positions")
    pairs = required_roles(pairs, causal=model.weights.causal) if roles else pairs
    masks = position_masks(pairs, positions)
    graph = model.graph(neurons=neurons, roles=pairs.roles.roles if roles and pairs.roles else None)
    total = len(masks) * (graph.edge_count if edges is None else len(edges))
    groups = _every_edge(graph) if edges is None else _by_writer(model, edges, graph if roles else None)
    metric = fitted(metric, model, pairs)
    pair = both_runs(model, pairs, metric, direction, budget=budget)
    names: list[str] = []

    def parts() -> Iterator[list[Variant]]:
        """The variants of some writers at a time, each edge at each position."""
        for writer, readers in groups:
            with torch.no_grad():
                delta = difference(pair.sweep.base, pair.other, writer.everywhere)
            part: list[Variant] = []
            if roles:
                names.extend(f"{writer}->{reader}" for reader in readers)
                yield _between_roles(pair, pairs, graph, writer, readers, delta)
                continue
            for reader in readers:
                for label, mask in masks.items():
                    name = f"{writer}->{reader}@{label}" if label else f"{writer}->{reader}"
                    names.append(name)
                    part.append((reading_change(graph, reader, delta, mask & pair.mask, name),))
            yield part

    scores = pair.sweep.evaluate_parts(parts(), total, progress=progress, what=WHAT)
    if edges is not None:  # in the order asked for
        asked = [f"{edge}@{label}" if label else str(edge) for edge in edges for label in masks]
        place = {name: row for row, name in enumerate(names)}
        scores, names = scores[[place[name] for name in asked]], asked
    details = about(model, metric, patched="edges", positions=str(positions))
    return effects_of(names, scores, pair.ends, pairs, direction, details, seed, having=having(masks))


def _between_roles(
    pair: Pair, pairs: PromptPairs, graph: Graph, writer: Node, readers: Sequence[Reader], delta: Delta
) -> list[Variant]:
    """The variants of edges between roles that leave one writer at one role."""
    assert pairs.roles is not None
    masks = dict(zip(pairs.roles.names, pairs.roles.masks() & pair.mask, strict=True))
    variants, moved = list[Variant](), dict[Reader, torch.Tensor]()
    for reader in readers:
        name, here = f"{writer}->{reader}", masks[writer.at or ""]
        plain = Reader(reader.node.everywhere, reader.slot)
        if reader.slot not in ("k", "v"):
            variants.append((reading_change(graph, plain, delta, here, name),))
            continue
        if plain not in moved:  # the same for the queries of every role
            with torch.no_grad():
                moved[plain] = moved_values(pair.sweep.base, [plain], delta * here[:, :, None])
        looking = pairs.roles.columns == pairs.roles.names.index(reader.node.at or "")
        variants.append(role_changes(dataclasses.replace(graph, roles=None), [plain], moved[plain], looking & pair.mask, name))
    return variants


def _every_edge(graph: Graph) -> Iterator[tuple[Node, Sequence[Reader]]]:
    for node in graph.nodes():
        if node.kind != "logits":
            yield node, graph.readers(node)


def _by_writer(model: Model, edges: Sequence[str | Edge], graph: Graph | None) -> list[tuple[Node, Sequence[Reader]]]:
    groups: dict[Node, list[Reader]] = {}
    for name in edges:
        edge = Edge.parse(name) if isinstance(name, str) else name
        ends = {edge.writer.kind, edge.reader.kind}
        checked = (_graph_for(model, ends) if graph is None else graph).edge(edge)
        groups.setdefault(checked.writer, []).append(Reader(checked.reader, checked.slot))
    return list(groups.items())


def _graph_for(model: Model, kinds: set[str]) -> Graph:
    """The graph in which an edge between these kinds of nodes can stand."""
    return model.graph(neurons="neuron" in kinds)


def patch_path(
    model: Model,
    pairs: PromptPairs,
    metric: AnyMetric,
    path: Sequence[str] | Sequence[Sequence[str]],
    *,
    freeze_mlps: bool = False,
    positions: Positions = None,
    direction: Direction = "noising",
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> Effects:
    """Patch a path, or each of several: the writer's output from the paired prompt reaches the next reader alone, what
    that node writes reaches the next one, and so on; every other head stays as it was. At the last reader the rest of the
    model recomputes (nothing is left to do where that is `logits`).

    As in IOI's path patching (Wang et al. 2022), MLPs on the way recompute unless they are frozen. Raises GraphError for
    steps that are no edges.

    Args:
        model: the model that is patched.
        pairs: clean and corrupt prompts with their answers.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        path: `["a0.h3", "a1.h2<k>", "logits"]`, or a list of such; a head without a slot reads by all three.
        freeze_mlps: hold the MLPs on the way too, which leaves the direct edges alone.
        positions: where the last reader reads the change.
        direction: as in `patch_nodes`.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        seed: that of the bootstrap.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if isinstance(path, str) or not path:
        raise GraphError("a path is a list of names, such as ['a0.h3', 'a1.h2<k>', 'logits']")
    paths = [path] if isinstance(path[0], str) else path
    wants_neurons = any(".n" in str(name) for one in paths for name in one)
    graph = model.graph(neurons=wants_neurons)
    parsed = [Path.parse(graph, [str(name) for name in one]) for one in paths]
    metric = fitted(metric, model, pairs)
    pair, masks = both_runs(model, pairs, metric, direction, budget=budget), position_masks(pairs, positions)
    names = [f"{one.name}@{label}" if label else one.name for one in parsed for label in masks]
    parts = (_path_variants(pair, graph, one, masks, freeze_mlps) for one in parsed)
    scores = pair.sweep.evaluate_parts(parts, len(names), progress=progress, what="patching paths")
    details = about(model, metric, patched="paths", freeze_mlps=freeze_mlps)
    return effects_of(names, scores, pair.ends, pairs, direction, details, seed, having=having(masks))


def _path_variants(pair: Pair, graph: Graph, path: Path, masks: dict, freeze_mlps: bool) -> list[Variant]:
    with torch.no_grad():
        delta = moved_output(pair.sweep.base, pair.other, graph, path, freeze_mlps=freeze_mlps)
    variants = []
    for mask in masks.values():
        changes: list[Change] = [reading_change(graph, reader, delta, mask & pair.mask, path.name) for reader in path.steps[-1]]
        variants.append(tuple(changes))
    return variants
