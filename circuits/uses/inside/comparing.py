"""The circuit for a label, before and after a classifier was mended."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution import attribute_edges
from circuits.errors import ModelError, PromptError
from circuits.graph import Circuit
from circuits.models.memory import BUDGET
from circuits.patching.nodes import patch_nodes
from circuits.progress import Progress
from circuits.search.judging.compare import compare
from circuits.statistics import Effect, bootstrap, holm, t_test
from circuits.tasks.metrics import logit_difference
from circuits.uses.classifying.classifier import Classifier
from circuits.uses.inside.results import InsideChange
from circuits.uses.inside.swaps import Swaps

EDGES = 40
"""Edges of each circuit."""


def compare_inside(
    before: Classifier,
    after: Classifier,
    swaps: Sequence[Swaps],
    *,
    words: Sequence[str] = (),
    edges: int = EDGES,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    found: Callable[[str, str, Circuit], None] | None = None,
) -> InsideChange:
    """Which heads and MLPs carry a shortcut and which the meaning, before and after: each takes what it says of the swapped
    text while the rest runs on the clean one (noising), for the same texts in both classifiers, so that changes are paired by
    text.

    Which changes are sure is told by Student's two-sided test, text by text, corrected over all nodes and kinds (Holm 1979).

    Beside it the strongest edges by EAP-IG of each, and how many both have in common: two plain trainings with other seeds may
    have no more. Single neurons are not looked at. Raises ModelError for classifiers of
    different bases, PromptError for other classes and for no swaps.

    Args:
        before: the classifier as it was.
        after: the one that was mended.
        swaps: what is swapped; `shortcut_swaps` and `meaning_swaps` make them.
        words: the shortcuts, to be named.
        edges: edges of each circuit.
        seed: that of the bootstrap.
        budget: bytes that a pass may take above the model and its base runs.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: is given each circuit, with the kind and "before" or "after".
    """
    if before.base_sha256 != after.base_sha256:
        raise ModelError(f"classifiers on {before.base} and {after.base} have different bases: their nodes are not the same")
    if before.classes != after.classes or not swaps:
        raise PromptError(
            f"classes {', '.join(before.classes)} and {', '.join(after.classes)}, {len(swaps)} swaps: expected as many"
        )
    names: tuple[str, ...] = ()
    numbers: list[list[Tensor]] = []
    wholes: list[list[Effect]] = []
    shared = []
    for one in swaps:
        carried, whole, circuits = [], [], []
        for when, classifier in (("before", before), ("after", after)):
            pairs = one.pairs(classifier)
            options = {"direction": "noising", "budget": budget, "seed": seed, "progress": progress}
            effects = patch_nodes(classifier.model, pairs, logit_difference, ["heads", "mlps"], **options)
            names = effects.names
            carried.append((effects.clean - effects.scores).double().cpu())
            whole.append(bootstrap(effects.clean - effects.corrupt, seed=seed))
            scores = attribute_edges(classifier.model, pairs, logit_difference, budget=budget, progress=progress)
            circuits.append(scores.top(min(edges, len(scores))))
            if found is not None:
                found(one.what, when, circuits[-1])
        numbers.append(carried)
        wholes.append(whole)
        shared.append(compare(*circuits).edge_overlap)
    differences = [later - earlier for earlier, later in numbers]
    changes = [_intervals(one, seed) for one in differences]
    p_values = torch.tensor([[_two_sided(row) for row in one] for one in differences], dtype=torch.float64)
    return InsideChange(
        model=before.base,
        before_sha256=before.model.fingerprint,
        after_sha256=after.model.fingerprint,
        words=tuple(words),
        kinds=tuple(one.what for one in swaps),
        texts=tuple(len(one.clean) for one in swaps),
        whole_before=tuple(whole[0] for whole in wholes),
        whole_after=tuple(whole[1] for whole in wholes),
        nodes=names,
        before=torch.stack([carried[0].mean(dim=1) for carried in numbers]),
        after=torch.stack([carried[1].mean(dim=1) for carried in numbers]),
        change=torch.stack([change[0] for change in changes]),
        low=torch.stack([change[1] for change in changes]),
        high=torch.stack([change[2] for change in changes]),
        shared_edges=tuple(shared),
        p_values=holm(p_values.flatten()).reshape(p_values.shape),
    )


def _two_sided(values: Float[Tensor, " text"]) -> float:
    """The chance of a mean so far from zero."""
    return min(1.0, 2 * min(t_test(values), t_test(-values)))


def _intervals(values: Float[Tensor, "node text"], seed: int) -> Float[Tensor, "3 node"]:
    """Means, and the ends of their intervals."""
    several = [bootstrap(row, seed=seed) for row in values]
    return torch.tensor([[one.effect, one.low, one.high] for one in several], dtype=torch.float64).T
