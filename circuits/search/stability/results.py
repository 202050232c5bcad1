"""What comes of a search that was repeated: which edges return, how far the circuits meet, and the circuit of what holds."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.graph import Circuit, Graph
from circuits.graph.places import edge_at
from circuits.search.stability.chance import (
    NULLS,
    Null,
    blocks_of,
    counts_in,
    expected_overlap,
    jaccard,
    mean_over_pairs,
    returning_by_chance,
    shared_by_chance,
)
from circuits.statistics import Effect

if TYPE_CHECKING:
    import pandas

Sample = Literal["halves", "parts", "bootstrap", "all"]
SAMPLES: dict[Sample, str] = {
    "halves": "two random halves of the prompts for each seed",
    "parts": "prompts of its own for each seed",
    "bootstrap": "as many prompts for each seed, drawn with replacement",
    "all": "the same prompts for each seed",
}
"""On which prompts a search is repeated, in words."""
Between = Literal["other prompts", "shared prompts", "models", "models, other prompts"]
BETWEEN: dict[Between, str] = {
    "other prompts": "on prompts that are not shared",
    "shared prompts": "on prompts some of which are shared",
    "models": "two models, on the same prompts",
    "models, other prompts": "two models, on prompts that are not shared",
}
"""What two circuits differ in, and how it reads."""
Rule = Literal["all", "half", "as many", "pooled"]
RULES: dict[Rule, str] = {
    "all": "edges in all circuits",
    "half": "edges in at least half",
    "as many": "edges most often found, as many as one has",
    "pooled": "one search on all these prompts",
}
"""How a circuit was made of the several, and how it reads."""


@dataclasses.dataclass(frozen=True)
class SearchRun:
    """One of the searches."""

    model: str
    seed: int
    part: int
    """Which half of the seed's prompts: 0 or 1; 0 where it has one sample."""
    prompts: int
    faithfulness: Effect | None
    """On the held-out prompts, by itself; None where it was not judged."""


@dataclasses.dataclass(frozen=True)
class Consensus:
    """A circuit that stands for the several, judged beside them."""

    model: str
    rule: Rule
    edges: int
    faithfulness: Effect | None
    """On the held-out prompts; None where it has no edge, or was not judged."""
    more: Effect | None
    """By how much more it is than the mean of the single circuits on the same prompts, with the interval over prompts."""


@dataclasses.dataclass(frozen=True)
class SizeOverlap:
    """How far circuits of another size meet, of the same searches."""

    model: str
    size: int
    overlap: Effect
    expected: float
    """By chance, with as many edges into each reader."""


