"""Random circuits of a given size: what a circuit is compared with."""

import random
from collections.abc import Iterator

import torch

from circuits.errors import GraphError
from circuits.graph import Graph
from circuits.patching.subgraphs.members import Members

_TRIES = 50


def random_circuits(graph: Graph, size: int, seed: int) -> Iterator[Members]:
    """Random circuits of `size` edges without end: the same ones, in the same order, whoever asks for this size and seed, so
    that a verdict and a curve hold the same random circuits against a size that they share."""
    draw = random.Random(f"{seed} {size}")
    while True:
        yield random_paths(graph, size, draw)


def random_edges(graph: Graph, size: int, draw: random.Random) -> Members:
    """`size` edges of a graph of heads and MLPs, drawn from all."""
    whole = Members.whole(graph)
    rows = torch.tensor(sorted(draw.sample(range(len(whole)), size)), dtype=torch.long)
    return Members(graph, whole.writers[rows], whole.readers[rows])


def random_paths(graph: Graph, size: int, draw: random.Random) -> Members:
    """`size` edges on random paths from the input to the logits: walks back from the logits to a random writer each time, by a
    random slot of a head. What is left over when no whole path fits any more is part of one. More than a quarter of all edges
    are drawn from all. Raises GraphError for a size that the graph does not have."""
    if not 0 <= size <= graph.edge_count:
        raise GraphError(f"a random circuit of {size:,} edges: the graph has {graph.edge_count:,}")
    if not graph.neurons and size > graph.edge_count // 4:  # walks would meet themselves
        return random_edges(graph, size, draw)
    chosen: dict[tuple[int, int], None] = {}
    tries = 0
    while len(chosen) < size:
        path = [edge for edge in _walk(graph, draw) if edge not in chosen]
        tries += 1
        if len(chosen) + len(path) <= size or tries > _TRIES:
            chosen.update(dict.fromkeys(path[: size - len(chosen)]))
            tries = 0 if path else tries
    found = torch.tensor(list(chosen), dtype=torch.long).reshape(-1, 2)
    return Members(graph, found[:, 0], found[:, 1])


def _walk(graph: Graph, draw: random.Random) -> list[tuple[int, int]]:
    """Edges of a path as places of writer and reader, from the logits back to the input."""
    # By arithmetic on places (`graph/places.py`): thousands of walks are drawn, and records of nodes would take longer than
    # running some of the circuits.
    heads, groups, step = graph.n_heads, graph.n_key_value_heads, graph.n_heads + graph.mlp_writers
    readers, roles = graph.head_readers + graph.mlp_writers, graph.role_count
    # Roles: a walk stays at one but where it goes on from keys or values, to any that the queries' role looks at.
    role, looks = roles - 1, () if graph.roles is None else graph.roles.looks
    place, before, path = graph.reader_count - 1, graph.writer_count // roles, []
    while True:
        writer = draw.randrange(before)
        path.append((writer * roles + role, place))
        if writer == 0:
            return path
        layer, index = divmod(writer - 1, step)
        before = 1 + layer * step
        if index < heads:
            group = index // (heads // groups)
            slot = draw.choice(range(3))
            reader = layer * readers + (index, heads + group, heads + groups + group)[slot]
            place = reader * roles + role
            role = draw.choice(looks[role]) if looks and slot else role
        else:
            place = (layer * readers + graph.head_readers + index - heads) * roles + role
            before += 0 if graph.parallel else heads
