"""What a search method says of itself: how it is run, what it takes, what its scores mean."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from circuits.attribution import EdgeScores
    from circuits.graph import Circuit

Level = Literal["heads", "neurons", "roles"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""What edges run between: heads and whole MLPs, heads and single neurons, or heads and whole MLPs at roles of tokens."""
OPTIONS = ("steps", "threshold")
"""What `discover` and the command pass on, to the methods that take it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One way of finding a circuit. `discover`, its command with its help, reports, pictures and comparisons read this record
    and know nothing else of the method."""

    name: str
    summary: str
    """How edges are found, in a few words, for a line of the help: "by gradient at the clean prompts"."""
    run: "Callable[..., EdgeScores | Circuit]"
    """`run(model, pairs, metric, *, edges, seed, budget, progress, ...)`, with every option of `options` by name and, where
    `levels` has "neurons" or "roles", `neurons` or `roles` (a bool). Gives scores, of which the strongest `edges` that lie on
    paths are kept (by size), or a circuit of at most so many edges."""
    score: str
    """What a score says, in which unit and with which sign, for the line under a table of edges."""
    sign: Literal[-1, 0, 1]
    """The sign of an edge that supports what is measured; 0: scores have no sign, they say only how surely an edge is kept."""
    options: Mapping[str, int | float | None] = dataclasses.field(default_factory=dict)
    """Those of `OPTIONS` that it takes, with what they are unless a call says otherwise."""
    levels: tuple[Level, ...] = ("heads",)
    estimates: bool = False
    """Whether scores estimate what patching each edge by itself finds exactly (noising; in the metric's unit), so that the
    strongest can be verified."""
    gradient: bool = False
    """Whether it takes gradients of the metric: one that has none is refused before anything runs."""
    gives_circuit: bool = False
    """Whether it gives a circuit and no scores from which one could be chosen, by size or by support."""
    proposes: bool = False
    """Whether it begins with scores of every edge by another method, and `run` takes `found`, which hears them."""
    measures: str = ""
    """What it looks at whatever metric is asked for, in words; "": the metric."""
    recorded: str = ""
    """Its name in the metadata of results, where that is another."""

    @property
    def signed(self) -> bool:
        """Whether a score says if its edge supports or opposes what is measured."""
        return self.sign != 0

    @property
    def label(self) -> str:
        """Its name in the metadata of results."""
        return self.recorded or self.name
