"""ACDC as its definition says: one edge at a time, one run an edge."""

import torch
from torch import Tensor

from circuits.graph import Graph
from circuits.graph.places import edge_at, reader_at, reads_from, writer_at
from circuits.models import Model
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.patching.subgraphs.subgraph import Circuits
from circuits.tasks import PromptPairs, metrics
from circuits.tasks.metric import Metric


def slow_acdc(
    model: Model, pairs: PromptPairs, metric: Metric | None, threshold: float, *, outside: OutsideKind = "corrupt"
) -> dict[str, float]:
    """The edges that are kept, with what cutting each would have cost."""
    graph, costs = model.graph(), {}
    if metric is None:
        metric = metrics.kl_divergence(metrics.answer_logits(model.run(pairs.clean), pairs))
    sign = 1.0 if metric.name in ("kl_divergence", "rank") else -1.0
    runs = Circuits(model, pairs, metric, outside=outside)

    def loss(kept: Tensor) -> float:
        return sign * float(runs.scores([Members(graph, *kept.nonzero(as_tuple=True))]).double().mean())

    kept = torch.arange(graph.writer_count)[:, None] < torch.tensor(reads_from(graph))[None]
    before = loss(kept)
    for reader in reversed(range(graph.reader_count)):
        writers = [writer for writer in reversed(range(graph.writer_count)) if kept[writer, reader]]
        if not is_read(graph, kept, reader):
            kept[:, reader] = False
            before = loss(kept)
            continue
        for writer in writers:
            kept[writer, reader] = False
            after = loss(kept)
            if after - before < threshold:
                before = after
            else:
                kept[writer, reader] = True
                costs[str(edge_at(graph, writer, reader))] = after - before
    return costs


def is_read(graph: Graph, kept: Tensor, place: int) -> bool:
    """Whether anything in the circuit reads a node that computes with this input."""
    reader = reader_at(graph, place)
    targets = {str(node) for node in graph.targets(reader)}
    return "logits" in targets or any(
        str(writer_at(graph, writer)) in targets for writer in kept.any(dim=1).nonzero()[:, 0].tolist()
    )
