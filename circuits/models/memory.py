"""The one default of every `budget`: bytes that a function may take above the model and its base runs."""

BUDGET = 2**28
"""A smaller one takes longer and changes no number; what cannot fit is refused with MemoryBudgetError."""


def beside_budget(least: int, budget: int) -> str:
    """In words for a refusal, the least that works beside the budget: rounded up, so that a budget of so many MiB is enough."""
    return f"{-(-least // 2**20):,} MiB, the budget is {budget // 2**20:,} MiB"
