"""The names of the room, once: `circuits/attribution/__init__.py` reads them from here, and so do type checkers."""

from .edges import attribute_edges as attribute_edges
from .nodes import attribute_nodes as attribute_nodes
from .scores import EdgeScores as EdgeScores
