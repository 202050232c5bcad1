"""How attribution takes gradients, as data: one record a method, with what it can be combined with.

To add one, add a record to `RULES`; `attribute_edges`, `discover` and the command `circuits discover` know it from there. The
command's help lists them: what takes long to import is imported when it is run.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from circuits.errors import CircuitsError, shown

if TYPE_CHECKING:
    from circuits.attribution.gradients import Gradients
    from circuits.attribution.points import Point
    from circuits.models import Model, Run, TokenBatch
    from circuits.patching.engine.reading import Reading

EXACT = "exact"
"""The method that patches every edge in place of taking gradients."""


def _gradients(model: "Model", reading: "Reading", tokens: "TokenBatch", *, writers: bool, heads: bool = False) -> "Gradients":
    from circuits.attribution.gradients import gradients

    return gradients(model, reading, tokens, writers=writers, heads=heads)


def _relevance(model: "Model", reading: "Reading", tokens: "TokenBatch", *, writers: bool, heads: bool = False) -> "Gradients":
    from circuits.attribution.relevance import relevance

    return relevance(model, reading, tokens, writers=writers, heads=heads)


def _along_inputs(model: "Model", own: "Run", other: "Run", steps: int) -> "Iterator[Point]":
    from circuits.attribution.points import along_inputs

    return along_inputs(model, own, other, steps)


def _along_activations(model: "Model", own: "Run", other: "Run", steps: int) -> "Iterator[Point]":
    from circuits.attribution.points import along_activations

    return along_activations(model, own, other, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Where gradients are taken and by which rules they go back."""

    summary: str
    """How edges are found, in a few words."""
    points: "Callable[[Model, Run, Run, int], Iterator[Point]] | None" = None
    """The gradient runs between the corrupt and the clean one, from the model, the clean run, the corrupt run and a number of
    steps; None: there is one, the clean run itself."""
    steps: int = 1
    """How many points, unless a call says otherwise."""
    clean_run: "Callable[..., Gradients]" = _gradients
    """`clean_run(model, reading, tokens, *, writers, heads)` runs the clean prompts and goes back once, where there are no
    points between; `writers`: also to what nodes write; `heads`: to what heads write."""
    without: bool = False
    """Whether nodes can be held at their corrupt values throughout."""
    neurons: bool = False
    """Whether it scores edges between single neurons."""
    nodes: bool = False
    """Whether it scores nodes (`attribute_nodes`)."""
    roles: bool = False
    """Whether it scores edges between roles of tokens."""
    features: bool = False
    """Whether it scores features of dictionaries."""

    def points_of(self, steps: int | None) -> int:
        """How many points a call for so many takes (None: the rule's own number). Raises CircuitsError for less than one."""
        if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
            raise CircuitsError(f"steps is a whole number from 1 on, got {steps!r}")
        return 1 if self.points is None else self.steps if steps is None else steps

    def at(self, model: "Model", own: "Run", other: "Run", steps: int) -> "Iterator[Point]":
        """The gradient runs; `own` is the clean run, `other` the corrupt one."""
        from circuits.attribution.points import Point

        if self.points is None:
            yield Point()
        else:
            yield from self.points(model, own, other, steps)


RULES = {
    "eap": Rule(summary="by gradient at the clean prompts", without=True, neurons=True, nodes=True, roles=True, features=True),
    "eap-ig": Rule(
        summary="by gradient on the way from corrupt to clean embeddings",
        points=_along_inputs,
        steps=10,
        without=True,
        neurons=True,
        nodes=True,
        roles=True,
        features=True,
    ),
    "eap-ig-activations": Rule(
        summary="by gradient on the way of one layer's outputs at a time", points=_along_activations, steps=5, roles=True
    ),
    "relp": Rule(summary="by relevance, which goes back through held nonlinearities", clean_run=_relevance, nodes=True),
}
"""By the names that `method` takes."""


def feature_rule(method: str) -> Rule:
    """The rule of a method that scores features of dictionaries. Raises CircuitsError for another."""
    able = [name for name, rule in RULES.items() if rule.features]
    if method not in able:
        raise CircuitsError(f"features are scored by {' or '.join(able)}, not by {shown(method)}")
    return RULES[method]
