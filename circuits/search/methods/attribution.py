"""Attribution as a search: every edge has a score, by gradient or by exact patching."""

import functools
from typing import TYPE_CHECKING

from circuits.attribution.rules import EXACT as NAME, RULES, Rule
from circuits.progress import Progress
from circuits.search.methods.method import LEVELS, Method

if TYPE_CHECKING:
    from circuits.attribution import EdgeScores
    from circuits.models import Model
    from circuits.tasks import PromptPairs
    from circuits.tasks.metric import Metric

_SCORE = "score: change of the metric when the edge alone carries its corrupt value; negative = the edge supports the metric"


def _run(
    name: str,
    model: "Model",
    pairs: "PromptPairs",
    metric: "Metric",
    *,
    edges: int,
    seed: int,
    budget: int,
    progress: Progress | None,
    steps: int | None = None,
    neurons: bool = False,
    roles: bool = False,
) -> "EdgeScores":
    from circuits.attribution.edges import attribute_edges
    from circuits.attribution.topk import KEPT

    keep = max(KEPT, 2 * edges)  # some will lie on no path
    how = {"steps": steps, "neurons": neurons, "roles": roles, "keep": keep, "budget": budget, "progress": progress}
    return attribute_edges(model, pairs, metric, method=name, **how)


def _by_gradient(name: str, rule: Rule) -> Method:
    return Method(
        name=name,
        summary=rule.summary,
        run=functools.partial(_run, name),
        score=_SCORE,
        sign=-1,
        options={"steps": rule.steps} if rule.points else {},
        levels=tuple(level for level in LEVELS if level == "heads" or getattr(rule, level)),
        estimates=True,
        gradient=True,
    )


GRADIENTS = tuple(_by_gradient(name, rule) for name, rule in RULES.items())
"""One method a rule of attribution."""
EXACT = Method(
    name=NAME,
    summary="by patching each one",
    run=functools.partial(_run, NAME),
    score=_SCORE,
    sign=-1,
    levels=("heads", "roles"),
)
