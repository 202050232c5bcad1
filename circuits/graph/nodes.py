"""Names of the parts of a transformer: nodes, the inputs that nodes read by, and the edges between them."""

import functools
import re
from dataclasses import dataclass
from typing import Literal

from circuits.errors import GraphError, shown
from circuits.graph.roles import check_role

NodeKind = Literal["input", "head", "mlp", "neuron", "logits"]
Slot = Literal["q", "k", "v"]

SLOTS: tuple[Slot, ...] = ("q", "k", "v")

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_HEAD = re.compile(rf"a{_NUMBER}\.h{_NUMBER}", re.ASCII)
_MLP = re.compile(rf"m{_NUMBER}(?:\.n{_NUMBER})?", re.ASCII)
_LARGEST = 999_999_999
_HAS_LAYER = {"input": False, "head": True, "mlp": True, "neuron": True, "logits": False}
_HAS_INDEX = {"input": False, "head": True, "mlp": False, "neuron": True, "logits": False}


def _check_number(value: object, *, needed: bool, field: str, kind: str) -> None:
    if not needed and value is None:
        return
    if not needed:
        raise GraphError(f"a node of kind {kind!r} has no {field}, got {shown(value)}")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise GraphError(f"a node of kind {kind!r} needs a {field} from 0 to {_LARGEST}, got {shown(value)}")


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Node:
    """One part of a transformer that adds to the residual stream, or the logits that read it.

    Nodes sort by computation: `input`, then for each layer its heads, its MLP, its MLP's neurons, and at last `logits`.
    `index` is the head of a layer or the neuron of an MLP; `at` the role of the tokens at which it writes (or reads), in graphs
    that have roles: `a0.h1@S2`. Names follow the MIB / EAP-IG convention; `m3.n1207` (a neuron) and roles are this package's
    addition. Raises GraphError for a kind, layer, index or role that makes no node.
    """

    kind: NodeKind
    layer: int | None = None
    index: int | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _HAS_LAYER:
            raise GraphError(f"unknown kind of node {shown(self.kind)}; expected one of {', '.join(_HAS_LAYER)}")
        _check_number(self.layer, needed=_HAS_LAYER[self.kind], field="layer", kind=self.kind)
        _check_number(self.index, needed=_HAS_INDEX[self.kind], field="index", kind=self.kind)
        if self.at is not None:
            check_role(self.at)

    @classmethod
    def parse(cls, text: str) -> "Node":
        """Read a node's name (`input`, `a0.h1`, `m3`, `m3.n1207`, `logits`, each also with a role: `a0.h1@S2`); raises
        GraphError that names the text."""
        name, marked, role = text.partition("@")
        at = role if marked else None
        if name == "input" or name == "logits":
            return cls(name, at=at)
        if match := _HEAD.fullmatch(name):
            return cls("head", int(match[1]), int(match[2]), at)
        if match := _MLP.fullmatch(name):
            return cls("mlp", int(match[1]), at=at) if match[2] is None else cls("neuron", int(match[1]), int(match[2]), at)
        raise GraphError(f"{shown(text)} is not a node; expected input, a0.h1, m3, m3.n1207 or logits")

    @property
    def rank(self) -> tuple[int, int, int, int, str]:
        """Place in the order of computation, comparable between nodes: (section, layer, attention or MLP, index), then the
        role."""
        at = self.at or ""
        if self.layer is None:
            return (0, 0, 0, 0, at) if self.kind == "input" else (2, 0, 0, 0, at)
        index = -1 if self.index is None else self.index
        return (1, self.layer, 0 if self.kind == "head" else 1, index, at)

    @property
    def everywhere(self) -> "Node":
        """The same node whatever the role."""
        return self if self.at is None else Node(self.kind, self.layer, self.index)

    def __str__(self) -> str:
        return self._name if self.at is None else f"{self._name}@{self.at}"

    @property
    def _name(self) -> str:
        if self.kind == "head":
            return f"a{self.layer}.h{self.index}"
        if self.kind == "mlp":
            return f"m{self.layer}"
        if self.kind == "neuron":
            return f"m{self.layer}.n{self.index}"
        return self.kind

    def __lt__(self, other: object) -> bool:
        return self.rank < other.rank if isinstance(other, Node) else NotImplemented


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Reader:
    """One input that reads the residual stream: a head's `<q>`, `<k>` or `<v>`, an MLP, a neuron or the logits. In graphs with
    roles `a2.h0@end<k>` are the keys at which the queries of role end look.

    Where keys and values are grouped (fewer key-value heads than heads), the index of a `<k>` or `<v>` reader is the
    **group's**: `a2.h1<k>` is the keys of group 1 of layer 2, which several heads share (`Graph.targets` lists them).
    Readers sort by computation; in a layer q before k before v. Raises GraphError for a slot that does not fit.
    """

    node: Node
    slot: Slot | None = None

    def __post_init__(self) -> None:
        if self.node.kind == "input":
            raise GraphError("input reads nothing, so it cannot be the end of an edge")
        if self.node.kind == "head" and self.slot not in SLOTS:
            name = str(self.node)
            raise GraphError(f"{name} reads in three slots: name one, {name}<q>, {name}<k> or {name}<v>")
        if self.node.kind != "head" and self.slot is not None:
            raise GraphError(f"{self.node} has no slots, only heads do: write {self.node} without <{self.slot}>")

    @classmethod
    def parse(cls, text: str) -> "Reader":
        """Read a reader's name (`a2.h0<k>`, `m3`, `m3.n1207`, `logits`); raises GraphError that names the text."""
        for slot in SLOTS:
            if text.endswith(f"<{slot}>"):
                return cls(Node.parse(text[:-3]), slot)
        return cls(Node.parse(text))

    @property
    def rank(self) -> tuple[int, int, int, int, int, str]:
        """Place in the order of computation, comparable between readers."""
        section, layer, part, index, at = self.node.rank
        return (section, layer, part, 0 if self.slot is None else SLOTS.index(self.slot), index, at)

    def __str__(self) -> str:
        return str(self.node) if self.slot is None else f"{self.node}<{self.slot}>"

    def __lt__(self, other: object) -> bool:
        return self.rank < other.rank if isinstance(other, Reader) else NotImplemented


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Edge:
    """What one node (`writer`) adds to the residual stream, as one input of a later node (`reader`, `slot`) reads it.

    Where keys and values are grouped, `reader` of a `<k>` or `<v>` edge carries the group's index (see `Reader`).
    Edges sort by writer, then by reader, both in the order of computation. Raises GraphError where the reader is not
    computed after the writer, or the slot does not fit the reader.
    """

    writer: Node
    reader: Node
    slot: Slot | None = None

    def __post_init__(self) -> None:
        if self.writer.kind == "logits":
            raise GraphError("logits write nothing, so they cannot be the start of an edge")
        target = self.target
        if self.writer.rank[:3] >= self.reader.rank[:3]:
            raise GraphError(f"{self.writer}->{target} is not an edge: {target} is not computed after {self.writer}")
        if (self.writer.at is None) != (self.reader.at is None):
            raise GraphError(f"{self.writer}->{target} is not an edge: one of its ends has a role, the other has none")
        if self.slot not in ("k", "v") and self.writer.at != self.reader.at:
            raise GraphError(
                f"{self.writer}->{target} is not an edge: from role to role there are edges into keys and values alone"
            )

    @classmethod
    def parse(cls, text: str) -> "Edge":
        """Read an edge's name (`a0.h1->m3`, `a0.h1->a2.h0<q>`); raises GraphError that names the text."""
        writer, arrow, reader = text.partition("->")
        if not arrow:
            raise GraphError(f"{shown(text)} is not an edge; expected a name such as a0.h1->m3 or a0.h1->a2.h0<q>")
        try:
            target = Reader.parse(reader)
            return cls(Node.parse(writer), target.node, target.slot)
        except GraphError as error:
            raise GraphError(f"{shown(text)} is not an edge: {error}") from None

    @property
    def target(self) -> Reader:
        """The reader with its slot."""
        return Reader(self.reader, self.slot)

    @property
    def rank(self) -> tuple[tuple[int, int, int, int, str], tuple[int, int, int, int, int, str]]:
        """Place in the order of computation, comparable between edges: the writer's, then the reader's."""
        return (self.writer.rank, self.target.rank)

    def __str__(self) -> str:
        return f"{self.writer}->{self.target}"

    def __lt__(self, other: object) -> bool:
        return self.rank < other.rank if isinstance(other, Edge) else NotImplemented
