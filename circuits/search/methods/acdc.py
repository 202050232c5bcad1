"""ACDC as a search for a number of edges: its threshold is chosen where none is given."""

from typing import TYPE_CHECKING

from circuits.errors import CircuitsError
from circuits.progress import Progress
from circuits.search.methods.method import Method

if TYPE_CHECKING:
    from circuits.graph import Circuit
    from circuits.models import Model
    from circuits.tasks import PromptPairs
    from circuits.tasks.metric import Metric

THRESHOLDS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001)
"""Thresholds in nats that are tried where a number of edges is asked for."""
FIRST = 3
"""Edges between roles that ACDC begins with, for each that may be kept."""


def _run(
    model: "Model",
    pairs: "PromptPairs",
    metric: "Metric",
    *,
    edges: int,
    seed: int,
    budget: int,
    progress: Progress | None,
    threshold: float | None,
    roles: bool = False,
) -> "Circuit":
    """ACDC at a threshold, or at the smallest one that leaves at most so many edges."""
    from circuits.search.acdc.descent import acdc_thresholds

    if roles:
        return _between_roles(model, pairs, metric, edges=edges, budget=budget, progress=progress, threshold=threshold)
    thresholds = THRESHOLDS if threshold is None else (threshold,)
    circuits = acdc_thresholds(model, pairs, thresholds, budget=budget, progress=progress)
    fitting = [circuit for circuit in circuits if threshold is not None or 0 < len(circuit) <= edges]
    if not fitting:
        sizes = ", ".join(f"{len(circuit)} at {limit:g}" for limit, circuit in zip(thresholds, circuits, strict=True))
        raise CircuitsError(f"no threshold leaves 1 to {edges} edges ({sizes}): give a threshold or another number")
    return max(fitting, key=len)


def _between_roles(
    model: "Model",
    pairs: "PromptPairs",
    metric: "Metric",
    *,
    edges: int,
    budget: int,
    progress: Progress | None,
    threshold: float | None,
) -> "Circuit":
    """ACDC among the strongest edges by EAP-IG, `FIRST` times as many as are asked for: of all edges between roles, of which
    there are dozens for every plain one, a run each is out of reach."""
    from circuits.attribution.edges import attribute_edges
    from circuits.search.acdc.between import acdc_between

    scores = attribute_edges(model, pairs, metric, method="eap-ig", roles=True, budget=budget, progress=progress)
    first = scores.top(FIRST * edges, connected=True)
    sizes: list[str] = []
    found = None
    for limit in THRESHOLDS if threshold is None else (threshold,):
        circuit = acdc_between(model, pairs, first, threshold=limit, budget=budget, progress=progress)
        sizes.append(f"{len(circuit)} at {limit:g}")
        if threshold is None and len(circuit) > edges:
            break
        found = circuit if len(circuit) or threshold is not None else found
    if found is None:
        raise CircuitsError(f"no threshold leaves 1 to {edges} edges ({', '.join(sizes)}): give a threshold or another number")
    return found


ACDC = Method(
    name="acdc",
    summary="by cutting, from the logits backwards, what costs less than a threshold",
    run=_run,
    score="score: what cutting the edge would have cost (KL to the clean run, nats), whether it supports the metric or not",
    sign=1,
    options={"threshold": None},
    levels=("heads", "roles"),
    gives_circuit=True,
    measures="KL to the clean run",
)
