"""Neurons that several models share (Bau 2018): what each of a model's neurons finds of itself in the others."""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, PromptError

KEPT = 0.99
"""The share of a model's variance whose directions SVCCA looks at."""


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """How far each neuron of the first model is there in each of the others, from 0 to 1. `correlation`: the largest size of
    its correlation with one of their neurons; `explained`: the share of its variance that a linear regression on all of their
    neurons explains (on these words: more words than neurons are needed); `subspace`: of its variance, the share weighted by
    the canonical correlations of the directions it lies in (SVCCA, Raghu 2017)."""

    correlation: Float[Tensor, "model neuron"]
    explained: Float[Tensor, "model neuron"]
    subspace: Float[Tensor, "model neuron"]

    def by(self, name: str) -> Float[Tensor, " neuron"]:
        """One number a neuron: `max` (the largest correlation in any other model), `min` (the least over models of the largest
        in each: shared by all), `regression` (the least explained share) or `svcca` (the least share). Raises CircuitsError for
        another name."""
        ways = {
            "max": lambda: self.correlation.amax(dim=0),
            "min": lambda: self.correlation.amin(dim=0),
            "regression": lambda: self.explained.amin(dim=0),
            "svcca": lambda: self.subspace.amin(dim=0),
        }
        if name not in ways:
            raise CircuitsError(f"by={name!r}: expected one of {', '.join(ways)}")
        return ways[name]()


def agreement(x: Float[Tensor, "word neuron"], *others: Float[Tensor, "_ _"]) -> Agreement:
    """What the other models have of each neuron, all read on the same words. Computed in float64. A neuron that never changes
    agrees with nothing.

    Raises CircuitsError without another model, PromptError where words differ in number or are fewer than three.
    """
    if not others:
        raise CircuitsError("agreement needs another model's activations besides this one's")
    if any(len(other) != len(x) for other in others) or len(x) < 3:
        counts = ", ".join(str(len(one)) for one in (x, *others))
        raise PromptError(f"the models read {counts} words: expected the same words, three at least")
    own = _whitened(x.double())
    found = [_with(own, other.double()) for other in others]
    return Agreement(*(torch.stack(parts).clamp(0, 1) for parts in zip(*found, strict=True)))


def standardised(x: Float[Tensor, "word neuron"]) -> Float[Tensor, "word neuron"]:
    """Each neuron with mean 0 and squares that sum to 1, in the activations' own type; one that never changes is 0. The product
    of two neurons is then their correlation."""
    wide = x.double()
    apart = wide - wide.mean(dim=0)
    size = apart.norm(dim=0)
    moves = size > 1e-9 * wide.abs().amax(dim=0).clamp(min=1e-300) * len(x) ** 0.5
    return torch.where(moves, apart / torch.where(moves, size, 1.0), 0.0).to(x.dtype)


def largest_correlations(
    own: Sequence[Float[Tensor, "word neuron"]], others: Iterable[Float[Tensor, "word _"]]
) -> list[Float[Tensor, " neuron"]]:
    """Of each neuron of some layers the largest size of its correlation with one of another model's neurons, which come a layer
    at a time; all standardised."""
    found = [one.new_zeros(one.shape[1]) for one in own]
    for other in others:
        found = [torch.maximum(best, (one.T @ other).abs().amax(dim=1)) for best, one in zip(found, own, strict=True)]
    return [best.clamp(max=1.0) for best in found]


@dataclasses.dataclass(frozen=True, eq=False)
class _Whitened:
    """Standardised neurons; an orthonormal basis of what they span (`[word direction]`) and of the directions that hold most of
    their variance, these last in the order of their share."""

    scaled: Tensor
    whole: Tensor
    main: Tensor


def _whitened(x: Tensor) -> _Whitened:
    scaled = standardised(x) * len(x) ** 0.5
    left, sizes, _ = torch.linalg.svd(scaled, full_matrices=False)
    there = sizes > 1e-9 * sizes.amax().clamp(min=1e-300)
    share = sizes.square().cumsum(dim=0) / sizes.square().sum().clamp(min=1e-300)
    main = int((share < KEPT).sum()) + 1
    return _Whitened(scaled, left[:, there], left[:, : min(main, int(there.sum()))])


def _with(own: _Whitened, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correlation, explained share and share in the common subspace of each own neuron."""
    theirs = _whitened(other)
    (largest,) = largest_correlations([own.scaled], [theirs.scaled / len(own.scaled)])
    size = own.scaled.square().sum(dim=0).clamp(min=1e-300)
    explained = (theirs.whole.T @ own.scaled).square().sum(dim=0) / size
    left, canonical, _ = torch.linalg.svd(own.main.T @ theirs.main, full_matrices=False)
    parts = ((own.main @ left).T @ own.scaled).square()
    subspace = (canonical[:, None] * parts).sum(dim=0) / size
    return largest, explained, subspace
