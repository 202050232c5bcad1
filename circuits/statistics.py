"""How sure a number is: intervals, standard errors, tests, and how two rankings agree.

Resampling is over prompts (or sequences): it says what other prompts of the kind would give, nothing of other models.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.errors import CircuitsError

TAILS = (0.025, 0.975)
"""Where a 95 % interval ends."""
FEWEST = 5
"""Independent prompts that it takes to prove something: where all of n agree, chance alone does that with 2^-n (the sign test),
which is at most .05 from n = 5 on. Nor do resamples of fewer say how sure a mean is: percentile intervals are too narrow by
sqrt((n - 1) / n) and the tails of a t-distribution (Hesterberg 2015)."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """A mean over prompts with its 95 % bootstrap interval."""

    effect: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The three numbers, as they stand in circuit files."""
        return dataclasses.asdict(self)


def percentile_interval(drawn: Float[Tensor, "*row draw"]) -> tuple[Float[Tensor, "*row"], Float[Tensor, "*row"]]:
    """Where the middle 95 % of the draws begin and end, interpolated linearly between draws; float64.

    Raises CircuitsError without draws.
    """
    if not drawn.shape[-1]:
        raise CircuitsError("an interval of no draws: expected at least one")
    low, high = drawn.double().quantile(torch.tensor(TAILS, dtype=torch.float64, device=drawn.device), dim=-1)
    return low, high


def bootstrap(values: Float[Tensor, " prompt"], *, seed: int = 0, resamples: int = 2000) -> Effect:
    """Mean over prompts and the percentile interval of the means of resampled prompts (Efron 1979).

    With a single prompt nothing can be resampled: the interval is the mean itself. Raises CircuitsError without prompts.
    """
    values = values.double().cpu()
    low, high = percentile_interval(values[_resampled(len(values), seed, resamples)].mean(dim=1))
    return Effect(float(values.mean()), float(low), float(high))


def ratio_intervals(
    changes: Float[Tensor, "patch prompt"], gaps: Float[Tensor, " prompt"], *, seed: int = 0, resamples: int = 2000
) -> list[Effect]:
    """For each patch its mean change over the mean gap, with the percentile interval over resampled prompts; the same
    resamples serve every patch. With a single prompt nothing can be resampled: the interval is the effect itself. Raises
    CircuitsError without prompts."""
    changes, gaps = changes.double().cpu(), gaps.double().cpu()
    drawn = _resampled(len(gaps), seed, resamples)
    # How often each prompt was drawn: a resample's sum is then one product, for all patches together.
    weights = torch.zeros(resamples, len(gaps), dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    effects: list[Effect] = []
    for part in changes.split(4096) if len(changes) else ():
        low, high = percentile_interval((part @ weights.T) / (weights @ gaps))
        means = part.mean(dim=1) / gaps.mean()
        effects += [Effect(*values) for values in zip(means.tolist(), low.tolist(), high.tolist(), strict=True)]
    return effects


def _resampled(count: int, seed: int, resamples: int) -> Int[Tensor, "resample prompt"]:
    """Prompts drawn with replacement, as many as there are, time and again."""
    if not count:
        raise CircuitsError("a bootstrap of no prompts: expected at least one")
    return torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))


def share_interval(share: float, count: int) -> Effect:
    """A share of `count` independent trials with Wilson's 95 % interval (1927), which lies within 0 and 1 and is no point where
    all or none succeed. Raises CircuitsError without trials, or for what is no share."""
    if count < 1 or not 0 <= share <= 1:
        raise CircuitsError(f"a share of {share} of {count} trials: expected one from 0 to 1, of at least one")
    z = 1.959963984540054
    middle, width = (share + z * z / (2 * count)), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z * z / count
    return Effect(share, max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale))


def paired_difference(first: Bool[Tensor, " case"], second: Bool[Tensor, " case"]) -> Effect:
    """By how much a share is larger than another of the same cases, first less second, with Newcombe's 95 % interval (1998,
    method 10: of both Wilson intervals and the correlation between the two), which is no point where they never differ.

    Raises CircuitsError without cases, or for as many of one as not of the other.
    """
    if not len(first) or len(first) != len(second):
        raise CircuitsError(f"{len(first)} cases and {len(second)}: expected the same, one or more")
    count, both = len(first), int((first & second).sum())
    mine, theirs = int(first.sum()), int(second.sum())
    one, other = share_interval(mine / count, count), share_interval(theirs / count, count)
    together = both * count - mine * theirs
    spread = math.sqrt(mine * (count - mine) * theirs * (count - theirs))
    # Corrected for continuity where they go together, as in the paper; 0 where one of them never varies.
    alike = (max(0.0, together - count / 2) if together > 0 else together) / spread if spread else 0.0
    difference = one.effect - other.effect

    def reach(a: float, b: float) -> float:
        """How far the interval goes to one side, by what either share's own goes there."""
        return math.sqrt(max(0.0, a * a - 2 * alike * a * b + b * b))

    below = reach(one.effect - one.low, other.high - other.effect)
    above = reach(one.high - one.effect, other.effect - other.low)
    return Effect(difference, max(-1.0, difference - below), min(1.0, difference + above))


