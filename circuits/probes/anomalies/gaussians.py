"""A Gaussian of each layer's vectors on normal text, and how surprising other vectors are to it."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model, TokenBatch
from circuits.probes.reading import layer_by_layer, require_finite
from circuits.runs.runner import shards


@dataclasses.dataclass(frozen=True, eq=False)
class LayerGaussian:
    """Vectors of one layer, each direction scaled to deviation 1, as a Gaussian whose correlations are shrunk towards none by
    as much as their number allows (oracle approximating shrinkage, Chen et al. 2010)."""

    mean: Float[Tensor, " width"]
    deviation: Float[Tensor, " width"]
    root: Float[Tensor, "width width"]
    """The Cholesky factor of the correlations."""
    shrinkage: float

    @classmethod
    def of(cls, total: Float[Tensor, " width"], products: Float[Tensor, "width width"], count: int) -> "LayerGaussian":
        """From the sum of vectors and of their products with themselves. A direction that never changes has deviation 1."""
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        variance = covariance.diagonal()
        moves = variance > 1e-12 * (variance.amax() + 1e-30)
        deviation = torch.where(moves, variance, torch.ones_like(variance)).sqrt()
        correlation = covariance / torch.outer(deviation, deviation)
        width = len(mean)
        square, trace = float(correlation.square().sum()), float(correlation.diagonal().sum())
        apart = (count + 1 - 2 / width) * (square - trace * trace / width)
        shrinkage = 1.0 if apart <= 0 else min(1.0, ((1 - 2 / width) * square + trace * trace) / apart)
        shrunk = (1 - shrinkage) * correlation + shrinkage * torch.eye(width, dtype=mean.dtype, device=mean.device)
        return cls(mean, deviation, torch.linalg.cholesky(shrunk), shrinkage)

    def surprisal(self, x: Float[Tensor, "token width"]) -> Float[Tensor, " token"]:
        """Negative log density, nats; as a density it may be below 0."""
        scaled = (x.to(self.mean) - self.mean) / self.deviation
        white = torch.linalg.solve_triangular(self.root, scaled.T, upper=False)
        constant = self.root.diagonal().log().sum() + self.deviation.log().sum() + len(self.mean) * math.log(2 * math.pi) / 2
        return white.square().sum(dim=0) / 2 + constant


def fit_layers(model: Model, rows: Sequence[Sequence[int]], *, most: int = 4096) -> list[LayerGaussian]:
    """A Gaussian for each residual stream, of all tokens of some texts but the first of each, which has seen nothing (and where
    models rest attention). Raises PromptError for fewer tokens than directions.

    Args:
        model: what is read.
        rows: texts as token ids.
        most: tokens that are read at a time, with their pads.
    """
    count = sum(len(row) - 1 for row in rows)
    if count <= model.d_model:
        raise PromptError(f"{count:,} tokens of normal text for {model.d_model} directions: give more text")
    total = torch.zeros(model.n_layers + 1, model.d_model, dtype=torch.float64)
    products = torch.zeros(model.n_layers + 1, model.d_model, model.d_model, dtype=torch.float64)

    def summed(part: int) -> tuple[Tensor, Tensor]:
        """Over all tokens, in one piece: what one batch adds is as large as the sum."""
        for _, tokens in some_rows(rows, most):
            counted = inside(tokens)
            for layer, x in layer_by_layer(model, tokens.to(model.device), "residual"):
                vectors = require_finite(x.cpu()[counted], f"resid{layer}").double()
                total[layer] += vectors.sum(dim=0)
                products[layer] += vectors.T @ vectors
        return total, products

    ((total, products),) = shards("reading normal text", 1, summed)
    return [LayerGaussian.of(*sums, count) for sums in zip(total, products, strict=True)]


def text_surprisals(
    model: Model, gaussians: Sequence[LayerGaussian], rows: Sequence[Sequence[int]], *, most: int = 4096
) -> Float[Tensor, "row layer"]:
    """The surprisal of each text at each layer: the sum over its tokens but the first."""
    found = torch.zeros(len(rows), model.n_layers + 1, dtype=torch.float64)
    batches = list(some_rows(rows, most))

    def summed(part: int) -> Tensor:
        """Those of some texts."""
        _, tokens = batches[part]
        counted, sums = inside(tokens), torch.zeros(len(tokens), model.n_layers + 1, dtype=torch.float64)
        owner = counted.nonzero()[:, 0]
        for layer, x in layer_by_layer(model, tokens.to(model.device), "residual"):
            vectors = require_finite(x.cpu()[counted], f"resid{layer}")
            sums[:, layer].index_add_(0, owner, gaussians[layer].surprisal(vectors))
        return sums

    for (numbers, _), sums in zip(batches, shards("reading sentences", len(batches), summed), strict=True):
        found[numbers] = sums
    return found


def some_rows(rows: Sequence[Sequence[int]], most: int) -> Iterator[tuple[list[int], TokenBatch]]:
    """Rows of similar length side by side, up to so many tokens: which they are, and theirs."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) + 1) * len(rows[number]) > most:
            yield batch, TokenBatch.from_rows([list(rows[one]) for one in batch])
            batch = []
        batch.append(number)
    if batch:
        yield batch, TokenBatch.from_rows([list(rows[one]) for one in batch])


def inside(tokens: TokenBatch) -> Tensor:
    """Tokens that count: no pads, and not the first of a text."""
    return tokens.mask & (tokens.positions > 0)
