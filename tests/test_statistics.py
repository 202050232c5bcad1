"""Statistics against slow references written out sum by sum, and against laws that they must keep."""

import dataclasses
import itertools
import math
import random
from fractions import Fraction

import pytest
import torch

from circuits.errors import CircuitsError
from circuits.statistics import (
    Effect,
    bonferroni,
    bootstrap,
    clustered_errors,
    holm,
    mcnemar,
    p_value,
    paired_difference,
    percentile_interval,
    ratio_intervals,
    sequential_p_value,
    spearman,
    standard_error,
    t_interval,
    t_test,
)


def slow_quantile(values: list[float], share: float) -> float:
    """Between the two order statistics around share × (n - 1), linearly."""
    values, place = sorted(values), share * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def slow_spearman(first: list[float], second: list[float]) -> float:
    """Pearson's correlation of ranks, each rank a count of smaller and half of the equal ones."""
    ranks = [[sum(a < b for a in row) + (sum(a == b for a in row) + 1) / 2 for b in row] for row in (first, second)]
    means = [sum(row) / len(row) for row in ranks]
    one, other = ([value - mean for value in row] for row, mean in zip(ranks, means, strict=True))
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


@pytest.mark.parametrize("count", [1, 2, 3, 40, 41, 200])
def test_percentile_intervals_are_interpolated_order_statistics(count: int) -> None:
    drawn = torch.randn(2, 3, count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    low, high = percentile_interval(drawn)
    assert low.shape == high.shape == (2, 3)
    for at in itertools.product(range(2), range(3)):
        values = drawn[at].tolist()
        assert float(low[at]) == pytest.approx(slow_quantile(values, 0.025), abs=1e-12)
        assert float(high[at]) == pytest.approx(slow_quantile(values, 0.975), abs=1e-12)


def test_percentile_intervals_of_small_floats_are_made_in_float64() -> None:
    low, high = percentile_interval(torch.tensor([1.0, 2.0], dtype=torch.bfloat16))
    assert (low.dtype, high.dtype) == (torch.float64, torch.float64)
    assert (float(low), float(high)) == pytest.approx((1.025, 1.975), abs=1e-12)


def test_a_bootstrap_is_means_of_resampled_prompts() -> None:
    values, seed, resamples = [0.5, -1.0, 4.0, 2.0, 2.0], 7, 300
    drawn = torch.randint(5, (resamples, 5), generator=torch.Generator().manual_seed(seed)).tolist()
    means = [sum(values[place] for place in row) / 5 for row in drawn]
    found = bootstrap(torch.tensor(values), seed=seed, resamples=resamples)
    expected = (1.5, slow_quantile(means, 0.025), slow_quantile(means, 0.975))
    assert dataclasses.astuple(found) == pytest.approx(expected, abs=1e-12)


def test_bootstrap_interval_covers_the_mean_of_a_normal_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(200):
        effect = bootstrap(torch.randn(40, generator=generator) + 1.0, seed=seed, resamples=500)
        covered += effect.low <= 1.0 <= effect.high
    assert 175 <= covered <= 198
    constant = bootstrap(torch.full((7,), 2.0))
    assert dataclasses.astuple(constant) == (2.0, 2.0, 2.0)


def test_ratio_intervals_are_ratios_of_sums_over_the_same_resamples() -> None:
    rng, seed, resamples = random.Random(3), 5, 200
    gaps = [1 + rng.random() for _ in range(6)]
    changes = [[rng.gauss(0, 1) for _ in range(6)] for _ in range(3)]
    drawn = torch.randint(6, (resamples, 6), generator=torch.Generator().manual_seed(seed)).tolist()
    found = ratio_intervals(torch.tensor(changes).double(), torch.tensor(gaps).double(), seed=seed, resamples=resamples)
    for row, effect in zip(changes, found, strict=True):
        ratios = [sum(row[p] for p in draw) / sum(gaps[p] for p in draw) for draw in drawn]
        expected = (sum(row) / sum(gaps), slow_quantile(ratios, 0.025), slow_quantile(ratios, 0.975))
        assert dataclasses.astuple(effect) == pytest.approx(expected, rel=1e-6)


def test_ratios_are_the_same_in_whatever_company_a_patch_is() -> None:
    changes = torch.randn(4100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gaps = torch.tensor([1.0, 2.0, 0.5])
    whole = ratio_intervals(changes, gaps, resamples=50)
    for row in (0, 4095, 4096, 4099):
        alone = ratio_intervals(changes[row : row + 1], gaps, resamples=50)[0]
        assert dataclasses.astuple(whole[row]) == pytest.approx(dataclasses.astuple(alone), rel=1e-12)
    assert ratio_intervals(torch.zeros(0, 3), gaps) == []


def test_one_prompt_is_its_own_interval() -> None:
    assert bootstrap(torch.tensor([3.0])) == Effect(3.0, 3.0, 3.0)
    assert ratio_intervals(torch.tensor([[3.0]]), torch.tensor([2.0])) == [Effect(1.5, 1.5, 1.5)]


def test_nothing_has_no_interval() -> None:
    for ask in (lambda none: bootstrap(none), lambda none: ratio_intervals(none[None], none)):
        with pytest.raises(CircuitsError, match="no prompts"):
            ask(torch.zeros(0))
    with pytest.raises(CircuitsError, match="no draws"):
        percentile_interval(torch.zeros(2, 0))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_standard_errors_are_root_mean_squares_over_the_axis(dim: int) -> None:
    values = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for column, error in zip(values.movedim(dim, 0).T.tolist(), standard_error(values, dim).tolist(), strict=True):
        mean, count = sum(column) / len(column), len(column)
        assert error == pytest.approx(math.sqrt(sum((one - mean) ** 2 for one in column) / (count - 1) / count), rel=1e-12)


def test_one_value_has_no_standard_error() -> None:
    alone = standard_error(torch.ones(3, 1))
    assert alone.shape == (3,) and alone.isnan().all()
    assert standard_error(torch.ones(1, 3), dim=0).isnan().all()


def test_clustered_errors_are_sums_over_clusters() -> None:
    rng = random.Random(4)
    values, clusters = [[rng.random(), rng.random()] for _ in range(20)], [rng.choice([3, 5, 11, 40]) for _ in range(20)]
    found = clustered_errors(torch.tensor(values).double(), torch.tensor(clusters))
    for column in range(2):
        mean = sum(row[column] for row in values) / 20
        sums = [sum(r[column] - mean for r, own in zip(values, clusters, strict=True) if own == one) for one in set(clusters)]
        assert float(found[column]) == pytest.approx(math.sqrt(sum(one * one for one in sums)) / 20, rel=1e-6)


def test_clustered_errors_have_their_closed_forms() -> None:
    values = torch.tensor([[1.0], [1.0], [1.0], [0.0]], dtype=torch.float64)
    assert float(clustered_errors(values, torch.arange(4))[0]) == pytest.approx((3 / 16 / 4) ** 0.5)
    assert float(clustered_errors(values, torch.tensor([0, 0, 1, 1]))[0]) == pytest.approx((2 * 0.25) ** 0.5 / 4)
    twice = clustered_errors(values.repeat_interleave(2, dim=0), torch.arange(4).repeat_interleave(2))
    assert float(twice[0]) == pytest.approx(float(clustered_errors(values, torch.arange(4))[0])), "copies tell nothing new"


def test_p_value_counts_the_null() -> None:
    assert p_value(3.0, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(3 / 5)
    assert p_value(9.0, [1.0] * 19) == pytest.approx(0.05)
    assert p_value(0.0, []) == 1.0


def test_a_sequential_test_of_a_large_effect_is_the_ordinary_one() -> None:
    for most, share in ((19, 1 / 20), (99, 0.01), (128, 1 / 129)):
        found = sequential_p_value(9.0, iter([[1.0] * 8] * 20), most=most)
        assert found.p_value == pytest.approx(share) and len(found.null) == most and not found.decided
    some = sequential_p_value(2.0, [[1.0, 2.0, 0.0], [3.0] + [0.0] * 96], most=99)
    assert some.p_value == p_value(2.0, some.null) == pytest.approx(3 / 100) and some.reached == 2


def test_a_sequential_test_ends_where_enough_reach_it_and_asks_for_no_more() -> None:
    asked: list[int] = []

    def draws():
        for batch in itertools.count():
            asked.append(batch)
            yield [0.0, 1.0, 1.0, 0.0]

    found = sequential_p_value(1.0, draws(), most=128, reach=5)
    assert found.p_value == pytest.approx(5 / 10) and len(found.null) == 10 and found.decided and asked == [0, 1, 2]


@pytest.mark.parametrize("most", [1, 19, 20, 40, 99, 100, 128])
def test_a_sequential_test_that_ends_early_never_falls_to_its_level(most: int) -> None:
    """The latest end there is: all that reach the effect come last."""
    reach = next(count for count in range(1, most + 1) if Fraction(count, most) > Fraction(1, 20))
    found = sequential_p_value(1.0, [[0.0] * (most - reach) + [1.0] * reach], most=most)
    assert found.p_value > 0.05
    if reach > 1:
        fewer = sequential_p_value(1.0, [[0.0] * (most - reach + 1) + [1.0] * (reach - 1)], most=most)
        assert not fewer.decided and fewer.reached == reach - 1, "one fewer does not end it"


def test_a_sequential_p_value_is_not_small_too_often_under_the_null() -> None:
    draw, small = random.Random(0), 0
    for _ in range(2000):
        found = sequential_p_value(draw.random(), ([draw.random()] for _ in itertools.count()), most=39)
        small += found.p_value <= 0.05
    assert 60 <= small <= 100 + 3 * 10


def test_a_sequential_test_needs_draws() -> None:
    for draws, options in (
        ([[1.0]], {"most": 2}),
        ([], {"most": 1}),
        ([[1.0]], {"most": 0}),
        ([[1.0]], {"most": 1, "reach": 0}),
    ):
        with pytest.raises(CircuitsError, match="sequential test"):
            sequential_p_value(2.0, draws, **options)


@pytest.mark.parametrize("trials", [1, 2, 7, 30, 1200])
def test_mcnemar_is_the_exact_tail_of_a_fair_coin(trials: int) -> None:
    for wins in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        ways = Fraction(sum(math.comb(trials, heads) for heads in range(wins, trials + 1)), 2**trials)
        assert mcnemar(wins, trials - wins) == pytest.approx(float(ways), rel=1e-9)


def test_mcnemar_of_no_cases_shows_nothing_and_negative_counts_are_refused() -> None:
    assert mcnemar(0, 0) == mcnemar(0, 0, two_sided=True) == mcnemar(3, 3, two_sided=True) == 1.0
    assert mcnemar(1, 8, two_sided=True) == mcnemar(8, 1, two_sided=True) == 2 * mcnemar(8, 1) and mcnemar(1, 8) > 0.99
    with pytest.raises(CircuitsError, match="-1 losses"):
        mcnemar(2, -1)


def test_bonferroni_multiplies_by_the_number_of_tests_up_to_one() -> None:
    found = bonferroni(torch.tensor([[0.01, 0.2], [0.5, 1.0]], dtype=torch.float64))
    assert found.tolist() == [[0.04, 0.8], [1.0, 1.0]]


def test_holm_corrects_the_smallest_most_and_keeps_the_order() -> None:
    found = holm(torch.tensor([0.5, 0.01, 0.03, 0.02], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm(torch.tensor([0.9, 0.8])).tolist() == pytest.approx([1.0, 1.0]) and holm(torch.zeros(0)).tolist() == []


def test_the_interval_of_a_paired_difference_holds_the_true_one_in_19_of_20_sets_of_cases() -> None:
    def cases(both: int, first: int, second: int, none: int) -> tuple[torch.Tensor, torch.Tensor]:
        sides = ((1, 1, both), (1, 0, first), (0, 1, second), (0, 0, none))
        rows = [(one, other) for one, other, count in sides for _ in range(count)]
        found = torch.tensor(rows, dtype=torch.bool)
        return found[:, 0], found[:, 1]

    found = paired_difference(*cases(36, 12, 2, 0))
    assert found.effect == pytest.approx(0.2) and (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=2e-4)
    turned = paired_difference(*cases(36, 2, 12, 0))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    same = paired_difference(*cases(10, 0, 0, 10))
    assert same.low < 0 < same.high, "never to differ in 20 cases is no proof"
    held, chances = 0.0, (0.4, 0.25, 0.1, 0.25)
    for both, first, second in itertools.product(range(13), repeat=3):
        if (none := 12 - both - first - second) < 0:
            continue
        counts = (both, first, second, none)
        ways = math.factorial(12) / math.prod(map(math.factorial, counts))
        interval = paired_difference(*cases(*counts))
        if interval.low <= 0.15 <= interval.high:
            held += ways * math.prod(chance**count for chance, count in zip(chances, counts, strict=True))
    assert 0.94 < held < 0.99
    with pytest.raises(CircuitsError, match="2 cases and 1"):
        paired_difference(torch.ones(2).bool(), torch.ones(1).bool())


@pytest.mark.parametrize("levels", [2, 3, 5, 1000])
def test_rank_correlation_counts_ranks(levels: int) -> None:
    rng = random.Random(levels)
    for _ in range(10):
        first, second = ([rng.randrange(levels) + 0.5 for _ in range(12)] for _ in range(2))
        found = spearman(torch.tensor(first), torch.tensor(second))
        assert found == pytest.approx(slow_spearman(first, second), abs=1e-12)
        assert found == pytest.approx(spearman(torch.tensor(second), torch.tensor(first)), abs=1e-12)


def test_rank_correlation_has_its_closed_form() -> None:
    rng = random.Random(2)
    for _ in range(20):
        first, second = ([rng.random() for _ in range(7)] for _ in range(2))
        ranks = [[sorted(values).index(value) for value in values] for values in (first, second)]
        squares = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
        assert spearman(torch.tensor(first), torch.tensor(second)) == pytest.approx(1 - 6 * squares / (7 * 48))
    ties = spearman(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert ties == pytest.approx(1.5 / (1.5 * 2) ** 0.5), "ties share their mean rank"
    ties = spearman(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert ties == pytest.approx((4.5 / 5) ** 0.5)


def test_rank_correlation_sees_order_alone() -> None:
    values = torch.tensor([0.3, -2.0, 1.5, 0.0, 9.0])
    assert spearman(values, values.exp()) == pytest.approx(1.0)
    assert spearman(values, -(values**3)) == pytest.approx(-1.0)
    assert spearman(values, torch.tensor([0.3, -math.inf, 1.5, 0.0, math.inf])) == pytest.approx(1.0), "infinities have ranks"


@pytest.mark.parametrize("first", [[1.0, 1.0, 1.0], [1.0, math.nan, 2.0], [0.1, 0.1, 0.1]])
def test_where_there_is_no_order_there_is_no_rank_correlation(first: list[float]) -> None:
    assert math.isnan(spearman(torch.tensor(first), torch.tensor([1.0, 2.0, 3.0])))
    assert math.isnan(spearman(torch.tensor([1.0]), torch.tensor([2.0])))
    assert math.isnan(spearman(torch.tensor([]), torch.tensor([])))


def test_t_has_its_closed_forms() -> None:
    for values in ([1.0, 2.5], [-1.0, 0.5], [0.3, 0.9, -0.4], [-2.0, -1.0, -1.5]):
        drawn = torch.tensor(values)
        t = float(drawn.double().mean() / (drawn.double().std() / len(values) ** 0.5))
        tail = 0.5 - math.atan(t) / math.pi if len(values) == 2 else 0.5 - t / (2 * math.sqrt(2 + t * t))
        assert t_test(drawn) == pytest.approx(tail, abs=1e-6)
    # The 97.5 % quantile of t with 7 degrees of freedom is 2.3646: a mean of that many standard errors.
    drawn = torch.linspace(-1, 1, 8, dtype=torch.float64)
    assert t_test(drawn + 2.3646 * drawn.std() / 8**0.5) == pytest.approx(0.025, abs=1e-5)


def test_t_of_values_that_do_not_spread_is_sure_and_of_one_value_is_not() -> None:
    assert t_test(torch.ones(3)) == 0.0 and t_test(-torch.ones(3)) == t_test(torch.zeros(3)) == t_test(torch.ones(1)) == 1.0
    with pytest.raises(CircuitsError, match="t-test of no values"):
        t_test(torch.zeros(0))
    with pytest.raises(CircuitsError, match="interval of 1 values"):
        t_interval(torch.ones(1))


def test_students_interval_holds_its_quantiles_and_covers_where_a_bootstrap_does_not() -> None:
    drawn = torch.tensor([0.0, 1.0, 2.0, 5.0])
    found, error = t_interval(drawn), float(drawn.double().std()) / 2
    assert (found.effect, found.high - 2.0) == (2.0, pytest.approx(3.18245 * error, abs=1e-4))
    assert t_interval(drawn[:2]).high == pytest.approx(0.5 + 12.7062 * 0.5, abs=1e-3)
    assert found.low + found.high == pytest.approx(4.0)
    samples = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    held = [sum(one.low <= 0 <= one.high for one in map(how, samples)) / 400 for how in (t_interval, bootstrap)]
    assert abs(held[0] - 0.95) < 0.03 and held[1] < 0.88
