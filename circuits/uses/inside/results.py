"""What has changed inside of a classifier."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.search import Verdict
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas

LEVEL = 0.05
"""The corrected p-value below which a change is sure."""


@dataclasses.dataclass(frozen=True)
class SharedEdges:
    """Shares of edges that circuits for one kind of words have in common, of all edges of either (Jaccard index), beside which
    the share of the circuits before and after, searched on the same half of the texts, is to be judged."""

    apart: float
    """Before and after, each searched on the other half than the other (the mean of the two ways)."""
    own: float
    """A classifier and itself, on the two halves (the mean of both classifiers): what other texts of the kind leave."""
    control: float | None = None
    """The classifier before and another plain training, on the same half; None: none was given."""


@dataclasses.dataclass(frozen=True, eq=False)
class InsideNeurons:
    """Single neurons that carry most of a kind of words, before or after, or change most, in the order of computation.

    Numbers are falls of the margin (logits) when the neuron takes its value on the swapped text: `before` and `after` as
    attribution (EAP-IG) estimates it on the way between both texts, the mean over texts; `patched_...` as it is measured with
    all else on the clean text, where other neurons may stand in.
    """

    names: tuple[str, ...]
    scored: int
    """Neurons that were scored, of which these were chosen."""
    before: Float[Tensor, "kind neuron"]
    after: Float[Tensor, "kind neuron"]
    low: Float[Tensor, "kind neuron"]
    """Where the 95 % bootstrap interval over texts of `change` begins; `high`: where it ends."""
    high: Float[Tensor, "kind neuron"]
    p_values: Float[Tensor, "kind neuron"]
    """Of each change, by Student's two-sided test over texts, times the number of all neurons and kinds (Bonferroni)."""
    patched_before: Float[Tensor, "kind neuron"]
    patched_after: Float[Tensor, "kind neuron"]
    held_before: tuple[float, ...]
    """The share that these neurons have of the summed sizes of all neurons' attributions, one a kind; `held_after` likewise."""
    held_after: tuple[float, ...]
    active_before: tuple[tuple[str, ...], ...]
    """Of each neuron the words of the texts at which its activation is largest; `active_after` likewise."""
    active_after: tuple[tuple[str, ...], ...]
    raises_before: tuple[str, ...]
    """The class that each raises most by itself; `raises_after` likewise."""
    raises_after: tuple[str, ...]

    @property
    def change(self) -> Float[Tensor, "kind neuron"]:
        """After less before."""
        return self.after - self.before

    @property
    def sure(self) -> Bool[Tensor, "kind neuron"]:
        """Changes whose corrected p-value is below 0.05."""
        return self.p_values < LEVEL

    def order(self, kind: int) -> list[int]:
        """The places of the neurons from that which carries most of a kind, before or after, or changes most."""
        sizes = torch.stack([self.before[kind], self.after[kind], self.change[kind]]).abs().amax(dim=0)
        return sizes.argsort(descending=True, stable=True).tolist()

    def rows(self, kinds: Sequence[str]) -> list[dict[str, object]]:
        """One row a kind and neuron, as they stand in the table of all nodes."""
        numbers = ("before", "after", "change", "low", "high", "patched_before", "patched_after")
        rows: list[dict[str, object]] = []
        for at, kind in enumerate(kinds):
            for place, node in enumerate(self.names):
                row: dict[str, object] = {"kind": kind, "node": node, "by": "attribution"}
                row |= {name: float(getattr(self, name)[at, place]) for name in numbers}
                row |= {"p_value": float(self.p_values[at, place])}
                row |= {name: " ".join(getattr(self, name)[place]) for name in ("active_before", "active_after")}
                row |= {name: getattr(self, name)[place] for name in ("raises_before", "raises_after")}
                rows.append(row)
        return rows


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
    overlaps: tuple[SharedEdges, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """What `shared_edges` is to be held against, one a kind; none in files from before it was made."""
    verdicts_before: tuple[Verdict, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    """On the circuit for each kind, on the half of the texts that it was not searched on; `verdicts_after` likewise."""
    verdicts_after: tuple[Verdict, ...] = dataclasses.field(default=(), metadata=stored(optional=True))
    neurons: InsideNeurons | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """Single neurons; None where none were looked at."""

    def __post_init__(self) -> None:
        if not {len(self.texts), len(self.whole_before), len(self.whole_after)} == {len(self.kinds)}:
            raise CircuitsError(f"{len(self.kinds)} kinds of swaps need as many numbers of texts and of whole effects")
        judged = {len(some) for some in (self.overlaps, self.verdicts_before, self.verdicts_after)}
        if judged not in ({0}, {len(self.kinds)}):
            raise CircuitsError(f"{len(self.kinds)} kinds of swaps need as many overlaps and verdicts, or none")

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
        """What hangs on each kind of words, the nodes that carry most of it, and how much the circuits share."""
        said = []
        for at, kind in enumerate(self.kinds):
            whole = f"{self.whole_before[at].effect:+.2f} → {self.whole_after[at].effect:+.2f}"
            tops = [
                ", ".join(f"{name} {value:+.2f}" for name, value in self.top(kind, 3, after=after)) for after in (False, True)
            ]
            one = f"{kind} moves the margin by {whole}; most of it through {tops[0]}, afterwards {tops[1]}"
            said.append("; ".join([one, *self._shared(at), *self._changed(at)]))
        return f"{self.model}: {'. '.join(said)}."

    def _shared(self, at: int) -> list[str]:
        """What the circuits of a kind share, beside what others do."""
        if not self.overlaps:
            return []
        one = self.overlaps[at]
        words = f"its circuits before and after share {self.shared_edges[at]:.0%} of their edges"
        words += "" if one.control is None else f", those of two plain trainings {one.control:.0%}"
        return [words, f"on other texts {one.apart:.0%}, where a classifier shares {one.own:.0%} with itself"]

    def _changed(self, at: int) -> list[str]:
        """The neuron that changes most in a kind."""
        if self.neurons is None:
            return []
        some, place = self.neurons, int(self.neurons.change[at].abs().argmax())
        values = f"{float(some.before[at, place]):+.3f} → {float(some.after[at, place]):+.3f}"
        return [f"{some.names[place]} changes most of {some.scored:,} neurons, {values}"]

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a kind and node, then one a kind and neuron; `by`: whether "patching" or "attribution" gave the numbers."""
        import pandas

        rows = []
        shares = [self.shares(after=after) for after in (False, True)]
        for at, kind in enumerate(self.kinds):
            for place, node in enumerate(self.nodes):
                row: dict[str, object] = {"kind": kind, "node": node, "by": "patching"}
                names = ("before", "after", "change", "low", "high")
                row |= {name: float(getattr(self, name)[at, place]) for name in names}
                row |= {name: float(one[at, place]) for name, one in zip(("share_before", "share_after"), shares, strict=True)}
                rows.append(row | ({} if self.p_values is None else {"p_value": float(self.p_values[at, place])}))
        return pandas.DataFrame(rows + ([] if self.neurons is None else self.neurons.rows(self.kinds)))
