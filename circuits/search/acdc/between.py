"""ACDC among chosen edges, by running whole circuits: for graphs with roles of tokens, where a run of every edge is too much.

The descent is that of `descent.py` (readers from the logits backwards, of each its writers from the latest to the earliest;
what is cut stays cut), from a circuit of candidates in place of the whole graph.
"""

import math

import torch

from circuits.errors import CircuitsError
from circuits.graph import Circuit
from circuits.graph.places import target_places
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.subgraph import Circuits
from circuits.progress import Progress, silent
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric
from circuits.tasks.metrics import kl_divergence
from circuits.tasks.roles import required_roles

AHEAD = 16
"""Edges that are run together, as if each of them were cut."""


def acdc_between(
    model: Model,
    pairs: PromptPairs,
    candidates: Circuit,
    *,
    metric: AnyMetric = kl_divergence,
    threshold: float = 0.01,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Circuit:
    """Cut every edge of a circuit whose loss costs less than `threshold`, one at a time (Conmy et al. 2023), and leave what is
    on paths from the input to the logits. Edges outside the circuit carry the corrupt prompts' values throughout.

    An edge's score is what cutting it would have cost when it was kept. Decisions are those of one run an edge, but for
    rounding. Raises CircuitsError for a threshold that is no number, NonFiniteError, PromptError for roles that prompts lack.

    Args:
        model: the model that is searched.
        pairs: clean and corrupt prompts with their answers.
        candidates: the circuit to begin with, of a graph with roles or without.
        metric: what an edge may cost, as in `acdc`: unless told KL to the clean run, in nats.
        threshold: edges that cost less are cut, in the unit of the metric.
        budget: bytes of circuits that run together.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise CircuitsError(f"a threshold is a finite number, got {threshold!r}")
    pairs = required_roles(pairs, causal=model.weights.causal) if candidates.graph.roles is not None else pairs
    runs, members, report = Circuits(model, pairs, metric, budget=budget), Members.of(candidates), progress or silent
    sign = 1.0 if runs.metric.lower_is_better else -1.0
    order = sorted(range(len(members)), key=lambda row: (-int(members.readers[row]), -int(members.writers[row])))
    kept, costs = set(order), dict[int, float]()

    def losses(cuts: list[set[int]]) -> list[float]:
        """The loss of the circuit as it is without each of these sets of edges, mean over prompts."""
        some = [_part(members, kept - cut) for cut in cuts]
        return (sign * runs.scores(some, what="cutting edges")).double().mean(dim=1).tolist()

    base = losses([set()])[0] if order else 0.0
    while order:
        report("cutting edges", len(members) - len(order), len(members))
        unread = {row for row in order[:1] if not _read(members, kept, row)}
        if unread:  # nothing in the circuit reads the node: its own edges go, and cost nothing
            kept -= unread
            order = order[1:]
            continue
        ahead = order[:AHEAD]
        found = losses([set(ahead[: place + 1]) for place in range(len(ahead))])
        for row, loss in zip(ahead, found, strict=True):
            order = order[1:]
            if loss - base >= threshold:
                costs[row] = loss - base
                break  # what was run after it was run as if it were cut
            kept.discard(row)
            base = loss
    report("cutting edges", len(members), len(members))
    edges = list(candidates.edges)
    details = {"method": "acdc", "threshold": threshold, "metric": runs.metric.name, "candidates": len(edges)}
    circuit = Circuit(candidates.graph, {edges[row]: costs[row] for row in sorted(kept)}, metadata={**_about(model), **details})
    return circuit.connected()


def _about(model: Model) -> dict[str, str]:
    return {"model": model.name, "weights_sha256": model.fingerprint, "outside": "corrupt"}


def _part(members: Members, rows: set[int]) -> Members:
    chosen = torch.tensor(sorted(rows), dtype=torch.long)
    return Members(members.graph, members.writers[chosen], members.readers[chosen])


def _read(members: Members, kept: set[int], row: int) -> bool:
    """Whether something in the circuit reads one of the nodes that compute with an edge's reader."""
    nodes, logits = target_places(members.graph, int(members.readers[row])), members.graph.writer_count
    return logits in nodes or any(int(members.writers[other]) in nodes for other in kept)