@dataclasses.dataclass(frozen=True)
class PairOverlap:
    """Two of the circuits."""

    first: int
    second: int
    between: Between
    shared: int
    sizes: tuple[int, int]

    @property
    def overlap(self) -> float:
        """Shared edges over all of either (Jaccard index)."""
        return jaccard(self.shared, *self.sizes)

    @property
    def ceiling(self) -> float:
        """The largest overlap that circuits of these sizes can have."""
        return min(self.sizes) / max(self.sizes) if max(self.sizes) else 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Recurrence(Result, format="circuits-recurrence"):
    """The circuits of several searches, edge by edge. Overlaps are Jaccard indices: they say how far circuits of these sizes
    meet, and depend on the sizes."""

    graph: Graph
    task: str
    method: str
    metric: str
    sample: Sample
    runs: tuple[SearchRun, ...] = dataclasses.field(metadata=stored(axis="run"))
    writers: Int[Tensor, " edge"]
    """Of every edge that is in one of the circuits the writer's place among the nodes that write, in order."""
    readers: Int[Tensor, " edge"]
    """And the reader's place among the readers."""
    chosen: Bool[Tensor, "run edge"]
    """Whether the circuit has the edge."""
    scores: Float[Tensor, "run edge"] = dataclasses.field(metadata=stored(missing=True))
    """The edge's score there; missing where the circuit lacks it, or edges have no scores."""
    consensus: tuple[Consensus, ...] = ()
    circuit: Circuit | None = None
    """The edges in at least half of the first model's circuits: their mean scores, and in how many each is (evidence)."""
    by_size: tuple[SizeOverlap, ...] = ()
    held_out: int = 0
    """Prompts that all were judged on."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise CircuitsError("recurrence needs two circuits or more")
        if any(len(values) != len(self.writers) for values in (self.readers, self.chosen.T, self.scores.T)):
            raise CircuitsError("recurrence needs the same edges in every circuit")

    @property
    def models(self) -> tuple[str, ...]:
        """The models, the one that was asked about first."""
        return tuple(dict.fromkeys(one.model for one in self.runs))

    def rows(self, model: str | None = None) -> list[int]:
        """The rows of a model's circuits (default: the first's)."""
        model = self.models[0] if model is None else model
        return [row for row, one in enumerate(self.runs) if one.model == model]

    def names(self) -> list[str]:
        """The edges by name."""
        places = zip(self.writers.tolist(), self.readers.tolist(), strict=True)
        return [str(edge_at(self.graph, *place)) for place in places]

    def times(self, model: str | None = None) -> Int[Tensor, " edge"]:
        """In how many of a model's circuits each edge is."""
        return self.chosen[self.rows(model)].sum(dim=0)

    @functools.cached_property
    def pairs(self) -> tuple[PairOverlap, ...]:
        """Every two circuits that can be compared: of one model, or of two with the same seed."""
        sizes, shared = self.chosen.sum(dim=1).tolist(), (self.chosen.double() @ self.chosen.double().T).long()
        found = []
        for first, second in itertools.combinations(range(len(self.runs)), 2):
            between = self._between(self.runs[first], self.runs[second])
            if between is not None:
                own = (sizes[first], sizes[second])
                found.append(PairOverlap(first, second, between, int(shared[first, second]), own))
        return tuple(found)

    def _between(self, one: SearchRun, other: SearchRun) -> Between | None:
        same = one.seed == other.seed
        if one.model != other.model:
            if same:
                return "models" if one.part == other.part else "models, other prompts"
            return "models, other prompts" if self.sample == "parts" else None
        return "other prompts" if same or self.sample == "parts" else "shared prompts"

    def between(self, what: Between, models: Sequence[str] | None = None) -> list[PairOverlap]:
        """The pairs of that kind, of these models (default: of the first, and for kinds of two models, of all with it)."""
        models = self._named(what) if models is None else models
        kept = [one for one in self.pairs if one.between == what]
        return [one for one in kept if {self.runs[one.first].model, self.runs[one.second].model} == set(models)]

    def _named(self, what: Between) -> tuple[str, ...]:
        return self.models[:2] if what.startswith("models") else self.models[:1]

    def overlap(self, what: Between | None = None, models: Sequence[str] | None = None) -> Effect | None:
        """The mean overlap of pairs of that kind (default: `usual`), with the interval of a jackknife over seeds; None where
        there is no such pair."""
        found = self.between(what or self.usual, models)
        return self._mean(found, [one.overlap for one in found]) if found else None

    def _mean(self, pairs: Sequence[PairOverlap], values: Sequence[float]) -> Effect:
        seeds = {seed: place for place, seed in enumerate(dict.fromkeys(one.seed for one in self.runs))}
        members = [(seeds[self.runs[one.first].seed], seeds[self.runs[one.second].seed]) for one in pairs]
        return mean_over_pairs(torch.tensor(values, dtype=torch.float64), members, len(seeds))

    @property
    def usual(self) -> Between:
        """The kind of pairs by which circuits are called stable: those that share no prompt, where there are some."""
        return "other prompts" if self.sample in ("halves", "parts") else "shared prompts"

    def expected(self, null: Null = "readers", what: Between | None = None, models: Sequence[str] | None = None) -> float:
        """The mean overlap of as many pairs of random circuits that keep how many edges each has, as `null` says; exact."""
        found = self.between(what or self.usual, models)
        if not found:
            return math.nan
        counts, sizes = self._counts(null)
        values = [expected_overlap(shared_by_chance(counts[one.first], counts[one.second], sizes), *one.sizes) for one in found]
        return sum(values) / len(values)

    def _counts(self, null: Null) -> tuple[list[dict[int, int]], dict[int, int]]:
        blocks, sizes = blocks_of(self.graph, self.writers, self.readers, null)
        return counts_in(blocks, self.chosen), sizes

    def returning(self, model: str | None = None) -> list[tuple[int, int, float]]:
        """How often, how many edges of a model's circuits are found so often or more, and how many would by chance, each
        circuit drawn anew with as many edges into each reader."""
        rows, times = self.rows(model), self.times(model)
        counts, sizes = self._counts("readers")
        chance = returning_by_chance([counts[row] for row in rows], sizes)
        return [(often, int((times >= often).sum()), float(chance[often:].sum())) for often in range(1, len(rows) + 1)]

    @property
    def _from(self) -> str:
        return "" if self.graph.roles is None else " from each role"

    @property
    def summary(self) -> str:
        """How far circuits of other prompts meet, beside chance, and what the circuit of edges that hold keeps."""
        said, found, model = [], self.overlap(), self.models[0]
        sizes = self.chosen[self.rows()].sum(dim=1)
        size = f"{int(sizes.min()):,}" if sizes.min() == sizes.max() else f"{int(sizes.min()):,} to {int(sizes.max()):,}"
        if found is not None:
            said.append(
                f"{self.task} in {model}: circuits of {size} edges by {self.method}, {BETWEEN[self.usual]}, share "
                f"{found.effect:.0%} of all edges in either (95 % interval {found.low:.0%} to {found.high:.0%}); by chance "
                f"{self.expected('size'):.1%}, with as many edges into each reader{self._from} {self.expected():.1%}."
            )
        times, rows = self.times(), self.rows()
        said.append(
            f"Of {counted(int((times > 0).sum()), 'edge')} found at all, {int((times == len(rows)).sum()):,} are in all "
            f"{len(rows)} circuits, {int((2 * times >= len(rows)).sum()):,} in at least half."
        )
        said += [self._judged(one) for one in self.consensus if one.model == model and one.rule == "half"]
        for other in self.models[1:]:
            across = self.overlap("models", (model, other))
            said += [f"With {other} on the same prompts: {across.effect:.0%}."] if across is not None else []
        return " ".join(said)

    def _judged(self, one: Consensus) -> str:
        if one.faithfulness is None:
            return "No edge is in at least half of them." if not one.edges else ""
        own = [run.faithfulness.effect for run in self.runs if run.model == one.model and run.faithfulness is not None]
        single = f", the single ones {min(own):.2f} to {max(own):.2f}" if own else ""
        return (
            f"The latter by themselves keep {one.faithfulness.effect:.2f} of the behaviour on {self.held_out} held-out prompts "
            f"[{one.faithfulness.low:.2f}, {one.faithfulness.high:.2f}]{single}."
        )

    def to_dataframe(self, model: str | None = None) -> "pandas.DataFrame":
        """One row an edge, those most often found first: edge, times, of, score (mean where it is found), and a column a
        circuit (seed and half) with its score there.

        Args:
            model: whose circuits (default: the first's).
        """
        import pandas

        rows, names, times = self.rows(model), self.names(), self.times(model)
        scores = self.scores[rows].nanmean(dim=0)
        order = sorted(range(len(names)), key=lambda at: (-int(times[at]), -abs(_number(scores[at])), at))
        order = [at for at in order if times[at]]
        table: dict[str, Any] = {"edge": [names[at] for at in order], "times": times[order].tolist()}
        table |= {"of": len(rows), "score": scores[order].tolist()}
        for row in rows:
            one = self.runs[row]
            name = f"seed {one.seed}{'ab'[one.part] if self.sample == 'halves' else ''}"
            found = self.scores[row] if not bool(self.scores[row].isnan().all()) else self.chosen[row].double()
            table[name] = found[order].tolist()
        return pandas.DataFrame(table)

    def overlap_table(self) -> "pandas.DataFrame":
        """One row a kind of pair and pair of models: between, first, second, pairs, overlap, low, high, ceiling (what sizes
        allow), and what is expected by chance under each null."""
        import pandas

        rows = []
        for first, second in itertools.combinations_with_replacement(self.models, 2):
            for what in get_args(Between):
                found = self.between(what, (first, second))
                if not found:
                    continue
                mean = self._mean(found, [one.overlap for one in found])
                row: dict[str, Any] = {"between": what, "first": first, "second": second, "pairs": len(found)}
                row |= {"overlap": mean.effect, "low": mean.low, "high": mean.high}
                row["ceiling"] = sum(one.ceiling for one in found) / len(found)
                rows.append(row | {f"chance_{null}": self.expected(null, what, (first, second)) for null in NULLS})
        return pandas.DataFrame(rows)


def _number(value: Tensor) -> float:
    found = float(value)
    return 0.0 if math.isnan(found) else found
