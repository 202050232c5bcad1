"""What can be put in place of a node's value: one function a kind of patch.

Each takes the node's own value `[prompt position …]` and gives one of the same shape (the prompt axis may be 1).
"""

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.errors import PromptError

PatchKind = Literal["resample", "zero", "mean", "noise", "optimal"]


def zero(own: Tensor) -> Tensor:
    """Nothing: the node writes zero."""
    return torch.zeros_like(own[:1])


def constant(own: Tensor, value: Tensor | float) -> Tensor:
    """The same value at every position of every prompt. Raises PromptError for one that does not fit."""
    try:
        return torch.as_tensor(value, dtype=own.dtype, device=own.device).expand_as(own[:1])
    except RuntimeError:
        raise PromptError(f"a value of shape {tuple(torch.as_tensor(value).shape)} does not fit {tuple(own.shape)}") from None


def resample(own: Tensor, other: Tensor) -> Tensor:
    """The value on another prompt, position by position: that of the paired prompt (Chan et al. 2022)."""
    if other.shape[1:] != own.shape[1:]:
        raise PromptError(f"the other run has shape {tuple(other.shape)}, this one {tuple(own.shape)}: prompts do not align")
    return other


def mean(own: Tensor, reference: Tensor, mask: Bool[Tensor, "prompt position"]) -> Tensor:
    """The mean over a reference set (mask: its tokens): at each position over its prompts where these align with the
    node's own (as many columns and no pads), else over all tokens (Wang et al. 2022)."""
    if bool(mask.all()) and reference.shape[1] == own.shape[1]:
        return reference.mean(dim=0, keepdim=True)
    weight = mask.reshape(*mask.shape, *[1] * (reference.ndim - 2)).to(reference.dtype)
    return ((reference * weight).sum(dim=(0, 1)) / weight.sum()).expand_as(own[:1])


def noise(own: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """The value plus Gaussian noise of standard deviation `scale`, drawn anew for every entry."""
    drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64)
    return own + scale * drawn.to(own)
