"""Scores of edges: all of a graph of heads and MLPs, or the largest of a graph of neurons."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.completeness import said_of
from circuits.errors import CircuitsError, GraphError, NonFiniteError
from circuits.files.fields import stored
from circuits.files.pictures import drawing_of
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.graph import Circuit, Edge, Graph
from circuits.graph.places import edge_at, on_paths, places
from circuits.patching.subgraphs.members import are_edges, is_edge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

By = Literal["size", "support"]


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeScores(Result, format="circuits-edge-scores"):
    """A score an edge: how far the metric moves, mean over prompts, if the edge alone carries its corrupt value (in the
    metric's unit; negative: the edge supports the metric); of `prune_edges` and `shrink`, how surely or long the edge was kept
    (never negative). Edges stand in the order of computation."""

    graph: Graph
    writers: Int[Tensor, " edge"]
    """Each edge's writer, as its place in the order of computation; `readers` likewise."""
    readers: Int[Tensor, " edge"]
    by_label: Float[Tensor, "label edge"] = dataclasses.field(metadata=stored(key="scores"))
    errors: Float[Tensor, "label edge"] = dataclasses.field(metadata=stored(missing=True))
    """Standard errors of the means over prompts; 0 for a single prompt, NaN where they were not measured."""
    labels: tuple[str, ...] = dataclasses.field(default=("",), metadata=stored(axis="label"))
    """Positions or roles at which the readers read; "" for all together."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shares: Float[Tensor, " label"] | None = dataclasses.field(default=None, metadata=stored(optional=True))
    """The share of prompts that have each position, over which its scores are means (None: all of them have all)."""

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(self.writers))
        if tuple(self.by_label.shape) != shape or tuple(self.errors.shape) != shape or len(self.readers) != shape[1]:
            raise CircuitsError(f"{shape[1]} edges and {shape[0]} labels, but scores of shape {tuple(self.by_label.shape)}")
        if not bool(self.by_label.isfinite().all()):
            label, index = (~self.by_label.isfinite()).nonzero()[0].tolist()
            raise NonFiniteError(f"the score of {self._edge(index)} is {float(self.by_label[label, index])}")
        self._require_edges()

    def _require_edges(self) -> None:
        """Raise CircuitsError unless all are edges of the graph, once each and in the order of computation."""
        writers, readers = self.writers.cpu(), self.readers.cpu()
        inside = (readers >= 0) & (readers < self.graph.reader_count) & (writers >= 0)
        if not bool(inside.all()) or not bool(are_edges(self.graph, writers, readers).all()):
            raise CircuitsError("an edge lies outside the graph, or its writer does not feed its reader")
        if bool(((writers * self.graph.reader_count + readers).diff() <= 0).any()):
            raise CircuitsError("edges must stand once each, in the order of computation")

    @classmethod
    def dense(cls, graph: Graph, scores: Tensor, errors: Tensor, **more: Any) -> "EdgeScores":
        """From matrices `[label writer reader]`; entries that are no edges are left out."""
        writers, readers = is_edge(graph).nonzero(as_tuple=True)
        return cls(graph, writers, readers, scores[:, writers, readers].double(), errors[:, writers, readers].double(), **more)

    @classmethod
    def listed(cls, graph: Graph, scores: Tensor, errors: Tensor, **more: Any) -> "EdgeScores":
        """From one number an edge `[label edge]`, in the order of `graph.edges()`."""
        writers, readers = is_edge(graph).nonzero(as_tuple=True)
        order = torch.tensor(places(graph, graph.edges()))
        place = torch.empty(graph.writer_count, graph.reader_count, dtype=torch.long)
        place[order[0], order[1]] = torch.arange(order.shape[1])
        rows = place[writers, readers]
        return cls(graph, writers, readers, scores[:, rows].double(), errors[:, rows].double(), **more)

    def __len__(self) -> int:
        return len(self.writers)

    @property
    def summary(self) -> str:
        """How many edges have a score, the strongest, and how far the input's edges are from adding up to the whole gap."""
        row = self.order()[:1].tolist()
        strongest = "".join(f"; strongest {self._edge(one)} {float(self.values[one]):+.3g}" for one in row)
        complete = said_of(self.metadata.get("completeness"))
        more = f"; {complete}" if complete else ""
        return f"{len(self):,} of {counted(self.graph.edge_count, 'edge')}{self._method()}{strongest}{more}."

    def _method(self) -> str:
        return f" by {self.metadata['method']}" if self.metadata.get("method") else ""

    @property
    def complete(self) -> bool:
        """Whether every edge of the graph has a score."""
        return len(self) == self.graph.edge_count

    @property
    def values(self) -> Float[Tensor, " edge"]:
        """Every edge's score, summed over labels: of several, each counts for the share of prompts that have it."""
        if self.shares is None or len(self.labels) == 1:
            return self.by_label.sum(dim=0)
        return (self.shares.to(self.by_label)[:, None] * self.by_label).sum(dim=0)

    def matrix(self) -> Float[Tensor, "writer reader"]:
        """Scores by writer and reader, 0 where there is no edge or no score. Raises GraphError for a graph of neurons."""
        if self.graph.neurons:
            raise GraphError("a matrix of all edges between neurons is too large to hold")
        found = torch.zeros(self.graph.writer_count, self.graph.reader_count, dtype=torch.float64)
        found[self.writers, self.readers] = self.values
        return found

    def _edge(self, index: int) -> Edge:
        return edge_at(self.graph, int(self.writers[index]), int(self.readers[index]))

    def edges(self) -> list[Edge]:
        """The scored edges, in order."""
        return [self._edge(index) for index in range(len(self))]

    def of(self, edge: str | Edge) -> float:
        """One edge's score. Raises GraphError for an edge that the graph or the scores lack."""
        checked = self.graph.edge(edge)
        (writer,), (reader,) = places(self.graph, [checked])
        found = ((self.writers == writer) & (self.readers == reader)).nonzero()
        if not len(found):
            raise GraphError(f"{checked} has no score: {len(self):,} of {self.graph.edge_count:,} edges were kept")
        return float(self.values[int(found[0])])

    def order(self, by: By = "size") -> Int[Tensor, " edge"]:
        """Edges from the strongest down: by |score|, or by how much they support the metric (most negative first). Of equal
        ones the earlier in computation comes first."""
        if by not in ("size", "support"):
            raise CircuitsError(f"edges are ordered by size or by support, not by {by!r}")
        keys = self.values.abs() if by == "size" else -self.values
        return keys.argsort(descending=True, stable=True)

    def top(self, k: int, *, by: By = "size", connected: bool = False) -> Circuit:
        """The k strongest edges (`order`) with their scores, as a circuit. `connected`: of the strongest edges so many that
        k of them, or as many as there are, lie on paths from input to logits; others are left out. Raises GraphError for a
        negative k."""
        if not isinstance(k, int) or isinstance(k, bool) or k < 0:
            raise GraphError(f"top takes a whole number of edges from 0 on, got {k!r}")
        return self.circuit(self.rows(k, by=by, connected=connected))

    def rows(self, k: int, *, by: By = "size", connected: bool = False) -> Int[Tensor, " chosen"]:
        """The rows of the edges that `top` takes."""
        order = self.order(by)
        if not connected:
            return order[:k]
        best, low, high = order[:0], min(k, len(order)), min(2 * k, len(order))
        # Most of what is strong lies on paths: more edges are looked at only where that leaves too few.
        while high < len(order) and len(self._on_paths(order[:high])) <= k:
            low, high = high, min(2 * high + 1, len(order))
        while low <= high:
            middle = (low + high) // 2
            trial = self._on_paths(order[:middle])
            if len(trial) <= k:
                best, low = trial, middle + 1
            else:
                high = middle - 1
        return best

    def _on_paths(self, rows: Tensor) -> Tensor:
        """Those of some edges that lie on paths made of them."""
        rows = rows.sort().values
        kept = on_paths(self.graph, self.writers[rows].tolist(), self.readers[rows].tolist())
        return rows[torch.tensor(kept, dtype=torch.bool)]

    def circuit(self, rows: Tensor | Sequence[int]) -> Circuit:
        """The edges of these rows, with their scores."""
        rows = torch.as_tensor(rows, dtype=torch.long).sort().values
        values = self.values[rows].tolist()
        edges = {str(self._edge(int(row))): value for row, value in zip(rows, values, strict=True)}
        return Circuit(self.graph, edges, metadata=dict(self.metadata))

    def nodes(self) -> dict[str, float]:
        """For every writer the sum of its edges' |score|, by name, strongest first."""
        from circuits.graph.places import writer_at

        sums = torch.zeros(self.graph.writer_count, dtype=torch.float64).index_add_(0, self.writers, self.values.abs())
        order = sums.argsort(descending=True, stable=True)
        order = order[sums[order] > 0].tolist()
        return {str(writer_at(self.graph, place)): float(sums[place]) for place in order}

    def to_dataframe(self) -> pd.DataFrame:
        """One row an edge, strongest first: edge, writer, reader, score, error (standard error over prompts; NaN where
        labels were summed)."""
        rows = self.order().tolist()
        found, values, errors = (
            [self._edge(row) for row in rows],
            self.values[rows],
            self._error_of_sum()[rows],
        )
        table = {
            "edge": [str(edge) for edge in found],
            "writer": [str(edge.writer) for edge in found],
            "reader": [str(edge.target) for edge in found],
            "score": values.tolist(),
            "error": errors.tolist(),
        }
        return pd.DataFrame(table)

    def _error_of_sum(self) -> Float[Tensor, " edge"]:
        """Standard errors of `values`; NaN where several labels were summed, whose errors go together in ways not kept."""
        return self.errors[0] if len(self.labels) == 1 else torch.full_like(self.errors[0], float("nan"))

    def plot(self, *, edges: int = 40) -> "Figure":
        """The strongest edges as a graph by layers: width = |score|, colour = sign."""
        return drawing_of(EdgeScores)(self, edges=edges)
