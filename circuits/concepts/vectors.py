"""Concept vectors: the normal of a linear classifier that tells examples of a concept from random ones."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError

RIDGE = 0.1
"""The penalty, as a share of the mean squared length of centred examples."""


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptVectors:
    """Of each of several classifiers its unit normal, pointing to the concept, and how many of its own examples it tells right
    when each is left out of the fit."""

    directions: Float[Tensor, "set width"]
    accuracy: Float[Tensor, " set"]
    spread: Float[Tensor, " set"]
    """How far the two sides' means lie apart along it, half of that: what a step of 1 means."""
    middle: Float[Tensor, "set width"]
    """The mean of the random examples: what erasing sets the direction to."""


def concept_vectors(
    x: Float[Tensor, "example width"], positive: Int[Tensor, "set one"], negative: Int[Tensor, "set one"]
) -> ConceptVectors:
    """Least-squares classifiers (ridge regression on +1 and -1) between rows of `x`, a pair of sets of equal size at a time.

    With fewer examples than directions the normal lies in what the examples span, so all is solved there: a system of as many
    unknowns as examples. What an example would be taken for without itself in the fit follows from the same system
    (leave-one-out, Allen 1974). Raises NonFiniteError where activations are NaN or infinite.
    """
    if not bool(x.isfinite().all()):
        raise NonFiniteError("activations of the concept's examples hold NaN or infinity: try --dtype float32")
    rows = x.double()[torch.cat([positive, negative], dim=1)]
    size, count = positive.shape[1], rows.shape[1]
    centred = rows - rows.mean(dim=1, keepdim=True)
    sides = torch.cat([torch.ones(size), -torch.ones(count - size)]).to(rows)
    products = centred @ centred.mT
    penalty = RIDGE * products.diagonal(dim1=1, dim2=2).mean(dim=1) * count**0.5
    # Examples that are all alike (texts with one last token, before any attention) have no direction between them.
    penalty = penalty.clamp(min=torch.finfo(torch.float64).tiny ** 0.5)
    inverse = torch.linalg.inv(products + penalty[:, None, None] * torch.eye(count).to(rows))
    dual = inverse @ sides
    # A fitted residual is the penalty times its dual coefficient; that of an example that is left out is larger by one over
    # what the example does not decide of its own answer, to which the common mean adds 1/n.
    kept = penalty[:, None] * inverse.diagonal(dim1=1, dim2=2) - 1 / count
    left_out = sides - penalty[:, None] * dual / kept
    normals = (dual[:, None] @ centred)[:, 0]
    lengths = normals.norm(dim=1, keepdim=True)
    units = normals / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    one, other = rows[:, :size].mean(dim=1), rows[:, size:].mean(dim=1)
    apart = ((one - other) * units).sum(dim=1) / 2
    right = torch.where(lengths[:, 0] > 0, (left_out.sign() == sides).double().mean(dim=1), 0.5)
    return ConceptVectors(units.to(x.dtype), right, apart, other.to(x.dtype))
