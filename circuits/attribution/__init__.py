"""What would happen, to first order: gradients of a metric by what every reader reads."""

from circuits.attribution.edges import attribute_edges
from circuits.attribution.nodes import attribute_nodes
from circuits.attribution.scores import EdgeScores

__all__ = ["EdgeScores", "attribute_edges", "attribute_nodes"]
