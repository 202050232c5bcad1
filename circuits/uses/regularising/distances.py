"""How far a machine rationale is from a human one, text by text."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.uses.regularising.guidance import Target

Distance = Literal["mse", "kl", "bce", "order"]
_NONE = 1e-6


def distance_of(shares: Float[Tensor, "text position"], target: Target, distance: str) -> Float[Tensor, ""]:
    """The mean distance over texts of which something is said (0 where there is none), of the shares of tokens from what people
    want of them (Joshi et al. 2022). Tokens of which nothing is said do not count.

    `mse`: squared differences from equal shares of the wanted tokens, summed over the text (where not all is said of a text, a
    wanted token is asked for an average one's share at least); `kl`: Kullback-Leibler divergence of the shares from those
    (nats; where not all is said, minus the logarithm of what is left to the others); `bce`: binary cross-entropy of each token
    (nats, the mean over tokens); `order`: by how much unwanted tokens come above wanted ones less a margin (one wanted token's
    share), the mean over pairs; where nothing is wanted, above the mean of the others. Raises PromptError for another one."""
    if distance not in DISTANCES:
        raise PromptError(f"distance {distance!r}: expected one of {', '.join(DISTANCES)}")
    there = target.any.to(shares)
    return (DISTANCES[distance](shares, target) * there).sum() / there.sum().clamp(min=1)


def _squares(shares: Tensor, target: Target) -> Tensor:
    whole = (shares - target.shares.to(shares)) * target.judged
    # Of a text of which not all is said, a wanted token should have an average one's share at least.
    average = 1 / target.words.sum(dim=1, keepdim=True).clamp(min=1).to(shares)
    short = torch.where(target.wanted, (average - shares).clamp(min=0), shares) * target.judged
    return torch.where(target.whole[:, None], whole, short).square().sum(dim=1)


def _divergence(shares: Tensor, target: Target) -> Tensor:
    wanted = target.shares.to(shares)
    some = (wanted * ((wanted + _NONE).log() - (shares + _NONE).log())).sum(dim=1)
    unwanted = (shares * (target.judged & ~target.wanted)).sum(dim=1)
    none = -(1 + _NONE - unwanted).clamp(min=_NONE).log()
    return torch.where(target.whole, some, none)


def _cross_entropy(shares: Tensor, target: Target) -> Tensor:
    said = torch.where(target.wanted, shares + _NONE, 1 + _NONE - shares).clamp(min=_NONE).log()
    return -(said * target.judged).sum(dim=1) / target.judged.sum(dim=1).clamp(min=1)


def _order(shares: Tensor, target: Target) -> Tensor:
    unwanted = target.judged & ~target.wanted
    others = target.words & ~target.judged
    mean = (shares * others).sum(dim=1, keepdim=True) / others.sum(dim=1, keepdim=True).clamp(min=1)
    margin = 1 / target.wanted.sum(dim=1).clamp(min=1).to(shares)
    gaps = (shares[:, None, :] - shares[:, :, None] + margin[:, None, None]).clamp(min=0)  # [text wanted unwanted]
    pairs = target.wanted[:, :, None] & unwanted[:, None, :]
    some = (gaps * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
    none = ((shares - mean).clamp(min=0) * unwanted).sum(dim=1) / unwanted.sum(dim=1).clamp(min=1)
    return torch.where(target.wanted.any(dim=1), some, none)


DISTANCES: Mapping[str, Callable[[Tensor, Target], Tensor]] = {
    "mse": _squares,
    "kl": _divergence,
    "bce": _cross_entropy,
    "order": _order,
}
"""By name, of shares `[text position]` and the target: one number a text."""
