"""Neurons chosen one after the other by how well a Gaussian a class tells the labels of words not seen (Torroba Hennigen 2020).

Each class is a Gaussian over all neurons, a maximum a posteriori estimate. What it says of some neurons alone is its marginal,
so nothing is fitted anew while neurons are chosen. To add neuron j to chosen ones C, only the density of h_j given h_C is
needed: a normal whose mean and variance are one row of a Cholesky factor. Its row is made for all candidates at once, one
column each time a neuron is chosen (the determinant grows by one factor), so that choosing k of n neurons on w words costs
about k w n k operations a class, where fitting each candidate from scratch costs k n (w k k + k^3).
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError, NonFiniteError
from circuits.progress import Progress, silent

PULL = 0.01
"""Words that the prior of a class's mean counts as."""
WORDS = 64
"""Words of a block: what it needs a class and candidate stays in the processor's cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussians:
    """A Gaussian a class over neurons, and how often each class is."""

    means: Float[Tensor, "class neuron"]
    covariances: Float[Tensor, "class neuron neuron"]
    log_shares: Float[Tensor, " class"]

    @classmethod
    def of(cls, x: Float[Tensor, "word neuron"], labels: Int[Tensor, " word"], *, classes: int) -> "Gaussians":
        """What a normal-inverse-Wishart prior and the words of a class make likely of its mean and covariance: their means a
        posteriori. The prior's mean is that of all words (worth 0.01 word), its scale each neuron's variance over all words
        (worth one word), its degrees of freedom the neurons and two. A neuron that never changes has variance 1 there.

        The covariance is not the most likely one: that divides by 2 × neurons + 4 words more than a class has, so that rare
        classes would be many times too narrow beside frequent ones wherever neurons are more than words.

        Raises CircuitsError for labels out of range or a class without a word, NonFiniteError for vectors that hold NaN or
        infinity.
        """
        if len(labels) != len(x) or not len(x) or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise CircuitsError(f"{len(labels)} labels of {len(x)} words: expected one a word, from 0 to {classes - 1}")
        if not bool(x.isfinite().all()):
            raise NonFiniteError("activations hold NaN or infinity: no Gaussian has them")
        counts = labels.bincount(minlength=classes)
        if not bool(counts.all()):
            raise CircuitsError(f"class {int(counts.argmin())} has no word to fit its Gaussian to")
        variance, centre = torch.var_mean(x, dim=0, correction=0)
        variance = torch.where(variance > 0, variance, torch.ones_like(variance))
        means, covariances = [], []
        for label in range(classes):
            own = x[labels == label]
            mean = own.mean(dim=0)
            apart, away = own - mean, mean - centre
            scatter = apart.T @ apart + PULL * len(own) / (PULL + len(own)) * torch.outer(away, away)
            # Mean S / (ν + words - width - 1), where ν = width + 2.
            covariances.append((scatter + variance.diag()) / (1 + len(own)))
            means.append((own.sum(dim=0) + PULL * centre) / (len(own) + PULL))
        return cls(torch.stack(means), torch.stack(covariances), (counts / len(x)).to(x).log())


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """Neurons in the order in which they were chosen, and what the first of them are worth on words not fitted to."""

    neurons: Int[Tensor, " step"]
    bits: Float[Tensor, " step"]
    """What the neurons up to here tell of the label, in bits a word: the entropy of the labels less the mean cost of naming
    them (a lower bound of the mutual information; it can be below 0)."""
    accuracy: Float[Tensor, " step"]


@torch.no_grad()
def choose_by_gaussians(
    gaussians: Gaussians,
    x: Float[Tensor, "word neuron"],
    labels: Int[Tensor, " word"],
    *,
    count: int,
    progress: Progress | None = None,
) -> Chosen:
    """The neurons whose marginal Gaussians give the labels of these words the highest likelihood, chosen one at a time; of
    equal ones the first. Computed in float64.

    Raises CircuitsError for fewer than one or more neurons than there are.

    Args:
        gaussians: fitted on other words.
        x: the words that neurons are chosen by.
        labels: their classes.
        count: how many neurons are chosen.
        progress: hears what is being done.
    """
    width = x.shape[1]
    if not 0 < count <= width:
        raise CircuitsError(f"count={count}: expected from 1 to the {width} neurons that there are")
    state = _Greedy.begin(gaussians, x.double(), labels)
    entropy = _entropy(labels, len(gaussians.means))
    chosen, bits, right = [], [], []
    for step in range(count):
        gains = state.gains()
        gains[chosen] = -math.inf
        best = int(gains.argmax())
        chosen.append(best)
        state.take(best)
        told = state.joint - state.joint.logsumexp(dim=1, keepdim=True)
        bits.append(entropy + float(told.gather(1, labels[:, None]).mean()) / math.log(2))
        right.append(float((told.argmax(dim=1) == labels).double().mean()))
        (progress or silent)("choosing neurons", step + 1, count)
    return Chosen(torch.tensor(chosen), torch.tensor(bits), torch.tensor(right))


def _entropy(labels: Tensor, classes: int) -> float:
    """Of the labels, in bits."""
    shares = labels.bincount(minlength=classes) / len(labels)
    return float(-torch.special.xlogy(shares, shares).sum()) / math.log(2)


@dataclasses.dataclass(eq=False)
class _Greedy:
    """What is known when some neurons are chosen. `joint`: log of the class's share times its density at the chosen neurons,
    `[word class]`; `factors`: of each class the rows of its Cholesky factor, `[class chosen neuron]`, the chosen neurons first
    in the order chosen, which all others are regressed on; `known`: the words' coordinates in it, `[class word chosen]`;
    `left`: variance that the chosen neurons leave, `[class neuron]`."""

    x: Tensor
    labels: Tensor
    means: Tensor
    covariances: Tensor
    joint: Tensor
    factors: Tensor
    known: Tensor
    left: Tensor

    @classmethod
    def begin(cls, gaussians: Gaussians, x: Tensor, labels: Tensor) -> "_Greedy":
        """Nothing is chosen."""
        means, covariances = gaussians.means.double(), gaussians.covariances.double()
        classes, width = means.shape
        joint = gaussians.log_shares.double().expand(len(x), -1).clone()
        left = covariances.diagonal(dim1=1, dim2=2).clone()
        return cls(x, labels, means, covariances, joint, x.new_zeros(classes, 0, width), x.new_zeros(classes, len(x), 0), left)

    def gains(self) -> Float[Tensor, " neuron"]:
        """The log-likelihood of all labels with each neuron added."""
        scale = self.left.clamp(min=_TINY).rsqrt()
        # (x - mean - known · factor) · scale as one product a class: the mean is a column of its own beside the factor's.
        shift = torch.cat([self.means[:, None], self.factors], dim=1) * scale[:, None]
        constant = scale.log()
        total = self.x.new_zeros(self.x.shape[1])
        for start in range(0, len(self.x), WORDS):
            rows = slice(start, start + WORDS)
            x, labels = self.x[rows], self.labels[rows]
            one = x.new_ones(len(self.means), len(x), 1)
            apart = torch.baddbmm(x * scale[:, None], torch.cat([one, self.known[:, rows]], dim=2), shift, alpha=-1)
            terms = apart.square_().mul_(-0.5).add_(constant[:, None]).add_(self.joint[rows].T[:, :, None])
            own = terms[labels, torch.arange(len(x))].sum(dim=0)
            top = terms.amax(dim=0)
            total += own - top.sum(dim=0) - terms.sub_(top).exp_().sum(dim=0).log_().sum(dim=0)
        return total

    def take(self, neuron: int) -> None:
        """Choose a neuron: one more column of each factor, one more coordinate of each word."""
        scale = self.left[:, neuron].clamp(min=_TINY).rsqrt()
        explained = torch.einsum("kcn,kc->kn", self.factors, self.factors[:, :, neuron])
        row = (self.covariances[:, neuron] - explained) * scale[:, None]
        expected = self.means[:, neuron, None] + torch.einsum("kwc,kc->kw", self.known, self.factors[:, :, neuron])
        new = (self.x[:, neuron] - expected) * scale[:, None]
        self.joint += (scale.log()[:, None] - new.square() / 2).T
        self.factors = torch.cat([self.factors, row[:, None]], dim=1)
        self.known = torch.cat([self.known, new[:, :, None]], dim=2)
        self.left -= row.square()


_TINY = 1e-12
"""Variance below that is rounding: a neuron that the chosen ones give exactly."""


def top_of(chosen: Chosen, width: int, rest: Sequence[float] | Float[Tensor, " neuron"]) -> Int[Tensor, " neuron"]:
    """A ranking of all neurons: the chosen ones in their order, then the others by `rest`, the largest first."""
    others = torch.as_tensor(rest, dtype=torch.float64).clone()
    others[chosen.neurons] = -math.inf
    order = others.argsort(descending=True, stable=True)
    return torch.cat([chosen.neurons, order[: width - len(chosen.neurons)]])
