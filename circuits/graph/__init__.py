"""What a circuit is: names, which node may feed which, scored subgraphs, and files. No model and no forward pass."""

from circuits.graph.circuit import Circuit
from circuits.graph.graph import Graph
from circuits.graph.nodes import Edge, Node, Reader
from circuits.graph.roles import Roles

__all__ = ["Circuit", "Edge", "Graph", "Node", "Reader", "Roles"]
