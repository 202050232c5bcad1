"""The least change of an MLP's output weights that makes given keys say something else (Meng et al. 2022; 2023 for several)."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError


def whitened(factor: Float[Tensor, "d_mlp d_mlp"], keys: Float[Tensor, "fact d_mlp"]) -> Float[Tensor, "fact d_mlp"]:
    """Keys times the inverse of their second moment, of which `factor` is the lower Cholesky factor; float64."""
    return torch.cholesky_solve(keys.to(factor).T, factor).T


def reading_keys(
    factor: Float[Tensor, "d_mlp d_mlp"], keys: Float[Tensor, "fact d_mlp"], *, keep: float = 0.0
) -> Float[Tensor, "fact d_mlp"]:
    """What is multiplied by what each key is to write more, to give the change of the output weights: `K (keep C + K Kᵀ)⁻¹` as
    rows, C the keys' second moment.

    With `keep` 0 the change is the least, as C measures it, that writes exactly what is asked for at each key; for one key that
    is C⁻¹k / (k C⁻¹ k), the rank-one update. With more, what the output weights do on so many tokens of text is weighed against
    that (MEMIT). Raises PromptError for keys of which one is a sum of others, which cannot be told apart.

    Args:
        factor: the lower Cholesky factor of C.
        keys: one row a fact.
        keep: how many tokens of text weigh as much as one fact.
    """
    wide = keys.to(factor)
    white = whitened(factor, wide)
    gram = torch.einsum("fn,gn->fg", wide, white)
    # By Woodbury's identity the matrix to invert has one row a fact, not one a neuron.
    inner = gram + keep * torch.eye(len(wide), dtype=gram.dtype, device=gram.device)
    size = inner.diagonal().clamp(min=1e-300).rsqrt()
    if float(torch.linalg.eigvalsh(inner * size[:, None] * size).min()) < 1e-10:
        raise PromptError("two facts have one key (the same subject?): what is to be written there is asked for twice")
    return torch.linalg.solve(inner, white)
