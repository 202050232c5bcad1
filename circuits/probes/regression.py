"""Multinomial logistic regression, several problems on the same vectors at once.

Probes differ by their labels (a task, its control) and by their penalty, hardly ever by what they look at: the vectors are
read once for all of them in each step, as one matrix product. The loss is convex. It is minimised by L-BFGS (Nocedal 1980)
from where all words have the classes' own shares; there the curvature is exactly the vectors' covariance times that of the
classes, plus the penalty, and its inverse, cheap in the axes of both, serves as preconditioner from there on.
"""

import dataclasses
from collections.abc import Generator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, NonFiniteError

ROWS = 2048
"""Words of a block: their scores stay in the processor's cache between the two products with their vectors."""
REMEMBERED = 12
"""Steps whose change of the gradient L-BFGS remembers."""
COVARIANCE = 8192
"""Words that the axes are made of, about: they change how many steps are taken, not where they end."""
SUFFICIENT, LEAST_STEP = 1e-4, 1e-8
_Dialogue = Generator[Tensor, tuple[float, Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """What makes vectors comparable: of each direction its mean and standard deviation over the words a probe is trained on."""

    mean: Float[Tensor, " width"]
    deviation: Float[Tensor, " width"]

    @classmethod
    def of(cls, x: Float[Tensor, "word width"]) -> "Scale":
        """That of these vectors; a direction that never changes is left as it is."""
        deviation, mean = torch.std_mean(x, dim=0, correction=0)
        return cls(mean, torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def apply(self, x: Float[Tensor, "word width"]) -> Float[Tensor, "word width"]:
        """Mean 0 and deviation 1."""
        return (x - self.mean).div_(self.deviation)


@dataclasses.dataclass(frozen=True, eq=False)
class Turned:
    """Vectors in the axes of their own covariance, where the loss bends along each coordinate by itself."""

    rows: Float[Tensor, "word width"]
    axes: Float[Tensor, "width width"]
    spread: Float[Tensor, " width"]
    """The mean square along each axis."""

    @classmethod
    def of(cls, x: Float[Tensor, "word width"]) -> "Turned":
        """These vectors, of mean about 0 and deviation about 1 (`Scale`); the axes are those of evenly chosen ones where there
        are many. Raises CircuitsError where there is none."""
        if not len(x):
            raise CircuitsError("a probe on no words: expected one at least")
        some = x[:: max(1, len(x) // COVARIANCE)]
        spread, axes = torch.linalg.eigh(some.T @ some / len(some))
        return cls(x @ axes, axes, spread.clamp(min=0))

    def first(self, count: int) -> "Turned":
        """The first of them, in the same axes."""
        return dataclasses.replace(self, rows=self.rows[:count])


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One probe to fit: the label of each word, and the penalty: half of it times the squared weights is added to the mean
    loss."""

    labels: Int[Tensor, " word"]
    penalty: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Inverse:
    """A gradient divided by the curvature where all words have the classes' shares."""

    spread: Float[Tensor, " width"]
    axes: Float[Tensor, "class axis"]
    classes: Float[Tensor, " axis"]
    penalty: float

    @classmethod
    def of(cls, spread: Tensor, shares: Float[Tensor, " class"], penalty: float) -> "_Inverse":
        """For classes of these shares."""
        classes, axes = torch.linalg.eigh(shares.diag() - torch.outer(shares, shares))
        return cls(spread, axes, classes.clamp(min=0), penalty)

    def solve(self, gradient: Float[Tensor, "row class"]) -> Float[Tensor, "row class"]:
        """The last row is that of the biases: they have no penalty, and nothing pulls along the axis of equal classes."""
        turned = gradient @ self.axes
        inside = turned[:-1] / (self.spread[:, None] * self.classes + self.penalty)
        free = self.classes > 1e-6 * self.classes[-1]
        biases = torch.where(free, turned[-1:] / self.classes, torch.zeros_like(turned[-1:]))
        return torch.cat([inside, biases]) @ self.axes.T


@torch.no_grad()
def fit_logistic(
    x: Turned, problems: Sequence[Problem], *, classes: int, tolerance: float = 1e-4, steps: int = 300
) -> list[Float[Tensor, "row class"]]:
    """The weights of each problem on the vectors as they were before they were turned, `[width + 1, class]`, biases in the last
    row: those with the least mean cross-entropy (nats) plus penalty / 2 times the squared weights; biases are free.

    Raises CircuitsError for a penalty that is not above 0 and labels out of range, NonFiniteError where a loss is none.

    Args:
        x: a vector a word.
        problems: what is fitted, all on these vectors.
        classes: how many there are.
        tolerance: nats by which a further step would lower the loss at most, as far as L-BFGS knows the curvature.
        steps: steps of each at most.
    """
    running = {}
    for place, problem in enumerate(problems):
        _check(x.rows, problem, classes)
        # A class that no word has here must not have the share 0, whose logarithm is no number.
        counts = problem.labels.bincount(minlength=classes).clamp(min=0.5)
        shares = (counts / counts.sum()).to(x.rows)
        start = torch.cat([x.rows.new_zeros(x.rows.shape[1], classes), shares.log()[None]])
        running[place] = _descent(start, _Inverse.of(x.spread, shares, problem.penalty), tolerance, steps)
    asked = {place: next(one) for place, one in running.items()}
    found: dict[int, Tensor] = {}
    while asked:
        answers = _losses(x.rows, [problems[place] for place in asked], list(asked.values()))
        asked_now, asked = list(asked), {}
        for place, answer in zip(asked_now, answers, strict=True):
            try:
                asked[place] = running[place].send(answer)
            except StopIteration as ended:
                found[place] = torch.cat([x.axes @ ended.value[:-1], ended.value[-1:]])
    return [found[place] for place in range(len(problems))]


def _check(x: Tensor, problem: Problem, classes: int) -> None:
    if problem.labels.shape != x.shape[:1]:
        raise CircuitsError(f"{len(problem.labels)} labels of {len(x)} words: expected one a word")
    if not 0 < problem.penalty < float("inf"):
        raise CircuitsError(f"a penalty of {problem.penalty}: expected a finite number above 0")
    low, high = int(problem.labels.min()), int(problem.labels.max())
    if low < 0 or high >= classes:
        raise CircuitsError(f"the label {low if low < 0 else high}: expected one from 0 to {classes - 1}")


def _losses(x: Tensor, problems: Sequence[Problem], weights: Sequence[Tensor]) -> list[tuple[float, Tensor]]:
    """Loss and gradient of each problem at its weights."""
    count, classes = len(problems), weights[0].shape[1]
    joined = torch.cat(list(weights), dim=1)
    # Turned round: a product of few rows with many columns is several times as fast as the other way.
    gradient, sums = torch.zeros_like(joined.T), torch.zeros(count, dtype=torch.float64, device=x.device)
    labels = torch.stack([problem.labels for problem in problems], dim=1)
    for start in range(0, len(x), ROWS):
        rows, gold = x[start : start + ROWS], labels[start : start + ROWS, :, None]
        chances = torch.addmm(joined[-1], rows, joined[:-1]).unflatten(1, (count, classes)).log_softmax(dim=2)
        sums -= chances.gather(2, gold)[:, :, 0].sum(dim=0, dtype=torch.float64)
        pulls = chances.exp_().scatter_add_(2, gold, chances.new_full(gold.shape, -1.0)).flatten(1)
        gradient[:, :-1].addmm_(pulls.T, rows)
        gradient[:, -1] += pulls.sum(dim=0)
    gradient = gradient.T / len(x)
    answers = []
    for problem, at, slope, total in zip(problems, weights, gradient.split(classes, dim=1), sums.tolist(), strict=True):
        loss = total / len(x) + problem.penalty / 2 * float(at[:-1].double().square().sum())
        answers.append((loss, torch.cat([slope[:-1] + problem.penalty * at[:-1], slope[-1:]])))
    return answers


def _descent(at: Tensor, inverse: _Inverse, tolerance: float, steps: int) -> _Dialogue:
    """L-BFGS as a dialogue: it asks for loss and gradient at a place, and gives at last where it has come."""
    loss, gradient = yield at
    past: list[tuple[Tensor, Tensor, float]] = []
    for _ in range(steps):
        if not loss < float("inf"):
            raise NonFiniteError("the loss of a probe is NaN or infinity: look at the activations")
        direction = -_solved(gradient, past, inverse)
        slope = float((direction * gradient).sum())
        if slope >= 0:  # rounding: what is remembered no longer fits
            past, direction = [], -inverse.solve(gradient)
            slope = float((direction * gradient).sum())
        if -slope / 2 <= tolerance:  # Newton's decrement
            break
        length = 1.0
        while length >= LEAST_STEP:
            step = length * direction
            new_loss, new_gradient = yield at + step
            if new_loss <= loss + SUFFICIENT * length * slope:
                break
            # The lowest point of the parabola through what is known, kept within a tenth and a half of the step.
            rise = new_loss - loss - length * slope
            length *= min(max(-slope * length / (2 * rise), 0.1), 0.5) if rise > 0 else 0.5
        else:  # no smaller loss can be told apart from rounding
            break
        change = new_gradient - gradient
        product = float((step * change).sum())
        if product > 0:
            past = [*past, (step, change, 1 / product)][-REMEMBERED:]
        at, loss, gradient = at + step, new_loss, new_gradient
    return at


def _solved(gradient: Tensor, past: Sequence[tuple[Tensor, Tensor, float]], inverse: _Inverse) -> Tensor:
    """The gradient times the inverse curvature as it is known (the two loops of L-BFGS around the preconditioner)."""
    q, shares = gradient, []
    for step, change, scale in reversed(past):
        share = scale * float((step * q).sum())
        shares.append(share)
        q = q - share * change
    r = inverse.solve(q)
    if past:
        _, change, scale = past[-1]
        r = r / (scale * float((change * inverse.solve(change)).sum()))
    for (step, change, scale), share in zip(past, reversed(shares), strict=True):
        r = r + step * (share - scale * float((change * r).sum()))
    return r


def scores_of(x: Float[Tensor, "word width"], weights: Float[Tensor, "row class"]) -> Float[Tensor, "word class"]:
    """Log-odds of each class (up to a constant a word)."""
    return torch.addmm(weights[-1], x, weights[:-1])
