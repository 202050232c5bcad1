"""Models whose circuit is known because their weights were set by hand, to judge search methods on."""

from circuits.models.planted.branches import planted_branches
from circuits.models.planted.chain import planted_chain
from circuits.models.planted.induction import planted_induction
from circuits.models.planted.logic import planted_gate, planted_or
from circuits.models.planted.parts import Planted, PlantedFact
from circuits.models.planted.patterns import planted_patterns
from circuits.models.planted.previous import planted_previous
from circuits.models.planted.recall import planted_recall
from circuits.models.planted.tables import PlantedTables, planted_tables
from circuits.models.planted.words import HopWords, OperandWords

__all__ = [
    "HopWords",
    "OperandWords",
    "Planted",
    "PlantedFact",
    "PlantedTables",
    "planted_branches",
    "planted_chain",
    "planted_gate",
    "planted_induction",
    "planted_or",
    "planted_patterns",
    "planted_previous",
    "planted_recall",
    "planted_tables",
]
