"""The one default of every `budget`: bytes that a function may take above the model and its base runs."""

from circuits.models.weights import Weights

BUDGET = 2**28
"""A smaller one takes longer and changes no number; what cannot fit is refused with MemoryBudgetError."""


def beside_budget(least: int, budget: int) -> str:
    """In words for a refusal, the least that works beside the budget: rounded up, so that a budget of so many MiB is enough."""
    return f"{-(-least // 2**20):,} MiB, the budget is {budget // 2**20:,} MiB"


def prompts_at_once(weights: Weights, width: int, *, budget: int = BUDGET) -> int:
    """How many prompts of this width leave factors (without logits and patterns) that fit the budget; at least one."""
    attention, mlp = weights.blocks[0].attention, weights.blocks[0].mlp
    own = 2 * weights.W_E.shape[1] + 4 * attention.n_heads * attention.d_head + (0 if mlp is None else mlp.W_in.shape[1])
    return max(1, budget // (width * len(weights.blocks) * own * weights.W_E.element_size()))
