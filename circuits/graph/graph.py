"""The computational graph of a transformer of a given shape: which node may feed which, by arithmetic, nothing stored.

In the order of computation the nodes that a reader reads are always a prefix of the nodes that write, so the graph is a
staircase: an edge exists exactly where `writer_index(writer) < writers_before(reader)`. With roles of tokens every node stands
there once a role, and an edge exists where, besides, its reader reads at the writer's role (`roles.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from circuits.errors import GraphError, shown
from circuits.files.fields import stored
from circuits.graph import counts
from circuits.graph.nodes import Edge, Node, NodeKind, Reader, Slot
from circuits.graph.roles import Roles

_LIMITS = {"n_layers": (0, 10_000), "n_heads": (1, 10_000), "n_key_value_heads": (1, 10_000), "d_mlp": (0, 10_000_000)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """Every node and edge of a transformer of one shape.

    Each head reads in three slots (q, k, v); with grouped keys the k and v readers are the `n_key_value_heads` groups
    of a layer, numbered by group. `d_mlp=0` (or None) means attention only. With `parallel` blocks an MLP does not read
    the heads of its own layer. With `neurons` every MLP is replaced by its neurons, as writers and as readers. With `roles`
    (of whole MLPs alone) there is every node at every role of tokens, the logits at the last. Two graphs are equal when they
    have the same nodes and edges (the width of whole MLPs makes no difference).
    Conventions: MIB (Mueller et al. 2025) and EAP-IG (Hanna et al. 2024). Raises GraphError for an impossible shape.

    >>> import circuits
    >>> graph = circuits.Graph(n_layers=2, n_heads=1, n_key_value_heads=1, d_mlp=8)
    >>> graph.edge_count, [str(writer) for writer in graph.writers(graph.reader("a1.h0<k>"))]
    (23, ['input', 'a0.h0', 'm0'])
    """

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_mlp: int | None
    parallel: bool = False
    neurons: bool = False
    roles: Roles | None = field(default=None, metadata=stored(optional=True))

    def __post_init__(self) -> None:
        if self.d_mlp is None:
            object.__setattr__(self, "d_mlp", 0)
        for name, (lowest, highest) in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
                raise GraphError(f"a graph's {name} is a whole number from {lowest} to {highest}, got {shown(value)}")
        if self.n_heads % self.n_key_value_heads:
            raise GraphError(f"{self.n_heads} heads cannot share {self.n_key_value_heads} key-value heads; expected a divisor")
        if self.neurons and self.roles is not None:
            raise GraphError("a graph of single neurons has no roles of tokens: take whole MLPs")

    @property
    def _structure(self) -> tuple[object, ...]:
        width = self.mlp_writers
        kinds = (self.parallel, self.neurons) if width else (False, False)
        shape = (self.n_layers, self.n_heads, self.n_key_value_heads, width, *kinds) if self.n_layers else (0,)
        return (*shape, self.roles)

    def __eq__(self, other: object) -> bool:
        return self._structure == other._structure if isinstance(other, Graph) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._structure)

    # Sizes

    @property
    def mlp_writers(self) -> int:
        """Nodes that a layer's MLP counts as: none, one whole, or one a neuron."""
        width = self.d_mlp or 0
        return width if self.neurons else min(width, 1)

    @property
    def head_readers(self) -> int:
        """Inputs of a layer's attention: a query a head, and a key and a value a key-value head."""
        return self.n_heads + 2 * self.n_key_value_heads

    @property
    def grouped(self) -> bool:
        """Whether several heads share one key-value head."""
        return self.n_key_value_heads < self.n_heads

    @property
    def role_count(self) -> int:
        """How often every node but the logits stands in the graph: once a role, or once."""
        return 1 if self.roles is None else len(self.roles)

    @property
    def writer_count(self) -> int:
        """Nodes that write to the residual stream: all but the logits."""
        return (1 + self.n_layers * (self.n_heads + self.mlp_writers)) * self.role_count

    @property
    def reader_count(self) -> int:
        """Inputs that read the residual stream."""
        return self.n_layers * (self.head_readers + self.mlp_writers) * self.role_count + 1

    @property
    def node_count(self) -> int:
        """All nodes, the input and the logits among them."""
        return self.writer_count + 1

    @property
    def edge_count(self) -> int:
        """All edges, in closed form."""
        return sum(self.edge_counts().values())

    def edge_counts(self) -> dict[tuple[NodeKind, NodeKind], int]:
        """Count the edges by (kind of writer, kind of reader), in closed form, without those that are none."""
        return counts.edge_counts(self)

    def count(self, writer: NodeKind, reader: NodeKind) -> int:
        """Count the edges from one kind of node to another, such as `count("neuron", "neuron")`."""
        return self.edge_counts().get((writer, reader), 0)

    def describe(self) -> str:
        """Say the shape and the counts in a few lines."""
        return counts.describe(self)

    # Names checked against this graph

    def node(self, name: Node | str) -> Node:
        """Return the node of that name; raises GraphError when this graph has none, and says which it has."""
        node = Node.parse(name) if isinstance(name, str) else name
        problem = self._problem(node, self.n_heads) or self._misplaced(node)
        if problem:
            raise GraphError(f"no node {node}: {problem}")
        return node

    def reader(self, name: Reader | str) -> Reader:
        """Return the reader of that name (`a2.h0<k>`, `m3`, `logits`); raises GraphError when this graph has none."""
        reader = Reader.parse(name) if isinstance(name, str) else name
        grouped = reader.slot in ("k", "v") and self.grouped
        problem = self._problem(reader.node, self.n_key_value_heads if grouped else self.n_heads)
        if misplaced := self._misplaced(reader.node):
            raise GraphError(f"no reader {reader}: {misplaced}")
        if problem:
            hint = "; with grouped keys, k and v readers are numbered by group" if grouped else ""
            raise GraphError(f"no reader {reader}: {problem}{hint}")
        return reader

    def edge(self, name: Edge | str) -> Edge:
        """Return the edge of that name; raises GraphError when this graph has none, and says why."""
        edge = Edge.parse(name) if isinstance(name, str) else name
        try:
            writer, reader = self.node(edge.writer), self.reader(edge.target)
        except GraphError as error:
            raise GraphError(f"no edge {edge}: {error}") from None
        if self.writer_index(writer) >= self.writers_before(reader):
            raise GraphError(f"no edge {edge}: with parallel blocks an MLP does not read the heads of its own layer")
        if self.roles is not None and self.roles.place(writer.at) not in self.roles.looks[self.roles.place(reader.node.at)]:
            raise GraphError(f"no edge {edge}: queries at {reader.node.at} never look at {writer.at}, which comes after them")
        return edge

    def has_edge(self, edge: Edge | str) -> bool:
        """Whether this is an edge of the graph; a malformed name is not."""
        try:
            self.edge(edge)
        except GraphError:
            return False
        return True

    def __contains__(self, item: object) -> bool:
        """Whether a node, reader or edge (or a name of one) belongs to the graph."""
        try:
            if isinstance(item, Edge) or (isinstance(item, str) and "->" in item):
                self.edge(item)
            elif isinstance(item, Reader) or (isinstance(item, str) and "<" in item):
                self.reader(item)
            elif isinstance(item, (Node, str)):
                self.node(item)
            else:
                return False
        except GraphError:
            return False
        return True

    def _problem(self, node: Node, heads: int) -> str:
        """Say why this graph lacks a node, or nothing where it has it."""
        layer, index = node.layer, node.index
        if layer is None:
            return ""
        if layer >= self.n_layers:
            return f"the graph has {self.n_layers} layers, numbered from 0"
        if node.kind == "head":
            return "" if index is not None and index < heads else f"layer {layer} has {heads} of them, numbered from 0"
        if not self.d_mlp:
            return "the graph has attention only"
        if node.kind == "mlp":
            return "the graph has single neurons; name one, such as m0.n0" if self.neurons else ""
        if not self.neurons:
            return f"the graph has whole MLPs; use m{layer}, or a graph with neurons=True"
        inside = index is not None and index < self.d_mlp
        return "" if inside else f"layer {layer} has {self.d_mlp} neurons, numbered from 0"

    def _misplaced(self, node: Node) -> str:
        """Say what is wrong with a node's role, or nothing."""
        if self.roles is None:
            return "" if node.at is None else "this graph has no roles: leave out what follows the @"
        try:
            place = self.roles.place(node.at)
        except GraphError as error:
            return str(error)
        last = place == len(self.roles) - 1
        return "" if last or node.kind != "logits" else f"the answer is read at {self.roles.end} alone: logits@{self.roles.end}"

    def _role(self, node: Node) -> int:
        return 0 if self.roles is None else self.roles.place(node.at)

    # Order of computation

    def writer_index(self, node: Node | str) -> int:
        """Place of a node among those that write, from 0 (the input); raises GraphError for the logits and others."""
        node = self.node(node)
        if node.kind == "logits":
            raise GraphError("logits write nothing, so they have no place among the writers")
        if node.layer is None:
            return self._role(node)
        start = 1 + node.layer * (self.n_heads + self.mlp_writers)
        place = start + (node.index or 0) + (0 if node.kind == "head" else self.n_heads)
        return place * self.role_count + self._role(node)

    def reader_index(self, reader: Reader | str) -> int:
        """Place of a reader among the readers, from 0: a layer's q, k and v inputs, then its MLP; last the logits."""
        reader = self.reader(reader)
        node = reader.node
        if node.layer is None:
            return self.reader_count - 1
        start = node.layer * (self.head_readers + self.mlp_writers) + (node.index or 0)
        offsets = {"q": 0, "k": self.n_heads, "v": self.n_heads + self.n_key_value_heads, None: self.head_readers}
        return (start + offsets[reader.slot]) * self.role_count + self._role(node)

    def writers_before(self, reader: Reader | str) -> int:
        """How many nodes come before a reader; they are the first so many in the order of computation, and it reads them all,
        of a graph with roles those of the roles that it looks at."""
        reader = self.reader(reader)
        if reader.node.layer is None:
            return self.writer_count
        own_heads = 0 if reader.slot is not None or self.parallel else self.n_heads
        return (1 + reader.node.layer * (self.n_heads + self.mlp_writers) + own_heads) * self.role_count

    @property
    def _ats(self) -> tuple[str | None, ...]:
        return (None,) if self.roles is None else self.roles.names

    @property
    def _logits(self) -> Node:
        return Node("logits", at=self._ats[-1])

    def layer_writers(self, layer: int) -> Iterator[Node]:
        """Yield the nodes of one layer in the order of computation."""
        yield from (Node("head", layer, head, at) for head in range(self.n_heads) for at in self._ats)
        yield from self._mlps(layer)

    def reader_slots(self, layer: int) -> Iterator[Reader]:
        """Yield the readers of one layer in order: queries, keys, values, then the MLP or its neurons."""
        groups = range(self.n_key_value_heads)
        yield from (Reader(Node("head", layer, head, at), "q") for head in range(self.n_heads) for at in self._ats)
        yield from (Reader(Node("head", layer, group, at), "k") for group in groups for at in self._ats)
        yield from (Reader(Node("head", layer, group, at), "v") for group in groups for at in self._ats)
        yield from (Reader(node) for node in self._mlps(layer))

    def _mlps(self, layer: int) -> Iterator[Node]:
        if self.neurons:
            yield from (Node("neuron", layer, neuron) for neuron in range(self.mlp_writers))
        elif self.d_mlp:
            yield from (Node("mlp", layer, at=at) for at in self._ats)

    def nodes(self) -> Iterator[Node]:
        """Yield every node in the order of computation."""
        yield from (Node("input", at=at) for at in self._ats)
        for layer in range(self.n_layers):
            yield from self.layer_writers(layer)
        yield self._logits

    def edges(self) -> Iterator[Edge]:
        """Yield every edge, by writer and then by reader; nothing is stored, so stop when you have enough."""
        for node in self.nodes():
            if node.kind != "logits":
                yield from (Edge(node, reader.node, reader.slot) for reader in self._readers(node))

    def _readers(self, node: Node) -> Iterator[Reader]:
        yield from (reader for reader in self._later(node) if self._looks(reader, node))

    def _later(self, node: Node) -> Iterator[Reader]:
        layer = node.layer
        if layer is not None and node.kind == "head" and not self.parallel:
            yield from (Reader(reader) for reader in self._mlps(layer))
        for later in range(0 if layer is None else layer + 1, self.n_layers):
            yield from self.reader_slots(later)
        yield Reader(self._logits)

    def _looks(self, reader: Reader, writer: Node) -> bool:
        """Whether a reader reads at the role of a node that comes before it."""
        if self.roles is None or reader.slot not in ("k", "v"):
            return reader.node.at == writer.at
        return self.roles.place(writer.at) in self.roles.looks[self.roles.place(reader.node.at)]

    def readers(self, node: Node | str) -> tuple[Reader, ...]:
        """List the inputs that read a node, in order; raises GraphError for the logits and for strangers."""
        node = self.node(node)
        if node.kind == "logits":
            raise GraphError("logits write nothing, so nothing reads them")
        return tuple(self._readers(node))

    def writers(self, reader: Reader | str) -> tuple[Node, ...]:
        """List the nodes that an input (`a2.h0<k>`, `m3`, `logits`) reads, in order; raises GraphError for others."""
        reader = self.reader(reader)
        layer = self.n_layers if reader.node.layer is None else reader.node.layer
        found = [Node("input", at=at) for at in self._ats]
        for earlier in range(layer):
            found.extend(self.layer_writers(earlier))
        if reader.node.kind in ("mlp", "neuron") and not self.parallel:
            found.extend(node for node in self.layer_writers(layer) if node.kind == "head")
        return tuple(node for node in found if self._looks(reader, node))

    def reader_of(self, head: Node | str, slot: Slot) -> Reader:
        """Return the input by which a head gets its queries, keys or values: with grouped keys, its group's."""
        head = self.node(head)
        if head.kind != "head" or head.index is None:
            raise GraphError(f"{head} has no slots, only heads do")
        size = 1 if slot == "q" else self.n_heads // self.n_key_value_heads
        return Reader(Node("head", head.layer, head.index // size, head.at), slot)

    def targets(self, reader: Reader | Edge | str) -> tuple[Node, ...]:
        """List the nodes that compute with an input (or an edge's): one, or every head of a group that shares it."""
        if isinstance(reader, Edge) or (isinstance(reader, str) and "->" in reader):
            reader = self.edge(reader).target
        reader = self.reader(reader)
        if reader.slot not in ("k", "v") or not self.grouped:
            return (reader.node,)
        size = self.n_heads // self.n_key_value_heads
        first = (reader.node.index or 0) * size
        return tuple(Node("head", reader.node.layer, head, reader.node.at) for head in range(first, first + size))
