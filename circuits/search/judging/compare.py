"""What two circuits share, and where they differ."""

import dataclasses
import math

import pandas as pd
import torch

from circuits.errors import GraphError
from circuits.files.results import Result
from circuits.graph import Circuit, Edge, Node
from circuits.search.methods.table import sign_of
from circuits.statistics import spearman


@dataclasses.dataclass(frozen=True)
class Comparison(Result, format="circuits-comparison"):
    """Edges and nodes of two circuits of one graph, in the order of computation."""

    shared_edges: tuple[Edge, ...]
    only_first: tuple[Edge, ...]
    only_second: tuple[Edge, ...]
    shared_nodes: tuple[Node, ...]
    nodes_only_first: tuple[Node, ...]
    nodes_only_second: tuple[Node, ...]
    opposite: tuple[Edge, ...]
    """Shared edges of which one circuit says that they support the metric, the other that they oppose it; none where the
    meaning of a sign is not known (`supporting_sign`)."""
    rank_correlation: float | None
    """Spearman's correlation of the sizes of the scores of shared edges; None where fewer than three have both scores."""

    @property
    def edge_overlap(self) -> float:
        """Shared edges over all edges of either (Jaccard index), 0 to 1."""
        return _jaccard(len(self.shared_edges), len(self.only_first), len(self.only_second))

    @property
    def node_overlap(self) -> float:
        """The same of nodes."""
        return _jaccard(len(self.shared_nodes), len(self.nodes_only_first), len(self.nodes_only_second))

    @property
    def summary(self) -> str:
        """The comparison in a sentence or two."""
        words = [
            f"{len(self.shared_edges):,} edges are in both ({self.edge_overlap:.0%} of all in either), "
            f"{len(self.only_first):,} only in the first, {len(self.only_second):,} only in the second; "
            f"{len(self.shared_nodes)} nodes are in both ({self.node_overlap:.0%})."
        ]
        if self.rank_correlation is not None:
            words.append(f"Scores of shared edges: rank correlation {self.rank_correlation:.2f}.")
        if self.opposite:
            words.append(f"{len(self.opposite)} shared edges support the metric in one and oppose it in the other.")
        return " ".join(words)

    def to_dataframe(self) -> pd.DataFrame:
        """One row an edge or node: kind, name, where ("both", "first", "second")."""
        parts = (
            ("edge", "both", self.shared_edges),
            ("edge", "first", self.only_first),
            ("edge", "second", self.only_second),
            ("node", "both", self.shared_nodes),
            ("node", "first", self.nodes_only_first),
            ("node", "second", self.nodes_only_second),
        )
        rows = [{"kind": kind, "name": str(name), "where": where} for kind, where, names in parts for name in names]
        return pd.DataFrame(rows, columns=["kind", "name", "where"])


def compare(first: Circuit, second: Circuit) -> Comparison:
    """Compare two circuits edge by edge and node by node. Raises GraphError for circuits of different graphs.

    Args:
        first: one circuit.
        second: another one of the same graph.

    >>> import circuits
    >>> graph = circuits.Graph(n_layers=1, n_heads=2, n_key_value_heads=2, d_mlp=0)
    >>> one = circuits.Circuit(graph, ["input->a0.h0<v>", "a0.h0->logits"])
    >>> two = circuits.Circuit(graph, ["a0.h0->logits", "a0.h1->logits"])
    >>> found = circuits.compare(one, two)
    >>> round(found.edge_overlap, 3)
    0.333
    """
    if first.graph != second.graph:
        raise GraphError(f"circuits of different graphs cannot be compared: {first.graph} and {second.graph}")
    shared = tuple(edge for edge in first.edges if edge in second.edges)
    scores = [(first.edges[edge], second.edges[edge]) for edge in shared]
    sign = supporting_sign(first) * supporting_sign(second)
    both = ((edge, a, b) for edge, (a, b) in zip(shared, scores, strict=True) if a is not None and b is not None)
    opposite = [edge for edge, a, b in both if a * b * sign < 0]
    known = [(abs(a), abs(b)) for a, b in scores if a is not None and b is not None]
    return Comparison(
        shared,
        tuple(edge for edge in first.edges if edge not in second.edges),
        tuple(edge for edge in second.edges if edge not in first.edges),
        tuple(node for node in first.nodes if node in second.nodes),
        tuple(node for node in first.nodes if node not in second.nodes),
        tuple(node for node in second.nodes if node not in first.nodes),
        tuple(opposite),
        _rank_correlation(known),
    )


def supporting_sign(circuit: Circuit) -> int:
    """The sign of scores that support the metric: 1, -1, or 0 where that is not known."""
    method, metric = circuit.metadata.get("method"), circuit.metadata.get("metric")
    if not isinstance(method, str) or metric == "kl_divergence":
        return 0
    own = circuit.metadata.get("supporting_sign")
    sign = own if isinstance(own, int) and own in (-1, 0, 1) else sign_of(method)
    return 1 if sign is None else sign  # a screening's effects, for one: positive = the edge supports the metric


def _jaccard(both: int, first: int, second: int) -> float:
    return both / (both + first + second) if both + first + second else 1.0


def _rank_correlation(sizes: list[tuple[float, float]]) -> float | None:
    """Of the sizes of both sides; None for fewer than three edges, and where one side's are all equal."""
    if len(sizes) < 3:
        return None
    found = spearman(*torch.tensor(sizes, dtype=torch.float64).T)
    return None if math.isnan(found) else found
