"""Toy models of superposition (Elhage et al. 2022): more features than dimensions, packed the more the rarer they are."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.concepts.features.results import KINDS, Superposition
from circuits.errors import CircuitsError
from circuits.progress import Progress, silent

RATE = 0.02
"""Of Adam, at the start; it falls to 0 as a cosine."""
_REPORTED = 100
"""Steps between two reports of progress."""
_JUDGED = 64
"""So many batches at the end tell the loss."""
SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def toy_superposition(
    *,
    features: int = 5,
    hidden: int = 2,
    sparsities: Sequence[float] = SPARSITIES,
    decay: float = 1.0,
    kinds: Sequence[Literal["relu", "linear"]] = KINDS,
    seeds: int = 4,
    steps: int = 2000,
    batch: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Superposition:
    """Train x' = W^T W x + b, with and without a ReLU around it, to give back features of which each is zero by chance.

    A feature is 0 with a chance of `sparsity`, else uniform in [0, 1]; the loss is the squared error, features weighted by
    their importance. All kinds, sparsities and seeds are one batch of one optimisation: their losses are summed, and Adam
    treats every weight by itself, so each is trained as it would be alone. All see the same draws (common random numbers).
    Multiplications: about 12 x features x hidden x batch x steps for each model.

    Raises CircuitsError for no features, more dimensions than features, and sparsities outside 0 to 1 (1 left out).

    Args:
        features: how many there are.
        hidden: dimensions that they are packed into.
        sparsities: chances that a feature is zero.
        decay: each feature is so many times as important as the one before.
        kinds: `relu`, `linear`, or both.
        seeds: starts of each; the one of the smallest loss counts.
        steps: of Adam.
        batch: examples of a step.
        seed: of the first start, and of the examples.
        progress: hears how many steps are done.
    """
    _check(features, hidden, sparsities, decay, kinds, seeds, steps, batch)
    report = progress or silent
    sizes = (len(kinds), len(sparsities), seeds)
    start = torch.stack([_start(features, hidden, seed + one) for one in range(seeds)])
    W = start.expand(*sizes, hidden, features).clone().requires_grad_()
    b = torch.zeros(*sizes, features, requires_grad=True)
    relu = torch.tensor([kind == "relu" for kind in kinds])[:, None, None, None, None]
    floor = torch.where(relu, 0.0, -torch.inf)
    importance = decay ** torch.arange(features, dtype=torch.float32)
    draws = torch.Generator().manual_seed(seed)
    chances = torch.tensor(sparsities, dtype=torch.float32)
    optimiser = torch.optim.Adam([W, b], lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for step in range(steps):
            if step % _REPORTED == 0:
                report("training toy models", step, steps)
            optimiser.zero_grad()
            _losses(W, b, floor, importance, _examples(batch, features, chances, draws)).sum().backward()
            optimiser.step()
            falling.step()
    report("training toy models", steps, steps)
    with torch.no_grad():
        ends = [_losses(W, b, floor, importance, _examples(batch, features, chances, draws)) for _ in range(_JUDGED)]
    return Superposition(
        kinds=tuple(kinds),
        sparsity=chances.double(),
        importance=importance.double(),
        W=W.detach().double(),
        b=b.detach().double(),
        loss=torch.stack(ends).mean(dim=0).double(),
        steps=steps,
        batch=batch,
        seed=seed,
    )


def _start(features: int, hidden: int, seed: int) -> Float[Tensor, "hidden feature"]:
    """Weights of a start, as large as Glorot's."""
    drawn = torch.randn(hidden, features, generator=torch.Generator().manual_seed(seed))
    return drawn * (2 / (features + hidden)) ** 0.5


def _examples(
    batch: int, features: int, sparsity: Float[Tensor, " sparsity"], draws: torch.Generator
) -> Float[Tensor, "sparsity 1 example feature"]:
    """The same features for all sparsities, of which more are zero the sparser."""
    size, there = torch.rand(2, batch, features, generator=draws)
    return (size * (there >= sparsity[:, None, None]))[:, None]


def _losses(
    W: Float[Tensor, "kind sparsity seed hidden feature"],
    b: Float[Tensor, "kind sparsity seed feature"],
    floor: Float[Tensor, "kind 1 1 1 1"],
    importance: Float[Tensor, " feature"],
    x: Float[Tensor, "sparsity 1 example feature"],
) -> Float[Tensor, "kind sparsity seed"]:
    """The squared error of each model, summed over features by importance, the mean over examples."""
    given = torch.maximum(x @ W.mT @ W + b[..., None, :], floor)
    return ((given - x).square().mean(dim=-2) * importance).sum(dim=-1)


def _check(
    features: int,
    hidden: int,
    sparsities: Sequence[float],
    decay: float,
    kinds: Sequence[str],
    seeds: int,
    steps: int,
    batch: int,
) -> None:
    if not 1 <= hidden <= features or min(seeds, steps, batch) < 1:
        raise CircuitsError(
            f"{features} features in {hidden} dimensions, {seeds} seeds, {steps} steps of {batch} examples: expected numbers "
            "of at least 1, and no more dimensions than features"
        )
    wrong = next((one for one in sparsities if not 0 <= one < 1), None)
    if wrong is not None or not sparsities:
        raise CircuitsError(f"sparsity {wrong}: expected chances that a feature is zero, from 0 to below 1")
    if not 0 < decay <= 1:
        raise CircuitsError(f"importance falls by {decay} from feature to feature: expected a number above 0, at most 1")
    odd = next((one for one in kinds if one not in KINDS), None)
    if odd is not None or not kinds:
        raise CircuitsError(f"a toy model of kind {odd}: expected {', '.join(KINDS)}")
