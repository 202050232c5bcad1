"""The circuit for a label, before and after a classifier was mended."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelError, PromptError
from circuits.graph import Circuit
from circuits.models.memory import BUDGET
from circuits.patching.nodes import patch_nodes
from circuits.progress import Progress
from circuits.search.judging.compare import compare
from circuits.search.judging.verdict import Verdict
from circuits.statistics import Effect, bootstrap, holm
from circuits.tasks.metrics import logit_difference
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.inside.neurons import read_neurons
from circuits.uses.inside.paired import intervals, two_sided
from circuits.uses.inside.results import InsideChange, SharedEdges
from circuits.uses.inside.searching import control_circuit, overlap_of, search
from circuits.uses.inside.swaps import Swaps

EDGES = 200
"""Edges of each circuit; `circuits classify inside --edges 40` says how little fewer keep."""
NEURONS = 4
"""Neurons that are looked at closely, of each kind and choice."""
Hearing = Callable[[str, str, Circuit], None]


def compare_inside(
    before: Classifier,
    after: Classifier,
    swaps: Sequence[Swaps],
    *,
    control: Classifier | None = None,
    words: Sequence[str] = (),
    edges: int = EDGES,
    neurons: int = NEURONS,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Hearing | None = None,
) -> InsideChange:
    """Which heads, MLPs and neurons carry a shortcut and which the meaning, before and after: each head and MLP takes what it
    says of the swapped text while the rest runs on the clean one (noising), for the same texts in both classifiers, so that
    changes are paired by text. Which are sure is told by Student's two-sided test, text by text, corrected over all nodes and
    kinds (Holm 1979). Single neurons are scored by attribution (`read_neurons`).

    Beside it the circuit of each is searched by EAP-IG on half of the texts and judged on the other half (`discover`), and told
    is how many edges circuits have in common (`compare`): those before and after, those of one classifier on both halves, and
    those of two plain trainings, where another one is given. Raises ModelError for classifiers of different bases, PromptError
    for other classes and for no swaps, and what `discover` raises.

    Args:
        before: the classifier as it was.
        after: the one that was mended.
        swaps: what is swapped; `shortcut_swaps` and `meaning_swaps` make them.
        control: another training of the classifier as it was, with another seed, to which nothing was done.
        words: the shortcuts, to be named.
        edges: edges of each circuit.
        neurons: how many neurons are looked at closely, of each kind so many that change most, that carry most before,
            and that carry most after; 0: none.
        seed: that of halves, random circuits and the bootstrap.
        budget: bytes that a pass may take above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: is given each circuit, with the kind and "before" or "after".
    """
    _check(before, (after, *([] if control is None else [control])), swaps)
    how: dict[str, Any] = {"seed": seed, "budget": budget, "progress": progress}
    carried = [_carried(before, after, one, **how) for one in swaps]
    judged = [_circuits(before, after, control, one, edges, found, **how) for one in swaps]
    looked = bool(neurons) and bool(before.model.d_mlp)
    ends = torch.stack([intervals(one.after - one.before, seed) for one in carried])
    p_values = torch.tensor([[two_sided(row) for row in one.after - one.before] for one in carried], dtype=torch.float64)
    return InsideChange(
        model=before.base,
        before_sha256=before.model.fingerprint,
        after_sha256=after.model.fingerprint,
        words=tuple(words),
        kinds=tuple(one.what for one in swaps),
        texts=tuple(len(one.clean) for one in swaps),
        whole_before=tuple(one.whole_before for one in carried),
        whole_after=tuple(one.whole_after for one in carried),
        nodes=carried[0].names,
        before=torch.stack([one.before.mean(dim=1) for one in carried]),
        after=torch.stack([one.after.mean(dim=1) for one in carried]),
        change=ends[:, 0],
        low=ends[:, 1],
        high=ends[:, 2],
        shared_edges=tuple(one.shared for one in judged),
        p_values=holm(p_values.flatten()).reshape(p_values.shape),
        overlaps=tuple(one.overlap for one in judged),
        verdicts_before=tuple(one.before for one in judged),
        verdicts_after=tuple(one.after for one in judged),
        neurons=read_neurons(before, after, swaps, count=neurons, **how) if looked else None,
    )


def _check(before: Classifier, others: Sequence[Classifier], swaps: Sequence[Swaps]) -> None:
    """Raise ModelError for classifiers of different bases, PromptError for other classes and for no swaps."""
    for other in others:
        if before.base_sha256 != other.base_sha256:
            raise ModelError(
                f"classifiers on {before.base} and {other.base} have different bases: their nodes are not the same"
            )
        if before.classes != other.classes or not swaps:
            raise PromptError(
                f"classes {', '.join(before.classes)} and {', '.join(other.classes)}, {len(swaps)} swaps: expected as many"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Carried:
    """By how much the margin falls with each node's value on the swapped text, and with all of it."""

    names: tuple[str, ...]
    before: Float[Tensor, "node text"]
    after: Float[Tensor, "node text"]
    whole_before: Effect
    whole_after: Effect


def _carried(before: Classifier, after: Classifier, swaps: Swaps, *, seed: int, **how: Any) -> _Carried:
    names, falls, wholes = (), [], []
    for classifier in (before, after):
        nodes = ["heads", "mlps"] if classifier.model.d_mlp else ["heads"]
        options = {"direction": "noising", "seed": seed, **how}
        effects = patch_nodes(classifier.model, swaps.pairs(classifier), logit_difference, nodes, **options)
        names = effects.names
        falls.append((effects.clean - effects.scores).double().cpu())
        wholes.append(bootstrap(effects.clean - effects.corrupt, seed=seed))
    return _Carried(names, *falls, *wholes)


@dataclasses.dataclass(frozen=True)
class _Circuits:
    """The verdicts on the circuits of a kind, and what they share."""

    before: Verdict
    after: Verdict
    shared: float
    overlap: SharedEdges


def _circuits(
    before: Classifier,
    after: Classifier,
    control: Classifier | None,
    swaps: Swaps,
    edges: int,
    found: Hearing | None,
    **how: Any,
) -> _Circuits:
    first, second = (search(classifier, swaps, edges=edges, **how) for classifier in (before, after))
    if found is not None:
        for when, one in (("before", first), ("after", second)):
            found(swaps.what, when, one.circuit)
    other = None if control is None else control_circuit(control, swaps, edges=edges, **how)
    shared = compare(first.circuit, second.circuit).edge_overlap
    return _Circuits(first.verdict, second.verdict, shared, overlap_of(first, second, other))
