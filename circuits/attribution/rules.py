"""How attribution takes gradients, as data: one record a method, with what it can be combined with.

To add one, add a record to `RULES`; `attribute_edges`, `discover` and the command `circuits discover` know it from there.
"""

import dataclasses
from collections.abc import Callable, Iterator

from circuits.attribution.gradients import Gradients, gradients
from circuits.attribution.points import Point, along_activations, along_inputs
from circuits.attribution.relevance import relevance
from circuits.models import Model, Run, TokenBatch
from circuits.patching.engine.reading import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Where gradients are taken and by which rules they go back."""

    summary: str
    """How edges are found, in a few words."""
    points: Callable[[Model, Run, Run, int], Iterator[Point]] | None = None
    """The gradient runs between the corrupt and the clean one, from the model, the clean run, the corrupt run and a number of
    steps; None: there is one, the clean run itself."""
    clean_run: Callable[[Model, Reading, TokenBatch], Gradients] = gradients
    """Runs the clean prompts and goes back once, where there are no points between."""
    without: bool = False
    """Whether nodes can be held at their corrupt values throughout."""
    neurons: bool = False
    """Whether it scores edges between single neurons."""
    nodes: bool = False
    """Whether it scores nodes (`attribute_nodes`)."""

    def at(self, model: Model, own: Run, other: Run, steps: int) -> Iterator[Point]:
        """The gradient runs; `own` is the clean run, `other` the corrupt one."""
        if self.points is None:
            yield Point()
        else:
            yield from self.points(model, own, other, steps)


RULES = {
    "eap": Rule(summary="by gradient at the clean prompts", without=True, neurons=True, nodes=True),
    "eap-ig": Rule(
        summary="by gradient on the way from corrupt to clean embeddings",
        points=along_inputs,
        without=True,
        neurons=True,
        nodes=True,
    ),
    "eap-ig-activations": Rule(summary="by gradient on the way of one layer's outputs at a time", points=along_activations),
    "relp": Rule(summary="by relevance, which goes back through held nonlinearities", clean_run=relevance, nodes=True),
}
"""By the names that `method` takes."""