def standard_error(values: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """The standard error of the mean along an axis, sd / sqrt(n) with n - 1 in the sd; NaN for a single value."""
    count = values.shape[dim]
    if count < 2:
        return torch.full_like(values.sum(dim=dim), torch.nan)
    return values.std(dim=dim) / count**0.5


def clustered_errors(values: Float[Tensor, "case column"], cluster: Int[Tensor, " case"]) -> Float[Tensor, " column"]:
    """Standard errors of the columns' means, where cases of one cluster may depend on each other (Liang & Zeger 1986): the
    root of the summed squares of each cluster's summed deviations, over the number of cases. No correction for few clusters."""
    centred = values - values.mean(dim=0)
    _, index = cluster.unique(return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1, values.shape[1], dtype=values.dtype).index_add_(0, index, centred)
    return sums.square().sum(dim=0).sqrt() / len(values)


def p_value(effect: float, null: Sequence[float]) -> float:
    """Chance of an effect at least as large under the null: (1 + how many null effects reach it) / (1 + how many)."""
    return (1 + sum(other >= effect for other in null)) / (1 + len(null))


@dataclasses.dataclass(frozen=True)
class Chance:
    """How an effect stands against draws of a null that were made one after the other until it was decided."""

    p_value: float
    null: tuple[float, ...]
    """The null effects that were looked at, in the order in which they were drawn."""
    reached: int
    """How many of them are at least as large as the effect."""
    most: int
    """How many would have been drawn at most."""

    @property
    def decided(self) -> bool:
        """Whether it ended before the last draw: so many null effects reach the effect that more would change no answer."""
        return len(self.null) < self.most


def sequential_p_value(
    effect: float, draws: Iterable[Sequence[float]], *, most: int, level: float = 0.05, reach: int | None = None
) -> Chance:
    """The p-value of an effect against a null that costs a run a draw: batches of null effects are taken from `draws` until
    `reach` of them are at least as large as the effect, or `most` have been looked at (Besag & Clifford 1991).

    Ended by the l-th draw: p = reach / l; else (1 + how many reach it) / (1 + `most`). Valid either way: under the null,
    P(p <= a) is at most a. What a batch holds beyond the end is not looked at. Raises CircuitsError for `most` or `reach`
    below 1, for an effect that is NaN, and where draws run out.

    Args:
        effect: what is tested; large values count against the null.
        draws: null effects in batches, each made when it is asked for.
        most: how many draws there are at most. None reaching it, 19 give p = .05, 99 give p = .01, 100 less.
        level: the p-value that matters to the caller.
        reach: how many null effects end it (default: the fewest that leave p above `level` wherever they are reached).
    """
    reach = math.floor(level * most + 1e-9) + 1 if reach is None else reach
    if math.isnan(effect):
        raise CircuitsError("a sequential test of an effect that is NaN: expected a number")
    if most < 1 or reach < 1:
        raise CircuitsError(f"a sequential test of at most {most} draws that {reach} end: expected at least 1 of each")
    null: list[float] = []
    reached, batches = 0, iter(draws)
    while len(null) < most:
        batch = list(next(batches, ()))
        if not batch:
            raise CircuitsError(f"a sequential test ran out of draws: {len(null)} of {most}")
        for other in batch[: most - len(null)]:
            null.append(other)
            reached += other >= effect
            if reached == reach:
                return Chance(reach / len(null), tuple(null), reached, most)
    return Chance((1 + reached) / (1 + most), tuple(null), reached, most)


def mcnemar(wins: int, losses: int, *, two_sided: bool = False) -> float:
    """Exact McNemar test of two answerers on the same cases: the chance of so many wins or more where a case on which just one
    of them is right goes to either with probability 1/2. Cases on which both or none are right do not count.

    Raises CircuitsError for negative counts.

    Args:
        wins: cases on which the first alone is right.
        losses: cases on which the second alone is right.
        two_sided: the chance of counts so far apart, whichever is larger.
    """
    if wins < 0 or losses < 0:
        raise CircuitsError(f"{wins} wins and {losses} losses: expected counts of at least 0")
    if two_sided:
        return min(1.0, 2 * mcnemar(max(wins, losses), min(wins, losses)))
    if not wins:
        return 1.0
    trials = wins + losses
    heads = torch.arange(wins, trials + 1, dtype=torch.float64)
    # In logarithms: the numbers of ways overflow at a thousand trials.
    ways = math.lgamma(trials + 1) - torch.lgamma(heads + 1) - torch.lgamma(trials - heads + 1)
    return min(1.0, float((ways.logsumexp(dim=0) - trials * math.log(2)).exp()))


def t_test(values: Float[Tensor, " prompt"]) -> float:
    """One-sided p-value of Student's t-test: the chance of a mean so far above zero where values are normal around zero. 1 for
    a single value, which says nothing of how far values spread. Raises CircuitsError without values."""
    if not len(values):
        raise CircuitsError("a t-test of no values: expected at least two")
    mean, error = float(values.double().mean()), float(standard_error(values.double()))
    if not error > 0:
        return float(not (len(values) > 1 and mean > 0))
    return _t_tail(mean / error, len(values) - 1)


def t_interval(values: Float[Tensor, " prompt"]) -> Effect:
    """Mean over prompts with Student's 95 % interval: wide enough also for few prompts, where a bootstrap is not. Raises
    CircuitsError for fewer than two values."""
    if len(values) < 2:
        raise CircuitsError(f"Student's interval of {len(values)} values: expected at least two")
    mean, error = float(values.double().mean()), float(standard_error(values.double()))
    # The density of `_t_tail`, summed from the middle outwards to where 2.5 % are left on either side.
    angles = torch.linspace(0, math.pi / 2, 4097, dtype=torch.float64)
    inside = torch.cumulative_trapezoid(angles.cos() ** (len(values) - 2), angles)
    beyond = int(torch.searchsorted(inside, (1 - 2 * TAILS[0]) * inside[-1]))
    before = float(inside[beyond - 1]) if beyond else 0.0
    within = ((1 - 2 * TAILS[0]) * float(inside[-1]) - before) / (float(inside[beyond]) - before)
    reach = error * (len(values) - 1) ** 0.5 * math.tan(float(angles[beyond]) + within * float(angles[1]))
    return Effect(mean, mean - reach, mean + reach)


def _t_tail(t: float, freedom: int) -> float:
    """The chance of Student's t above `t`."""
    # With t = sqrt(freedom) tan(angle) the density is a power of the cosine.
    angles = torch.linspace(math.atan(t / freedom**0.5), math.pi / 2, 4097, dtype=torch.float64)
    area = float(torch.trapezoid(angles.cos() ** (freedom - 1), angles))
    return area * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.pi**0.5


def bonferroni(p_values: Float[Tensor, "*test"]) -> Float[Tensor, "*test"]:
    """The p-values of as many tests, each times their number, at most 1: the chance of any false alarm stays below them."""
    return (p_values * p_values.numel()).clamp(max=1.0)


def holm(p_values: Float[Tensor, " test"]) -> Float[Tensor, " test"]:
    """The p-values of as many tests, corrected (Holm 1979): the smallest times their number, the next times one less, and so
    on, none below one before it, at most 1. The chance of any false alarm stays below them, as with `bonferroni`, whose are
    never smaller."""
    ordered, order = p_values.sort()
    times = torch.arange(len(p_values), 0, -1, dtype=p_values.dtype, device=p_values.device)
    found = torch.empty_like(p_values)
    found[order] = (ordered * times).cummax(dim=0).values.clamp(max=1.0) if len(p_values) else ordered
    return found


def spearman(first: Float[Tensor, " item"], second: Float[Tensor, " item"]) -> float:
    """Spearman's rank correlation, -1 to 1: 1 = the same order. Ties share their mean rank. NaN where all values of one side
    are equal, where any is NaN, and for fewer than two items."""
    if len(first) < 2:
        return math.nan
    ranks = [pd.Series(values.double().tolist()).rank().tolist() for values in (first, second)]
    return float(torch.corrcoef(torch.tensor(ranks, dtype=torch.float64))[0, 1])


def kendall(first: Float[Tensor, " item"], second: Float[Tensor, " item"]) -> float:
    """Kendall's rank correlation tau-b, -1 to 1: pairs of items in the same order less those in the other, over the root of the
    product of the pairs that differ on each side. NaN where all values of one side are equal, or any is NaN."""
    if not bool((first.isfinite() & second.isfinite()).all()):
        return math.nan
    signs = [(values.double()[:, None] - values.double()).sign() for values in (first, second)]
    differ = float(signs[0].abs().sum() * signs[1].abs().sum()) ** 0.5
    return float((signs[0] * signs[1]).sum()) / differ if differ else math.nan
