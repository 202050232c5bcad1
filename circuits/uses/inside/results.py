"""What has changed inside of a classifier."""

import dataclasses
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas

LEVEL = 0.05
"""The corrected p-value below which a change is sure."""


@dataclasses.dataclass(frozen=True, eq=False)
class InsideChange(Result, format="circuits-inside-change"):
    """What nodes carry of a shortcut and of the meaning, in a classifier before and after it was mended: by how much the margin
    of the class that the words speak for falls (logits) when a node takes what it says of the text with the words swapped."""

    model: str
    before_sha256: str
    after_sha256: str
    words: tuple[str, ...]
    """The shortcuts."""
    kinds: tuple[str, ...]
    """What is swapped: "the shortcut", "the meaning"."""
    texts: tuple[int, ...]
    """Pairs of texts, one number a kind."""
    whole_before: tuple[Effect, ...]
    """By how much the margin falls when the whole text is swapped; `whole_after` likewise."""
    whole_after: tuple[Effect, ...]
    nodes: tuple[str, ...]
    before: Float[Tensor, "kind node"]
    """The mean over texts; `after` likewise."""
    after: Float[Tensor, "kind node"]
    change: Float[Tensor, "kind node"]
    """After less before, with its 95 % bootstrap interval over texts (`low`, `high`)."""
    low: Float[Tensor, "kind node"]
    high: Float[Tensor, "kind node"]
    shared_edges: tuple[float, ...] = ()
    """The share of edges that the circuits for both classifiers have in common, one a kind."""
    p_values: Float[Tensor, "kind node"] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """Of each change, by Student's two-sided test over texts, corrected over all nodes and kinds (Holm 1979); None in files
    from before it was made, of which intervals decide."""

    def __post_init__(self) -> None:
        if not {len(self.texts), len(self.whole_before), len(self.whole_after)} == {len(self.kinds)}:
            raise CircuitsError(f"{len(self.kinds)} kinds of swaps need as many numbers of texts and of whole effects")

    @property
    def sure(self) -> Bool[Tensor, "kind node"]:
        """Changes whose corrected p-value is below 0.05."""
        return (self.low > 0) | (self.high < 0) if self.p_values is None else self.p_values < LEVEL

    def shares(self, *, after: bool = False) -> Float[Tensor, "kind node"]:
        """What nodes carry as shares of what the whole text's swap does to the same classifier's margin: classifiers whose
        logits differ in size can be compared so. NaN where the interval of that holds 0. Nodes carry in a row, so that shares
        need not sum to 1."""
        whole = self.whole_after if after else self.whole_before
        sizes = torch.tensor([one.effect if one.low > 0 or one.high < 0 else torch.nan for one in whole], dtype=torch.float64)
        return (self.after if after else self.before).double() / sizes[:, None]

    def top(self, kind: str, count: int = 5, *, after: bool = False) -> list[tuple[str, float]]:
        """The nodes that carry most of a kind. Raises CircuitsError for one that was not asked."""
        if kind not in self.kinds:
            raise CircuitsError(f"no swaps of {kind!r}: expected one of {', '.join(self.kinds)}")
        values = (self.after if after else self.before)[self.kinds.index(kind)]
        order = torch.argsort(values, descending=True, stable=True)[:count]
        return [(self.nodes[place], float(values[place])) for place in order.tolist()]

    @property
    def summary(self) -> str:
        """What hangs on each kind of words, and the nodes that carry most of it."""
        said = []
        for at, kind in enumerate(self.kinds):
            whole = f"{self.whole_before[at].effect:+.2f} → {self.whole_after[at].effect:+.2f}"
            tops = [
                ", ".join(f"{name} {value:+.2f}" for name, value in self.top(kind, 3, after=after)) for after in (False, True)
            ]
            said.append(f"{kind} moves the margin by {whole}; most of it through {tops[0]}, afterwards {tops[1]}")
        return f"{self.model}: {'. '.join(said)}."

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a kind and node."""
        import pandas

        rows = []
        shares = [self.shares(after=after) for after in (False, True)]
        for at, kind in enumerate(self.kinds):
            for place, node in enumerate(self.nodes):
                row = {"kind": kind, "node": node}
                names = ("before", "after", "change", "low", "high")
                row |= {name: float(getattr(self, name)[at, place]) for name in names}
                row |= {name: float(one[at, place]) for name, one in zip(("share_before", "share_after"), shares, strict=True)}
                rows.append(row | ({} if self.p_values is None else {"p_value": float(self.p_values[at, place])}))
        return pandas.DataFrame(rows)
