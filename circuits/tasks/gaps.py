"""Values of a metric by prompt that nothing can be divided by, refused by name."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.tasks.prompts import PromptPairs, first_of


def refuse_non_finite(values: Float[Tensor, " prompt"], pairs: PromptPairs, what: str) -> None:
    """Raise NonFiniteError, with the first such prompt's name, where one of `values` (called `what`) is NaN or infinite."""
    bad = ~values.detach().isfinite()
    if bool(bad.any()):
        index = first_of(bad)
        raise NonFiniteError(f"{pairs.name(index)}: {what} is {float(values[index])}; expected a finite number")


def refuse_zero_gap(clean: Float[Tensor, " prompt"], corrupt: Float[Tensor, " prompt"], pairs: PromptPairs) -> None:
    """Raise PromptError, with the first such prompt's name, where the metric is the same on the clean and the corrupt
    prompt (to rounding: 8 units in the last place), or where the prompts' gaps cancel, so that nothing can be divided by their
    gap. Raises NonFiniteError where either is not finite."""
    refuse_non_finite(clean, pairs, "the metric on the clean prompt")
    refuse_non_finite(corrupt, pairs, "the metric on the corrupt prompt")
    rounding = 8 * torch.finfo(clean.dtype).eps * torch.maximum(clean.abs(), corrupt.abs())
    zero = ((clean - corrupt).abs() <= rounding).detach()
    if bool(zero.any()):
        index = first_of(zero)
        raise PromptError(
            f"{pairs.name(index)}: the metric is {float(clean[index]):.6g} on the clean and on the corrupt prompt alike; "
            "there is no gap to explain: leave the pair out or choose another corruption"
        )
    gaps = (clean - corrupt).detach().double()
    # To rounding of the mean: what is divided by it would be a number of any size.
    if float(gaps.mean().abs()) <= 64 * torch.finfo(clean.dtype).eps * float(gaps.abs().mean()):
        raise PromptError(
            f"the gaps of {len(gaps)} pairs cancel over prompts: the metric moves one way in some and as far the other way in "
            "others, so that on average there is no gap to explain; a pair that stands there turned round as well needs its "
            "answers turned round, too"
        )
