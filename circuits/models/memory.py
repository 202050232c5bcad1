"""The one default of every `budget`: bytes that a function may take above the model and its base runs."""

BUDGET = 2**28
"""A smaller one takes longer and changes no number; what cannot fit is refused with MemoryBudgetError."""
