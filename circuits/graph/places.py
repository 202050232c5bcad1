"""Nodes, readers and edges as numbers, both ways: places in the order of computation, by arithmetic. In a graph with roles each
node's places, one a role, stand together."""

from collections.abc import Iterable, Sequence

from circuits.errors import GraphError
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node, Reader, Slot


def writer_at(graph: Graph, place: int) -> Node:
    """The node of that place among those that write: the inverse of `graph.writer_index`. Raises GraphError outside."""
    if not 0 <= place < graph.writer_count:
        raise GraphError(f"no writer at place {place}: the graph has {graph.writer_count:,}")
    place, at = _role(graph, place)
    if place == 0:
        return Node("input", at=at)
    layer, index = divmod(place - 1, graph.n_heads + graph.mlp_writers)
    if index < graph.n_heads:
        return Node("head", layer, index, at)
    return Node("neuron", layer, index - graph.n_heads) if graph.neurons else Node("mlp", layer, at=at)


def _role(graph: Graph, place: int) -> tuple[int, str | None]:
    """A place as it would be without roles, and the role."""
    if graph.roles is None:
        return place, None
    place, role = divmod(place, len(graph.roles))
    return place, graph.roles.names[role]


def reader_at(graph: Graph, place: int) -> Reader:
    """The reader of that place: the inverse of `graph.reader_index`. Raises GraphError outside."""
    if not 0 <= place < graph.reader_count:
        raise GraphError(f"no reader at place {place}: the graph has {graph.reader_count:,}")
    if place == graph.reader_count - 1:
        return Reader(Node("logits", at=None if graph.roles is None else graph.roles.end))
    place, at = _role(graph, place)
    layer, index = divmod(place, graph.head_readers + graph.mlp_writers)
    groups = graph.n_key_value_heads
    slots: tuple[tuple[Slot, int], ...] = (("q", graph.n_heads), ("k", groups), ("v", groups))
    for slot, count in slots:
        if index < count:
            return Reader(Node("head", layer, index, at), slot)
        index -= count
    return Reader(Node("neuron", layer, index) if graph.neurons else Node("mlp", layer, at=at))


def edge_at(graph: Graph, writer: int, reader: int) -> Edge:
    """The edge between two places. Raises GraphError where there is none."""
    target = reader_at(graph, reader)
    return Edge(writer_at(graph, writer), target.node, target.slot)


def places(graph: Graph, edges: Iterable[Edge]) -> tuple[list[int], list[int]]:
    """The writers' and the readers' places of edges of the graph, in their order."""
    writers: dict[Node, int] = {}
    readers: dict[Reader, int] = {}
    found: tuple[list[int], list[int]] = ([], [])
    for edge in edges:
        writer, target = edge.writer, edge.target
        if writer not in writers:
            writers[writer] = graph.writer_index(writer)
        if target not in readers:
            readers[target] = graph.reader_index(target)
        found[0].append(writers[writer])
        found[1].append(readers[target])
    return found


def reads_from(graph: Graph) -> Sequence[int]:
    """For every reader by place, how many writers come before it: it reads the first so many, of a graph with roles those that
    `linked` says."""
    roles = graph.role_count
    before, step = roles, roles * (graph.n_heads + graph.mlp_writers)
    counts: list[int] = []
    for _ in range(graph.n_layers):
        counts += [before] * (graph.head_readers * roles)
        counts += [before + (0 if graph.parallel else graph.n_heads * roles)] * (graph.mlp_writers * roles)
        before += step
    return [*counts, before]


def role_links(graph: Graph) -> list[list[bool]]:
    """For every reader by place, at which roles it reads; one role for all in a graph without."""
    roles = graph.role_count
    if graph.roles is None:
        return [[True]] * graph.reader_count
    own = [[role == other for role in range(roles)] for other in range(roles)]
    looks = [[role in seen for role in range(roles)] for seen in graph.roles.looks]
    layer = own * graph.n_heads + looks * (2 * graph.n_key_value_heads) + own * graph.mlp_writers
    return [*layer * graph.n_layers, own[-1]]


def target_places(graph: Graph, reader: int) -> range:
    """The places among the nodes that write of those that compute with a reader; the logits come after them all."""
    if reader == graph.reader_count - 1:
        return range(graph.writer_count, graph.writer_count + 1)
    (reader, role), roles = divmod(reader, graph.role_count), graph.role_count
    layer, index = divmod(reader, graph.head_readers + graph.mlp_writers)
    start, size = 1 + layer * (graph.n_heads + graph.mlp_writers), 1
    if index < graph.n_heads:
        start += index
    elif index >= graph.head_readers:
        start += graph.n_heads + index - graph.head_readers
    else:
        size = graph.n_heads // graph.n_key_value_heads
        start += (index - graph.n_heads) % graph.n_key_value_heads * size
    return range(start * roles + role, (start + size) * roles + role, roles)


def on_paths(graph: Graph, writers: Sequence[int], readers: Sequence[int]) -> list[bool]:
    """Which edges, given by places and sorted by writer, lie on a path from the input to the logits."""
    ends = {reader: target_places(graph, reader) for reader in set(readers)}
    reached, reaching = set(range(graph.role_count)), {graph.writer_count}
    for writer, reader in zip(writers, readers, strict=True):
        if writer in reached:
            reached.update(ends[reader])
    for writer, reader in zip(reversed(writers), reversed(readers), strict=True):
        if writer not in reaching and any(end in reaching for end in ends[reader]):
            reaching.add(writer)
    return [
        writer in reached and any(end in reaching for end in ends[reader])
        for writer, reader in zip(writers, readers, strict=True)
    ]
