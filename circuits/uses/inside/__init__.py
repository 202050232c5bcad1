"""Which nodes and neurons of a classifier carry a shortcut and which the meaning, before and after it was mended."""

from circuits.uses.inside.comparing import compare_inside
from circuits.uses.inside.results import InsideChange, InsideNeurons, SharedEdges
from circuits.uses.inside.swaps import Swaps, meaning_swaps, shortcut_swaps

__all__ = ["InsideChange", "InsideNeurons", "SharedEdges", "Swaps", "compare_inside", "meaning_swaps", "shortcut_swaps"]
