"""The circuit for a label, searched and judged in one classifier, and how much of it another classifier shares."""

import dataclasses
from typing import Any

from circuits.attribution import attribute_edges
from circuits.files.plain import thaw
from circuits.graph import Circuit
from circuits.models.memory import BUDGET
from circuits.progress import Progress
from circuits.search.discover import discover, split
from circuits.search.judging.compare import compare
from circuits.search.judging.verdict import Verdict
from circuits.tasks.metrics import logit_difference
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.inside.results import SharedEdges
from circuits.uses.inside.swaps import Swaps

METHOD, STEPS = "eap-ig", 5
"""How edges are scored, and inputs between swapped and clean texts at which gradients are taken, as Hanna et al. (2024) do."""
NULL = 39
"""Random circuits at most that a circuit is held against: none of them reaching it gives p = .025."""


@dataclasses.dataclass(frozen=True)
class Searched:
    """A circuit that was searched on one half of the texts and judged on the other, and one that was searched there."""

    circuit: Circuit
    verdict: Verdict
    elsewhere: Circuit


def search(
    classifier: Classifier, swaps: Swaps, *, edges: int, seed: int = 0, budget: int = BUDGET, progress: Progress | None = None
) -> Searched:
    """Search the circuit by which swapped words reach the label (`discover`). Raises what that raises.

    Args:
        classifier: what is searched.
        swaps: clean and corrupt texts; halves are drawn by `seed`, the same in every classifier.
        edges: edges of the circuit, at most.
        seed: that of halves, random circuits and the bootstrap.
        budget: bytes that a pass may take above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    first, rest = split(swaps.pairs(classifier), seed)
    how: dict[str, Any] = {"method": METHOD, "steps": STEPS, "budget": budget, "progress": progress}
    judging: dict[str, Any] = {"held_out": rest, "random_circuits": NULL, "minimality": False, "seed": seed}
    found = discover(classifier.model, first, logit_difference, edges=edges, **judging, **how)
    scores = attribute_edges(classifier.model, rest, logit_difference, **how)
    return Searched(_judged(found.circuit, found.verdict, swaps), found.verdict, scores.top(edges, connected=True))


def control_circuit(
    classifier: Classifier, swaps: Swaps, *, edges: int, seed: int = 0, budget: int = BUDGET, progress: Progress | None = None
) -> Circuit:
    """The circuit that `search` would find, unjudged."""
    first, _ = split(swaps.pairs(classifier), seed)
    how: dict[str, Any] = {"method": METHOD, "steps": STEPS, "budget": budget, "progress": progress}
    return attribute_edges(classifier.model, first, logit_difference, **how).top(edges, connected=True)


def overlap_of(before: Searched, after: Searched, control: Circuit | None) -> SharedEdges:
    """The shares of edges that circuits have in common (`compare`)."""

    def shared(one: Circuit, other: Circuit) -> float:
        return compare(one, other).edge_overlap

    apart = (shared(before.circuit, after.elsewhere) + shared(before.elsewhere, after.circuit)) / 2
    own = (shared(before.circuit, before.elsewhere) + shared(after.circuit, after.elsewhere)) / 2
    return SharedEdges(apart, own, None if control is None else shared(before.circuit, control))


def _judged(circuit: Circuit, verdict: Verdict, swaps: Swaps) -> Circuit:
    """The circuit, which also says what it is one of and what was made of it."""
    details: Any = thaw(circuit.metadata)
    details |= {"task": swaps.what, "verdict": verdict.standing, "summary": verdict.summary}
    return Circuit(circuit.graph, dict(circuit.edges), dict(circuit.nodes), metadata=details)
