"""Nodes and edges by themselves or by their names: what takes either."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from circuits.errors import GraphError
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node

NodeName = str | Node
"""A node, or its name."""

_Element = TypeVar("_Element", bound=Node | Edge)
_Value = TypeVar("_Value")


def parsed(name: NodeName) -> Node:
    """The node of that name, whatever graph it is in. Raises GraphError for what is no name of a node."""
    return Node.parse(name) if isinstance(name, str) else name


def node_of(graph: Graph, name: NodeName) -> Node:
    """The node of that name; also a single neuron, and its MLP, whichever of the two the graph itself counts as nodes. Raises
    GraphError where the model has none such."""
    node = parsed(name)
    return dataclasses.replace(graph, neurons=node.kind == "neuron").node(node)


class Named(Mapping[_Element, _Value], Generic[_Element, _Value]):
    """Read-only; `mapping["a1.h0"]` and `mapping["a0.h5->a1.h0<k>"]` find what the Node and the Edge of that name find.
    Raises KeyError for what is not there."""

    def __init__(self, values: Mapping[_Element, _Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: object) -> _Value:
        return self._values[_element(key)]  # type: ignore[index]

    def __contains__(self, key: object) -> bool:
        return _element(key) in self._values

    def __iter__(self) -> Iterator[_Element]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr({str(element): value for element, value in self._values.items()})


def _element(key: object) -> object:
    if not isinstance(key, str):
        return key
    try:
        return Edge.parse(key) if "->" in key else Node.parse(key)
    except GraphError:
        return key
