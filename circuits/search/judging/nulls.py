"""Random circuits of a given size: what a circuit is compared with."""

import random

import torch

from circuits.errors import GraphError
from circuits.graph import Edge, Graph, Node
from circuits.graph.places import places
from circuits.patching.subgraphs.members import Members

_TRIES = 50


def random_edges(graph: Graph, size: int, draw: random.Random) -> Members:
    """`size` edges of a graph of heads and MLPs, drawn from all."""
    whole = Members.whole(graph)
    rows = torch.tensor(sorted(draw.sample(range(len(whole)), size)), dtype=torch.long)
    return Members(graph, whole.writers[rows], whole.readers[rows])


def random_paths(graph: Graph, size: int, draw: random.Random) -> Members:
    """`size` edges on random paths from the input to the logits: walks back from the logits to a random writer each time, by a
    random slot of a head. What is left over when no whole path fits any more is part of one. Raises GraphError for a size that
    the graph does not have."""
    if not 0 <= size <= graph.edge_count:
        raise GraphError(f"a random circuit of {size:,} edges: the graph has {graph.edge_count:,}")
    if not graph.neurons and size > graph.edge_count // 4:  # walks would meet themselves
        return random_edges(graph, size, draw)
    chosen: dict[Edge, None] = {}
    tries = 0
    while len(chosen) < size:
        path = [edge for edge in _walk(graph, draw) if edge not in chosen]
        tries += 1
        if len(chosen) + len(path) <= size or tries > _TRIES:
            chosen.update(dict.fromkeys(path[: size - len(chosen)]))
            tries = 0 if path else tries
    writers, readers = places(graph, chosen)
    return Members(graph, torch.tensor(writers, dtype=torch.long), torch.tensor(readers, dtype=torch.long))


def _walk(graph: Graph, draw: random.Random) -> list[Edge]:
    from circuits.graph.places import writer_at

    reader, path = graph.reader("logits"), []
    while True:
        writer: Node = writer_at(graph, draw.randrange(graph.writers_before(reader)))
        path.append(Edge(writer, reader.node, reader.slot))
        if writer.kind == "input":
            return path
        reader = graph.reader_of(writer, draw.choice(("q", "k", "v"))) if writer.kind == "head" else graph.reader(str(writer))
