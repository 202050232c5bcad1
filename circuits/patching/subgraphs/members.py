"""Circuits as tables of places, which is what running many of them at once needs."""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.errors import GraphError
from circuits.graph import Circuit, Graph
from circuits.graph.places import places, reads_from, role_links


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
    """The edges of one circuit, by the places of their writers and readers in the order of computation."""

    graph: Graph
    writers: Int[Tensor, " edge"]
    readers: Int[Tensor, " edge"]

    @classmethod
    def of(cls, circuit: "Circuit | Members") -> "Members":
        """The edges of a circuit."""
        if isinstance(circuit, Members):
            return circuit
        writers, readers = places(circuit.graph, circuit.edges)
        return cls(circuit.graph, torch.tensor(writers, dtype=torch.long), torch.tensor(readers, dtype=torch.long))

    @classmethod
    def whole(cls, graph: Graph) -> "Members":
        """Every edge of a graph of heads and MLPs."""
        writers, readers = is_edge(graph).nonzero(as_tuple=True)
        return cls(graph, writers, readers)

    def __len__(self) -> int:
        return len(self.writers)

    def without(self, nodes: Iterable[int]) -> "Members":
        """The edges that do not leave any of these writers' places."""
        kept = ~torch.isin(self.writers, torch.tensor(sorted(nodes), dtype=torch.long))
        return Members(self.graph, self.writers[kept], self.readers[kept])


def is_edge(graph: Graph) -> Bool[Tensor, "writer reader"]:
    """Where a graph of heads and MLPs has edges."""
    before = torch.arange(graph.writer_count)[:, None] < torch.tensor(reads_from(graph))[None]
    if graph.roles is None:
        return before
    return before.logical_and_(torch.tensor(role_links(graph)).T.repeat(graph.writer_count // graph.role_count, 1))


def are_edges(graph: Graph, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"]) -> Bool[Tensor, " edge"]:
    """Which of some pairs of places, those of readers inside the graph, are edges of it."""
    before = writers < torch.tensor(reads_from(graph))[readers]
    if graph.roles is None:
        return before
    return before & torch.tensor(role_links(graph))[readers, writers % graph.role_count]


def check(graph: Graph, circuits: Sequence[Members]) -> None:
    """Raise GraphError unless all circuits are of this graph, and their edges are edges."""
    for members in circuits:
        if members.graph != graph:
            raise GraphError(f"a circuit of another graph: {members.graph} where the model has {graph}")
        if len(members) and not bool(are_edges(graph, members.writers, members.readers).all()):
            raise GraphError("a circuit holds an edge whose writer does not feed its reader")
