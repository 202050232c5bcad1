"""From vectors of the residual stream to tokens: the final norm and the unembedding, as every lens uses them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.heads.composition import folded_unembedding
from circuits.heads.weight_tables.ranking import best_of_rows
from circuits.models import Model
from circuits.models.folding import behind_norm

VOCABULARY_BLOCK = 2**24
"""Numbers of logits that are held at once (three or four arrays of so many), unless a function is told otherwise."""


def direction(
    model: Model, answers: Int[Tensor, " prompt"], distractors: Int[Tensor, " prompt"] | None = None
) -> Float[Tensor, "prompt d_model"]:
    """The vector `d` for which `(x / scale) · d` is a residual stream x's logit of the answer (less that of the distractor,
    where there is one), `scale` the number by which the final norm divides x; the norm's gain and centring are in it.
    What the norm's bias and the unembedding's bias add is `constant`."""
    columns = _columns(model, answers)
    return columns if distractors is None else columns - _columns(model, distractors)


def constant(
    model: Model, answers: Int[Tensor, " prompt"], distractors: Int[Tensor, " prompt"] | None = None
) -> Float[Tensor, " prompt"]:
    """What the final norm's bias and the unembedding's bias add to the answer's logit (less the distractor's)."""
    weights = model.weights
    wanted = weights.W_U.T[answers] if distractors is None else weights.W_U.T[answers] - weights.W_U.T[distractors]
    norm = weights.final_norm
    value = torch.zeros_like(wanted[:, 0]) if norm is None or norm.bias is None else wanted @ norm.bias
    if weights.b_U is None:
        return value
    value = value + weights.b_U[answers]
    return value if distractors is None else value - weights.b_U[distractors]


def _columns(model: Model, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token d_model"]:
    """Columns of `folded_unembedding`, made from these tokens' columns alone."""
    return behind_norm(model.weights.W_U[:, tokens], model.weights.final_norm).T


Best = tuple[Float[Tensor, "vector k"], Int[Tensor, "vector k"]]
"""Logits and token ids, best first; of equal ones the earlier id."""


def top_tokens(model: Model, vectors: Float[Tensor, "vector d_model"], k: int, *, largest: bool = True) -> Best:
    """What vectors of the residual stream raise most (`largest=False`: lower most): logits through the final norm's gain and
    centring and the unembedding, without scale and biases, and token ids, best first; of equal ones the earlier id.

    Vectors are read a block at a time, so that at most VOCABULARY_BLOCK logits are held.
    """
    return _ends(model, vectors, k, (1.0,) if largest else (-1.0,))[0]


def ends_of_tokens(model: Model, vectors: Float[Tensor, "vector d_model"], k: int) -> tuple[Best, Best]:
    """What vectors raise most and what they lower most, as `top_tokens` gives either; their logits are made once."""
    most, least = _ends(model, vectors, k, (1.0, -1.0))
    return most, least


def _ends(model: Model, vectors: Tensor, k: int, signs: tuple[float, ...]) -> list[Best]:
    matrix = folded_unembedding(model.weights)
    k = min(k, matrix.shape[1])
    size = max(1, VOCABULARY_BLOCK // matrix.shape[1])
    parts: list[list[Best]] = [[] for _ in signs]
    for block in vectors.split(size):
        logits = block @ matrix
        for part, sign in zip(parts, signs, strict=True):
            part.append(best_of_rows(logits if sign > 0 else -logits, k))
    return [
        (sign * torch.cat([values for values, _ in part]), torch.cat([ids for _, ids in part]))
        for part, sign in zip(parts, signs, strict=True)
    ]
