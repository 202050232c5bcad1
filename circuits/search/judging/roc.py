"""Scores against a known circuit: receiver operating characteristic, precision and recall."""

import dataclasses
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution import EdgeScores
from circuits.errors import CircuitsError
from circuits.files.results import Result
from circuits.graph import Circuit
from circuits.graph.places import writer_at


@dataclasses.dataclass(frozen=True, eq=False)
class Roc(Result, format="circuits-roc"):
    """How well scores tell the members of a known circuit from the rest, threshold by threshold (ties go together)."""

    false_positives: Float[Tensor, " threshold"]
    """Share of the others that score as high; `true_positives`: share of the members that do."""
    true_positives: Float[Tensor, " threshold"]
    auroc: float
    """Chance that a member scores above another, ties counting half."""
    precision: float
    """Share of members among as many of the highest as there are members; equals the recall there."""
    members: int
    others: int

    @property
    def summary(self) -> str:
        """The area, and the precision among as many as there are members."""
        found = f"precision {self.precision:.2f} at {self.members:,} members of {self.members + self.others:,}"
        return f"AUROC {self.auroc:.3f}, {found}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row a threshold, the strictest first: shares of the others and of the members that score as high."""
        columns = {"false_positives": self.false_positives.tolist(), "true_positives": self.true_positives.tolist()}
        return pd.DataFrame(columns)


def roc(scores: Mapping[str, float] | EdgeScores, truth: Iterable[str] | Circuit, *, excluded: Iterable[str] = ()) -> Roc:
    """The curve of |score| against a known circuit: of edges or of nodes. Raises CircuitsError where either class is empty or
    a member has no score.

    Args:
        scores: of edges (an EdgeScores, or a mapping by name), or of nodes (a mapping by name).
        truth: the known circuit, or the names of its members.
        excluded: names that belong to neither class.

    >>> import circuits
    >>> circuits.roc({"a": 3.0, "b": -2.0, "c": 1.0, "d": 0.0}, ["a", "c"]).auroc
    0.75
    """
    if isinstance(scores, EdgeScores):
        scores = dict(zip(map(str, scores.edges()), scores.values.tolist(), strict=True))
    left_out = set(excluded)
    positive = {str(name) for name in (truth.edges if isinstance(truth, Circuit) else truth)} - left_out
    if missing := sorted(positive - scores.keys()):
        raise CircuitsError(f"{missing[0]} belongs to the known circuit and has no score ({len(missing)} such)")
    names = [name for name in scores if name not in left_out]
    values = torch.tensor([abs(scores[name]) for name in names], dtype=torch.float64)
    labels = torch.tensor([name in positive for name in names], dtype=torch.bool)
    members, others = int(labels.sum()), int((~labels).sum())
    if not members or not others:
        raise CircuitsError(f"{members} members of the known circuit and {others} others: both classes must have some")
    levels, place = (-values).unique(return_inverse=True)
    hits = torch.bincount(place[labels], minlength=len(levels)).double()
    misses = torch.bincount(place[~labels], minlength=len(levels)).double()
    zero = torch.zeros(1, dtype=torch.float64)
    true, false = (torch.cat([zero, part.cumsum(0) / part.sum()]) for part in (hits, misses))
    area = float((misses * (hits.cumsum(0) - hits / 2)).sum()) / (members * others)
    return Roc(false, true, area, _precision(hits, misses, members), members, others)


def _precision(hits: Tensor, misses: Tensor, size: int) -> float:
    """Expected share of members among the `size` highest, ties drawn at random."""
    counts = hits + misses
    before = counts.cumsum(0) - counts
    taken = (size - before).clamp(min=0).minimum(counts)
    return float((hits * taken / counts).sum() / size)


def node_scores(scores: EdgeScores) -> dict[str, float]:
    """Every node's largest |score| of an edge that leaves it (of the logits: that enters them), by name."""
    sizes, count = scores.values.abs(), scores.graph.writer_count
    largest = torch.zeros(count, dtype=torch.float64).scatter_reduce_(0, scores.writers, sizes, "amax")
    found = {str(writer_at(scores.graph, place)): value for place, value in enumerate(largest.tolist())}
    into = sizes[scores.readers == scores.graph.reader_count - 1]
    return {**found, "logits": float(into.max()) if len(into) else 0.0}
