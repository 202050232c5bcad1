"""Models whose circuit is known because their weights were set by hand, to judge search methods on."""

from circuits.models.planted_induction import planted_induction
from circuits.models.planted_parts import Planted, PlantedFact
from circuits.models.planted_recall import planted_recall

__all__ = ["Planted", "PlantedFact", "planted_induction", "planted_recall"]
