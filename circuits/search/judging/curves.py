"""Faithfulness over circuit sizes."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.scores import By, EdgeScores
from circuits.errors import CircuitsError
from circuits.files.fields import stored
from circuits.files.results import Result
from circuits.graph import Graph
from circuits.models import Model
from circuits.models.memory import BUDGET
from circuits.patching.nodes import about
from circuits.patching.subgraphs.members import Members
from circuits.patching.subgraphs.outside import OutsideKind
from circuits.progress import Progress
from circuits.search.judging.extent import null_prompts
from circuits.search.judging.judge import Judge
from circuits.search.judging.nulls import random_circuits
from circuits.search.judging.verdict import Verdict
from circuits.statistics import Effect
from circuits.tasks import PromptPairs
from circuits.tasks.metric import AnyMetric

MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all edges at which MIB measures (Mueller et al. 2025)."""

ON_PATHS = "random paths"
"""What `metadata["null"]` of a curve says; without it, in files of earlier versions, random edges were drawn from all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Curve(Result, format="circuits-faithfulness"):
    """Faithfulness of circuits of growing size: 0 = as the corrupt prompts (or the empty circuit), 1 = as the whole model."""

    shares: tuple[float, ...] = dataclasses.field(metadata=stored(axis="size"))
    """Shares of all edges, growing."""
    edges: tuple[int, ...] = dataclasses.field(metadata=stored(axis="size"))
    faithfulness: tuple[Effect, ...] = dataclasses.field(metadata=stored(axis="size"))
    """With 95 % intervals over prompts."""
    null: Float[Tensor, "draw size"]
    """Faithfulness of as many edges on random paths (`metadata["null"]`), the same that a verdict of that size and seed draws
    first, on the first few prompts (`metadata["random_prompts"]`)."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(self.shares), len(self.edges), len(self.faithfulness), self.null.shape[-1]}
        if len(sizes) > 1 or self.null.ndim != 2:
            raise CircuitsError(
                f"a curve needs shares, edges, faithfulness and null values of as many sizes, got {sorted(sizes)}"
            )

    @property
    def random_name(self) -> str:
        """What its random circuits are called."""
        return "random circuits" if self.metadata.get("null") == ON_PATHS else "random sets of edges"

    @property
    def summary(self) -> str:
        """The areas of the curve, and how far its largest circuit goes."""
        last = f"{self.edges[-1]:,} edges keep {self.faithfulness[-1].effect:z.2f}" if self.edges else "no size"
        return f"CPR {self.cpr:z.3f}, CMD {self.cmd:z.3f} over {len(self.edges)} sizes; {last}."

    @property
    def cpr(self) -> float:
        """Area under the curve, linear in the share of edges, from the smallest size on; higher is better (MIB)."""
        return self._area([one.effect for one in self.faithfulness])

    @property
    def cmd(self) -> float:
        """Area between the curve and 1; lower is better (MIB)."""
        return self._area([abs(1 - one.effect) for one in self.faithfulness])

    def _area(self, heights: list[float]) -> float:
        points = list(zip(self.shares, heights, strict=True))
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))

    def to_dataframe(self) -> pd.DataFrame:
        """One row a size: share, edges, faithfulness, low, high, and the random circuits' mean and largest."""
        rows = []
        for index, (share, edges, one) in enumerate(zip(self.shares, self.edges, self.faithfulness, strict=True)):
            row = {"share": share, "edges": edges, "faithfulness": one.effect, "low": one.low, "high": one.high}
            if len(self.null):
                row |= {"random_mean": float(self.null[:, index].mean()), "random_max": float(self.null[:, index].max())}
            rows.append(row)
        return pd.DataFrame(rows)


