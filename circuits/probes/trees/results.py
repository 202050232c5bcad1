"""What structural probes have found, place by place."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.probes.results import SURE
from circuits.probes.trees.structural import TreeSpace

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class ShownTree:
    """A judged sentence with its relations and those that the probe tells, pairs of its words (from 0) that are no
    punctuation."""

    words: tuple[str, ...]
    gold: tuple[tuple[int, int], ...]
    told: tuple[tuple[int, int], ...]

    @property
    def right(self) -> frozenset[frozenset[int]]:
        """The relations that are in both."""
        return frozenset(map(frozenset, self.gold)) & frozenset(map(frozenset, self.told))


@dataclasses.dataclass(frozen=True)
class TreeDetails:
    """How probes were trained, judged sentences to look at, and what else was asked."""

    geometry: TreeSpace
    """Where distances are taken."""
    shown: tuple[ShownTree, ...]
    """Some of the judged sentences, as they are read off the best place."""
    by_rank: tuple[tuple[int, float, float], ...]
    """Of each rank that was tried at the best place UUAS and its error."""
    drops: tuple[tuple[float, float], ...]
    """How much smaller UUAS is at each place where content words of the judged sentences are pseudo-words, and the standard
    error by sentence, each its own comparison; empty where it was not asked."""
    nonsense: str
    """One of these sentences."""


_COLUMNS = ("uuas", "errors", "distance", "depth", "root", "root_errors")


@dataclasses.dataclass(frozen=True, eq=False)
class TreeProbes(Result, format="circuits-tree-probes"):
    """Structural probes (Hewitt & Manning 2019), two a place, judged on sentences that none was trained on: how much of the
    sentences' dependency trees distances and lengths in a projection of the activations tell."""

    model: str
    weights_sha256: str
    pooling: str
    rank: int
    """Directions of the projections at most."""
    sites: tuple[str, ...]
    uuas: Float[Tensor, " site"]
    """Of the relations between words that are no punctuation, the share that the minimum spanning tree of the distances has
    (unlabelled, undirected attachment)."""
    errors: Float[Tensor, " site"]
    """Its standard error, relations of one sentence taken together; that of `root` is by sentence."""
    distance: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """Spearman's rank correlation of distances (DSpr): by word, averaged by sentence, then by length from 5 to 50."""
    depth: Float[Tensor, " site"] = dataclasses.field(metadata=stored(missing=True))
    """That of depths (NSpr), likewise."""
    root: Float[Tensor, " site"]
    """The share of sentences whose word of least depth is the root."""
    root_errors: Float[Tensor, " site"]
    chain: dict[str, float]
    """What the order of words alone tells: `uuas` with its `error` where each is attached to the next one, and `distance`."""
    judged: int
    """Sentences that figures are of."""
    relations: int
    """Relations that UUAS is of."""
    trained: int
    seed: int
    random: tuple[float, ...] = ()
    """UUAS at each place of the same architecture with random weights; empty where it was not asked."""
    random_errors: tuple[float, ...] = ()
    details: TreeDetails | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """What is known besides; None in files of earlier versions."""

    def __post_init__(self) -> None:
        if {len(getattr(self, name)) for name in _COLUMNS} != {len(self.sites)} or not self.sites:
            raise CircuitsError("structural probes need one number a place in every column")
        if len(self.random) not in (0, len(self.sites)) or len(self.random) != len(self.random_errors):
            raise CircuitsError("structural probes need a number and an error a place for random weights, or none")
        if len(self.drops) not in (0, len(self.sites)):
            raise CircuitsError("structural probes need a drop a place for pseudo-words, or none")
        if set(self.chain) != {"uuas", "error", "distance"}:
            raise CircuitsError("the chain of words has uuas, error and distance")

    @property
    def shown(self) -> tuple[ShownTree, ...]:
        """Some of the judged sentences, as they are read off the best place."""
        return () if self.details is None else self.details.shown

    @property
    def drops(self) -> tuple[tuple[float, float], ...]:
        """How much smaller UUAS is at each place where content words are pseudo-words, with its error; empty where that was not
        asked."""
        return () if self.details is None else self.details.drops

    @property
    def best(self) -> int:
        """The place with the largest UUAS (of equal ones the earliest)."""
        return int(self.uuas.argmax())

    @property
    def summary(self) -> str:
        """The best place, beside its baselines."""
        best = self.best
        beside = [f"next word {self.chain['uuas']:.1%}"]
        if "resid0" in self.sites and self.sites[best] != "resid0":
            beside.append(f"resid0 {float(self.uuas[self.sites.index('resid0')]):.1%}")
        beside += [f"random weights {self.random[best]:.1%}"] if self.random else []
        half = SURE * float(self.errors[best])
        lost = [f" With pseudo-words UUAS is {share:.1%} ± {SURE * error:.1%} less." for share, error in self.drops]
        return (
            f"{self.model}: trees are read off {self.sites[best]} best, UUAS {float(self.uuas[best]):.1%} ± {half:.1%} of "
            f"{self.relations:,} relations ({', '.join(beside)}), DSpr {float(self.distance[best]):.2f}, root "
            f"{float(self.root[best]):.1%}.{lost[best] if lost else ''}"
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row a place."""
        import pandas

        rows: list[dict[str, Any]] = []
        for place, site in enumerate(self.sites):
            row: dict[str, Any] = {"site": site, "uuas": float(self.uuas[place]), "standard_error": float(self.errors[place])}
            row |= {"dspr": float(self.distance[place]), "nspr": float(self.depth[place]), "root": float(self.root[place])}
            row |= {"root_error": float(self.root_errors[place])}
            row |= {"random": self.random[place] if self.random else math.nan}
            row |= {"random_error": self.random_errors[place] if self.random else math.nan}
            lost, error = self.drops[place] if self.drops else (math.nan, math.nan)
            row |= {"drop": lost, "drop_error": error}
            rows.append(row)
        return pandas.DataFrame(rows)
