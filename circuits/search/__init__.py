"""Finding circuits and judging them."""

from circuits.search.induction import find_induction_circuit

__all__ = ["find_induction_circuit"]
