"""Finding circuits and judging them."""

from circuits.search.factual_recall import find_factual_recall_circuit
from circuits.search.induction import find_induction_circuit

__all__ = ["find_factual_recall_circuit", "find_induction_circuit"]
