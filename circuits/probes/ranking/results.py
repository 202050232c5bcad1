"""Which neurons know a property, by several rankings, and what the model loses without them."""

import builtins
import dataclasses
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.probes.results import PARTS, SURE

if TYPE_CHECKING:
    import pandas

WAYS = ("lca", "gaussian", "probeless", "raw", "agreement")
"""Rankings by name: weights of a sparse classifier, Gaussians chosen greedily, means of classes in deviations and as they are,
what other models share."""
KINDS = ("zero", "mean", "moved")
"""What takes a neuron's place: 0 or its mean at every token; or at the words alone what it has on average on another class."""
SETS = ("top", "bottom", "random")


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronRankings(Result, format="circuits-neuron-rankings", tensors=True):
    """All neurons of some layers, in several orders. Shares are of words judged, which nothing was fitted to or chosen by."""

    model: str
    weights_sha256: str
    property: str
    classes: tuple[str, ...]
    pooling: str
    words: int
    judged: int
    sentences: int
    left_out: dict[str, int]
    layers: Int[Tensor, " neuron"]
    indices: Int[Tensor, " neuron"]
    ways: tuple[str, ...]
    order: Int[Tensor, "way neuron"]
    """Places in `layers` and `indices`, the most salient neuron first."""
    candidates: int
    """So many neurons, those whose means are farthest apart, were looked at by rankings that cannot look at all."""
    scores: Float[Tensor, "way neuron"] = dataclasses.field(metadata=stored(missing=True))
    """What each ranking goes by (see `summary_of`), neurons as in `layers`; NaN where it did not look."""
    sizes: Int[Tensor, " size"]
    """How many of the first neurons a probe was given."""
    accuracy: Float[Tensor, "way size"]
    errors: Float[Tensor, "way size"]
    """Standard errors, words of one sentence taken together; of selectivity likewise."""
    selectivity: Float[Tensor, "way size"] = dataclasses.field(metadata=stored(missing=True))
    selectivity_errors: Float[Tensor, "way size"] = dataclasses.field(metadata=stored(missing=True))
    whole: tuple[float, float]
    """Accuracy and standard error of a probe on all candidates."""
    majority: tuple[float, float]
    """The same of each word type's most frequent class."""
    others: tuple[str, ...] = ()
    """The models whose neurons were compared with."""

    def __post_init__(self) -> None:
        neurons, ways = len(self.layers), len(self.ways)
        if not ways or self.order.shape != (ways, neurons) or self.scores.shape != self.order.shape:
            raise CircuitsError("rankings need an order and scores of every neuron for each way")
        if not bool((self.order.sort(dim=1).values == torch.arange(neurons)).all()):
            raise CircuitsError("an order must name every neuron once")
        if {self.accuracy.shape, self.errors.shape, self.selectivity.shape} != {(ways, len(self.sizes))}:
            raise CircuitsError("rankings need an accuracy for each way and size")

    def names(self, way: str, count: int) -> tuple[str, ...]:
        """The first neurons of a ranking, as nodes: m3.n457. Raises CircuitsError for a ranking that is not among these."""
        chosen = self.order[self.place_of(way), :count]
        pairs = zip(self.layers[chosen].tolist(), self.indices[chosen].tolist(), strict=True)
        return tuple(f"m{layer}.n{index}" for layer, index in pairs)

    def place_of(self, way: str) -> int:
        """Which row a ranking is. Raises CircuitsError for one that is not among these."""
        if way not in self.ways:
            raise CircuitsError(f"no ranking {way!r} among these: {', '.join(self.ways)}")
        return self.ways.index(way)

    def overlap(self, count: int) -> Float[Tensor, "way other"]:
        """The share of their first neurons that two rankings have in common; by chance count over the number of neurons."""
        sets = [set(row) for row in self.order[:, :count].tolist()]
        size = max(1, min(count, len(self.layers)))
        return torch.tensor([[len(a & b) / size for b in sets] for a in sets], dtype=torch.float64)

    @builtins.property
    def best(self) -> tuple[str, int]:
        """The ranking whose probe is the most accurate, and with how few neurons it is so within its standard error."""
        way = int(self.accuracy.amax(dim=1).argmax())
        row, top = self.accuracy[way], int(self.accuracy[way].argmax())
        enough = row >= row[top] - self.errors[way, top]
        return self.ways[way], int(self.sizes[int(enough.long().argmax())])

    @builtins.property
    def beyond_word(self) -> bool:
        """Whether the first neurons of some ranking surely tell more than each word type's most frequent class does."""
        return bool((self.accuracy - SURE * self.errors > self.majority[0]).any())

    @builtins.property
    def summary(self) -> str:
        """How far a few neurons go."""
        way, count = self.best
        share = float(self.accuracy[self.place_of(way), self.sizes.tolist().index(count)])
        return (
            f"{self.model}: {count} of {len(self.layers):,} neurons (by {way}: {', '.join(self.names(way, 3))} first) tell "
            f"{self.property} of {share:.1%} of {self.judged:,} words; all that were looked at {self.whole[0]:.1%}, the word "
            f"alone {self.majority[0]:.1%}."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a ranking and number of neurons."""
        import pandas

        rows = []
        for place, way in enumerate(self.ways):
            for at, size in enumerate(self.sizes.tolist()):
                row = {"ranking": way, "neurons": size, "accuracy": float(self.accuracy[place, at])}
                row |= {"standard_error": float(self.errors[place, at]), "selectivity": float(self.selectivity[place, at])}
                row |= {"selectivity_error": float(self.selectivity_errors[place, at])}
                rows.append({**row, "first": " ".join(self.names(way, min(size, 5)))})
        return pandas.DataFrame(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronKnockout(Result, format="circuits-neuron-knockout"):
    """What the model loses without the first neurons of each ranking, the last ones, and as many random ones: nats a token by
    which the loss of the next token rises, of those that follow a word with the property (`needed`) and of all others.
    Above 0 = the model was using them. Standard errors: tokens of one sentence taken together."""

    model: str
    weights_sha256: str
    property: str
    ways: tuple[str, ...]
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    whole: Float[Tensor, " part"] = dataclasses.field(metadata=stored(missing=True))
    """The loss of the whole model; NaN where there are no such tokens."""
    counts: Int[Tensor, " part"]
    lost: Float[Tensor, "way set kind size part"] = dataclasses.field(metadata=stored(missing=True))
    """Sets: top, bottom, random (the mean over draws, the same for every ranking)."""
    errors: Float[Tensor, "way set kind size part"] = dataclasses.field(metadata=stored(missing=True))
    beyond: Float[Tensor, "way kind size"]
    """What the first neurons cost beyond random ones, on the tokens that need them; errors likewise."""
    beyond_errors: Float[Tensor, "way kind size"]
    draws: int
    sentences: int

    def __post_init__(self) -> None:
        shape = (len(self.ways), len(SETS), len(self.kinds), len(self.sizes), len(PARTS))
        if self.lost.shape != shape or self.errors.shape != shape:
            raise CircuitsError(f"a knockout needs losses of shape {list(shape)}")
        if {self.beyond.shape, self.beyond_errors.shape} != {(shape[0], *shape[2:4])}:
            raise CircuitsError("a knockout needs what is lost beyond random neurons for each way, kind and size")

    @builtins.property
    def summary(self) -> str:
        """What the first neurons are worth where that is the most and sure, for all that was tried (Bonferroni)."""
        tried = NormalDist().inv_cdf(1 - 0.025 / self.beyond.numel())
        sure = self.beyond - tried * self.beyond_errors > 0
        if not bool(sure.any()):
            return (
                f"{self.model}: without the first neurons for {self.property} it loses not surely more than without random "
                f"ones, for {self.beyond.numel()} comparisons (Bonferroni)."
            )
        flat = int(torch.where(sure, self.beyond, -torch.inf).argmax())
        way, kind, size = (int(part) for part in torch.unravel_index(torch.tensor(flat), self.beyond.shape))
        value, half = float(self.beyond[way, kind, size]), tried * float(self.beyond_errors[way, kind, size])
        done = {"zero": "set to 0", "mean": "at their mean", "moved": "at another class's mean"}[self.kinds[kind]]
        return (
            f"{self.model}: the first {self.sizes[size]} neurons for {self.property} by {self.ways[way]}, {done}, cost "
            f"{value:+.3g} ± {half:.2g} nats a token beyond random ones, after words that have it (95 % for "
            f"{self.beyond.numel()} comparisons)."
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a ranking, set, kind of change, number of neurons and part of the tokens."""
        import pandas

        rows = []
        names = (self.ways, SETS, self.kinds, self.sizes, PARTS)
        for flat, (lost, error) in enumerate(zip(self.lost.flatten().tolist(), self.errors.flatten().tolist(), strict=True)):
            places = [int(part) for part in torch.unravel_index(torch.tensor(flat), self.lost.shape)]
            labels = [some[place] for some, place in zip(names, places, strict=True)]
            row = dict(zip(("ranking", "set", "change", "neurons", "tokens"), labels, strict=True))
            rows.append({**row, "lost": lost, "standard_error": error if not math.isnan(lost) else math.nan})
        return pandas.DataFrame(rows)