def faithfulness_curve(
    model: Model,
    scores: EdgeScores,
    pairs: PromptPairs,
    metric: AnyMetric,
    *,
    shares: Sequence[float] = MIB_SIZES,
    by: By = "size",
    outside: OutsideKind = "corrupt",
    random_orders: int = 5,
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Curve:
    """Run the strongest edges alone, for each share of all edges, and as many on random paths (drawn from all where they are
    more than a quarter; on the first 8 prompts, in graphs of 96 nodes or more the first 4): all on one pair of base runs.
    Raises CircuitsError for shares outside 0 to 1 and for scores of some edges alone.

    Args:
        model: the model that was scored.
        scores: a score for every edge.
        pairs: prompts to run on, which should be held out: others than the scores were made on.
        metric: what is measured: a metric of `circuits.metrics`, or a function of one's own from logits and pairs.
        shares: parts of all edges that are kept, each from 0 to 1.
        by: strongest by |score| ("size"), or by how much they support the metric ("support").
        outside: what edges outside the circuit carry: the corrupt prompts' values ("corrupt"), their mean, or zero.
        random_orders: how many random circuits of each size stand beside.
        seed: that of the random circuits.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    judge = Judge(model, pairs, metric, outside=outside, neurons=scores.graph.neurons, budget=budget, progress=progress)
    return curve_of(judge, scores, shares=shares, by=by, random_orders=random_orders, seed=seed)


def curve_of(
    judge: Judge,
    scores: EdgeScores,
    *,
    shares: Sequence[float] = MIB_SIZES,
    by: By = "size",
    random_orders: int = 5,
    seed: int = 0,
    beside: Verdict | None = None,
) -> Curve:
    """`faithfulness_curve` on base runs that are there already. `beside`: a verdict by this judge and seed, whose random
    circuits are not run again."""
    if not shares or any(not 0 < share <= 1 for share in shares):
        raise CircuitsError("shares of edges lie above 0 and at most at 1")
    if not scores.complete:
        raise CircuitsError(f"a curve needs a score of every edge; {len(scores):,} of {scores.graph.edge_count:,} were kept")
    shares = tuple(sorted(set(shares)))
    sizes = [max(1, round(share * len(scores))) for share in shares]
    order, graph = scores.order(by), scores.graph
    circuits = [_chosen(scores, order[:size]) for size in sizes]
    few = judge.few(null_prompts(graph.writer_count - 1))
    if beside is not None and beside.null:  # on the same prompts, so that those of its size are at hand
        few = judge.first(beside.metadata.get("random_prompts", beside.prompts))
    points = judge.effects(judge.changes(circuits, "running circuits of all sizes"), seed=seed)
    known = {} if beside is None else _known(beside, random_orders, len(few.gap))
    null = _random(few, graph, sizes, random_orders, seed, known)
    setting = {"outside": judge.outside, "by": by, "prompts": len(judge.gap), "seed": seed}
    setting |= {"random_prompts": len(few.gap)} if few is not judge else {}
    setting |= {"null": ON_PATHS} if random_orders else {}
    details = about(judge.model, judge.metric, **setting, scores=dict(scores.metadata))
    return Curve(shares, tuple(sizes), tuple(points), null, details)


def _known(verdict: Verdict, random_orders: int, prompts: int) -> dict[int, list[float]]:
    """The random circuits of a verdict by their size, where there are so many on so many prompts."""
    there = verdict.metadata.get("random_prompts", verdict.prompts) == prompts and len(verdict.null) >= random_orders
    return {verdict.edges: list(verdict.null[:random_orders])} if there else {}


def _random(
    judge: Judge, graph: Graph, sizes: Sequence[int], count: int, seed: int, known: Mapping[int, Sequence[float]]
) -> Float[Tensor, "draw size"]:
    """So many random circuits of each size, those of a size that is `known` as they are."""
    wanted = [size for size in dict.fromkeys(sizes) if size not in known]
    drawn = [one for size in wanted for one in itertools.islice(random_circuits(graph, size, seed), count)]
    values = judge.faithfulness(drawn, "running random circuits of all sizes").reshape(len(wanted), count).tolist()
    found = {**known, **dict(zip(wanted, values, strict=True))}
    return torch.tensor([found[size] for size in sizes], dtype=torch.float64).reshape(len(sizes), count).T.contiguous()


def _chosen(scores: EdgeScores, rows: Tensor) -> Members:
    rows = rows.sort().values
    return Members(scores.graph, scores.writers[rows], scores.readers[rows])
