"""Neurons by the weights of a sparse classifier (linguistic correlation analysis, Dalvi 2019)."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, NonFiniteError

STEPS = 500


@dataclasses.dataclass(frozen=True, eq=False)
class ElasticNet:
    """A multinomial logistic regression whose weights are pulled to 0 and, where they are worth little, to exactly 0."""

    weights: Float[Tensor, "neuron class"]
    biases: Float[Tensor, " class"]

    def scores(self, x: Float[Tensor, "word neuron"]) -> Float[Tensor, "word class"]:
        """Log-odds of each class (up to a constant a word)."""
        return torch.addmm(self.biases, x, self.weights)


@torch.no_grad()
def fit_elastic_net(
    x: Float[Tensor, "word neuron"],
    labels: Int[Tensor, " word"],
    *,
    classes: int,
    sparse: float = 1e-3,
    ridge: float = 1e-3,
    tolerance: float = 1e-5,
    steps: int = STEPS,
) -> ElasticNet:
    """The weights with the least mean cross-entropy (nats) + `sparse` × their sum of sizes + `ridge` / 2 × their squares;
    biases are free. By accelerated proximal gradient with restarts (Beck & Teboulle 2009; O'Donoghue & Candès 2015), from zero.

    Raises CircuitsError for labels out of range and penalties that are none, NonFiniteError for vectors that hold NaN or
    infinity.

    Args:
        x: a vector a word, of mean about 0 and deviation about 1.
        labels: the class of each word.
        classes: how many there are.
        sparse: pulls weights to exactly 0.
        ridge: shares weight between neurons that say the same.
        tolerance: the last step moved no weight farther than this share of the largest one.
        steps: at most.
    """
    if len(labels) != len(x) or not len(x) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise CircuitsError(f"{len(labels)} labels of {len(x)} words: expected one a word, from 0 to {classes - 1}")
    if not (0 <= sparse < float("inf") and 0 <= ridge < float("inf")):
        raise CircuitsError(f"penalties of {sparse} and {ridge}: expected finite numbers from 0 on")
    if not bool(x.isfinite().all()):
        raise NonFiniteError("activations hold NaN or infinity: no classifier can be fitted")
    wide = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    # The curvature of the mean cross-entropy is at most half that of the words (Böhning 1992).
    rate = 1 / (0.5 * float(torch.linalg.eigvalsh(wide.T @ wide / len(x))[-1]) + ridge)
    at = x.new_zeros(wide.shape[1], classes)
    ahead, speed = at, 1.0
    for _ in range(steps):
        chances = (wide @ ahead).softmax(dim=1)
        chances[torch.arange(len(x)), labels] -= 1
        slope = wide.T @ chances / len(x)
        slope[:-1] += ridge * ahead[:-1]
        moved = ahead - rate * slope
        moved[:-1] = torch.nn.functional.softshrink(moved[:-1], rate * sparse)
        step = moved - at
        faster = (1 + (1 + 4 * speed**2) ** 0.5) / 2
        if float(((ahead - moved) * step).sum()) > 0:  # it has gone too far: momentum begins anew
            ahead, faster = moved, 1.0
        else:
            ahead = moved + (speed - 1) / faster * step
        at, speed = moved, faster
        if float(step.abs().max()) <= tolerance * max(float(at.abs().max()), 1e-12):
            break
    return ElasticNet(at[:-1], at[-1])


def by_mass(weights: Float[Tensor, "neuron class"]) -> Float[Tensor, " neuron"]:
    """What share of a class's weight mass lies in the neurons before each one, 1 for a neuron without weight; of all classes
    the smallest. A neuron is among those that hold a share p of some class's mass where this is below p, so that sorting by it
    is Dalvi's ranking at every p at once: smaller = more salient."""
    sizes = weights.abs()
    order = sizes.argsort(dim=0, descending=True, stable=True)
    ordered = sizes.gather(0, order)
    total = ordered.sum(dim=0).clamp(min=torch.finfo(weights.dtype).tiny)
    before = (ordered.cumsum(dim=0) - ordered) / total
    before = torch.where(ordered > 0, before, torch.ones_like(before))
    found = torch.empty_like(before).scatter_(0, order, before)
    return found.amin(dim=1)
