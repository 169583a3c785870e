"""Intervals that hold at every look: what they are made of, that they are as short as they may be, and how often they miss the truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.rollout import sequential
from batchmill.rollout.evidence import Moments
from batchmill.rollout.sequential import EVERYTHING, MEANS_FROM
from reference import sequential as slow

GRID = [index / 400 for index in range(401)]
NEAR = 1 / 400 + 1e-6  # a step of the grid, and the precision of an end
levels = st.sampled_from([0.2, 0.05, 0.0026, 1e-6])
counts = st.integers(1, 10**9).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))
few = st.integers(1, 60).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))


def width(interval):
    return interval[1] - interval[0]


@pytest.mark.parametrize(("hits", "count", "alpha", "low", "high"), [
    (0, 0, 0.05, 0.0, 1.0),
    (0, 1, 0.05, 0.0, 0.975),                     # (1 - p) * 2 >= alpha
    (1, 1, 0.05, 0.025, 1.0),
    (0, 1000, 0.05, 0.0, 0.006998),
    (10, 1000, 0.05, 0.002406, 0.026164),
    (500_000_000, 1_000_000_000, 0.05, 0.4999176, 0.5000824),
])
def test_a_share_lies_in_its_interval(hits, count, alpha, low, high):
    assert sequential.proportion(hits, count, alpha) == pytest.approx((low, high), rel=1e-3)


@given(few, levels)
@settings(max_examples=60, deadline=None)
def test_an_interval_of_a_share_has_what_no_martingale_refutes(counted, alpha):
    wanted, got = slow.proportion(*counted, alpha, GRID), sequential.proportion(*counted, alpha)
    assert wanted is not None
    assert got == pytest.approx(wanted, abs=NEAR)
    assert got[0] <= wanted[0]
    assert got[1] >= wanted[1]


@given(few, few, levels)
@settings(max_examples=25, deadline=None)
def test_an_interval_of_a_difference_has_what_no_pair_of_martingales_refutes(one, other, alpha):
    shares = GRID[::5]
    wanted, got = slow.difference(*one, *other, alpha, shares), sequential.difference(*one, *other, alpha)
    assert got == pytest.approx(wanted, abs=2 / 80 + 1e-6)     # a step of the grid of each
    assert got[0] <= wanted[0]
    assert got[1] >= wanted[1]


@given(counts, counts, st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
def test_the_furthest_pair_of_shares_is_found_at_any_count(one, other, most):
    """By a multiplier; the twin spends what there is on the one and the other."""
    arms = one[0] / one[1], one[1], other[0] / other[1], other[1]
    got, wanted = sequential.most_apart(*arms, most), slow.most_apart(*arms, most, sequential.divergence)
    way = wanted - (arms[0] - arms[2])
    assert -1e-9 * way - 1e-15 <= got - wanted <= 1e-5 * way + 1e-15


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1e-12, 1 - 1e-12), st.floats(0, 1))
def test_the_divergence_of_shares_is_exact_however_close_they_are(share, p, near):
    for other in (p, share + (p - share) * near, share + (p - share) * 1e-6 * near):
        exact = slow.divergence(share, other)
        assert sequential.divergence(share, other) == pytest.approx(exact, rel=1e-6, abs=1e-18)     # a billion times that is nothing


@given(counts, levels)
def test_an_interval_of_a_share_holds_what_was_measured_and_is_short(counted, alpha):
    hits, count = counted
    low, high = sequential.proportion(hits, count, alpha)
    assert 0 <= low <= hits / count <= high <= 1
    assert high - low <= 2 * math.sqrt(sequential.budget(hits, count, alpha) / (2 * count)) * (1 + 1e-5)     # Pinsker
    assert width(sequential.proportion(hits, count, alpha / 2)) >= high - low
    assert width(sequential.proportion(3 * hits, 3 * count, alpha)) <= (high - low) * (1 + 1e-5)
    assert sequential.proportion(count - hits, count, alpha) == pytest.approx((1 - high, 1 - low), abs=1e-9 + 1e-5 * (high - low))


@given(counts, counts, levels)
def test_an_interval_of_a_difference_holds_what_was_measured_and_is_short(one, other, alpha):
    low, high = sequential.difference(*one, *other, alpha)
    apart = one[0] / one[1] - other[0] / other[1]
    assert -1 <= low <= apart + 1e-12
    assert apart - 1e-12 <= high <= 1
    assert sequential.difference(*other, *one, alpha) == pytest.approx((-high, -low), abs=1e-12)
    assert width(sequential.difference(*one, *other, alpha / 2)) >= (high - low) * (1 - 1e-5)
    more = [3 * number for number in (*one, *other)]
    assert width(sequential.difference(*more, alpha)) <= (high - low) * (1 + 1e-5)


@given(st.integers(0, 2000), st.integers(0, 2000), levels)
def test_the_price_of_not_knowing_a_share_is_that_of_the_mixture(hits, misses, alpha):
    count = hits + misses
    price = slow.likelihood(hits, misses, hits / count) - slow.mixture(hits, misses) if count else 0.0
    assert sequential.budget(hits, count, alpha) == pytest.approx(math.log(1 / alpha) + price, abs=1e-7)


@pytest.mark.parametrize("plus", [0.5, 1.0])
def test_the_series_takes_over_where_it_is_exact(plus):
    below = sequential.above_stirling(np.nextafter(1000.0, 0), plus)
    assert sequential.above_stirling(1000.0, plus) == pytest.approx(float(below), abs=1e-10)


@pytest.mark.parametrize(("one", "other"), [((0, 0), (5, 10)), ((5, 10), (0, 0)), ((0, 0), (0, 0))])
def test_an_arm_without_requests_leaves_everything_open(one, other):
    assert sequential.difference(*one, *other, 0.05) == (-1, 1)


def test_arms_as_far_apart_as_can_be():
    assert sequential.difference(1000, 1000, 0, 1000, 0.05) == pytest.approx((0.989, 1.0), abs=1e-3)
    assert sequential.difference(0, 1000, 1000, 1000, 0.05) == pytest.approx((-1.0, -0.989), abs=1e-3)


@pytest.mark.parametrize(("ours", "beside", "margin", "needed"), [
    (0.01, 0.0, 0.0, 550),
    (0.01, 0.0, 0.001, 1150),
    (0.02, 0.0, 0.001, 400),
    (0.02, 0.01, 0.0, 5000),
])
def test_a_rise_of_errors_is_told_after_some_thousand_requests(ours, beside, margin, needed):
    """One in twenty goes to the candidate."""
    assert sequential.difference(ours * needed, needed, beside * needed * 19, needed * 19, 0.0026)[0] > margin
    assert sequential.difference(ours * needed / 2, needed / 2, beside * needed * 9.5, needed * 9.5, 0.0026)[0] < margin


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.floats(0.01, 0.99), levels)
@settings(deadline=None)
def test_a_quantile_lies_between_the_edges_that_are_certain(numbers, share, alpha):
    buckets = tuple((float(index + 1), count) for index, count in enumerate(numbers) if count)
    assert sequential.quantile(buckets, share, alpha) == slow.quantile(buckets, share, alpha)


def test_the_ratio_of_quantiles_holds_every_pair():
    one, other = tuple((float(edge), 100) for edge in range(1, 101)), tuple((2.0 * edge, 100) for edge in range(1, 101))
    low, high = sequential.quantile_ratio(one, other, 0.5, 0.05)
    assert 0.4 < low < 0.5 < high < 0.6
    assert sequential.quantile_ratio((), other, 0.5, 0.05) == (0.0, math.inf)


@given(st.integers(MEANS_FROM, 10**9), st.floats(-50, 50), st.floats(0, 100), levels)
def test_an_interval_of_a_mean_holds_it_and_shrinks(count, mean, variance, alpha):
    low, high = sequential.mean(Moments(count, mean, variance), alpha)
    assert low <= mean <= high
    assert width(sequential.mean(Moments(2 * count, mean, variance), alpha)) <= high - low
    assert width(sequential.mean(Moments(count, mean, variance), alpha / 2)) >= high - low
    assert high - low >= 2 * 1.28 * math.sqrt(variance / count) * (1 - 1e-9) - 1e-9     # no shorter than one that is looked at once, of alpha 0.2


@given(st.integers(MEANS_FROM, 10**9), st.integers(MEANS_FROM, 10**9), st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 100), levels)
def test_an_interval_of_two_means_is_that_of_one_when_the_other_is_known(count, other, mean, beside, variance, alpha):
    one, two = Moments(count, mean, variance), Moments(other, beside, variance)
    low, high = sequential.mean_difference(one, two, alpha)
    assert low <= mean - beside <= high
    assert sequential.mean_difference(two, one, alpha) == pytest.approx((-high, -low))
    known = sequential.mean_difference(one, Moments(10**15, beside, variance), alpha)
    assert known == pytest.approx([end - beside for end in sequential.mean(one, alpha)], rel=1e-5, abs=1e-6)


def test_too_few_numbers_tell_nothing():
    few = Moments(MEANS_FROM - 1, 1.0, 1.0)
    assert sequential.mean(few, 0.05) == EVERYTHING
    assert sequential.mean_difference(few, Moments(1000, 1.0, 1.0), 0.05) == EVERYTHING


# How often an interval ever misses the truth, over simulations that look after every 50 samples. SEED prints with a failure.
SEED, RUNS, LOOKS, ALPHA = 20210, 200, 40, 0.1
ALLOWED = 0.1 + 2.33 * math.sqrt(0.1 * 0.9 / RUNS)  # what a true level of 0.1 exceeds once in a hundred


def missed(looks):
    return sum(any(not low <= truth <= high for (low, high), truth in run) for run in looks) / RUNS


@pytest.mark.parametrize("share", [0.002, 0.3])
def test_shares_are_missed_no_more_often_than_declared(share):
    random = np.random.default_rng(SEED)
    hits = random.binomial(50, share, (RUNS, LOOKS)).cumsum(1)
    looks = ([(sequential.proportion(int(seen), 50 * look, ALPHA), share) for look, seen in enumerate(run, 1)] for run in hits)
    assert missed(looks) <= ALLOWED


def test_differences_are_missed_no_more_often_than_declared():
    random = np.random.default_rng(SEED)
    ours, theirs = (random.binomial(size, 0.01, (RUNS, LOOKS)).cumsum(1) for size in (50, 450))
    looks = ([(sequential.difference(int(x), 50 * look, int(y), 450 * look, ALPHA), 0.0) for look, (x, y) in enumerate(zip(*run, strict=True), 1)]
             for run in zip(ours, theirs, strict=True))
    assert missed(looks) <= ALLOWED


def test_means_of_skewed_numbers_are_missed_no_more_often_than_declared():
    """Of an exponential distribution, which is further from normal than logarithms of latencies are."""
    random = np.random.default_rng(SEED)

    def running(size):
        drawn = random.exponential(1.0, (RUNS, LOOKS, size))
        sums, squares = drawn.sum(2).cumsum(1), (drawn**2).sum(2).cumsum(1)
        for run in range(RUNS):
            yield [Moments(n := size * look, s / n, (q - s * s / n) / (n - 1)) for look, (s, q) in enumerate(zip(sums[run], squares[run], strict=True), 1)]

    pairs = zip(running(50), running(450), strict=True)
    looks = ([(sequential.mean_difference(one, other, ALPHA), 0.0) for one, other in zip(*pair, strict=True)] for pair in pairs)
    assert missed(looks) <= ALLOWED


def test_quantiles_are_missed_no_more_often_than_declared():
    random = np.random.default_rng(SEED)
    truth, edges = math.log(10), [index / 20 for index in range(1, 200)]     # the quantile 0.9 of an exponential distribution
    in_bucket = next((low, high) for low, high in itertools.pairwise(edges) if low < truth <= high)

    def run():
        counts = np.zeros(len(edges), int)
        for _ in range(LOOKS // 2):
            counts += np.bincount(np.minimum(np.searchsorted(edges, random.exponential(1.0, 50)), len(edges) - 1), minlength=len(edges))
            low, high = sequential.quantile(tuple((edge, int(count)) for edge, count in zip(edges, counts, strict=True) if count), 0.9, ALPHA)
            yield (min(low, in_bucket[1]), max(high, in_bucket[0])), truth

    assert missed(list(run()) for _ in range(RUNS)) <= ALLOWED


def test_the_same_looks_with_intervals_for_one_look_would_miss_far_more_often():
    """So the tests above can fail: what is valid once is not valid at each of many looks."""
    random = np.random.default_rng(SEED)
    hits = random.binomial(50, 0.3, (RUNS, LOOKS)).cumsum(1)

    def once(seen, count):
        share = seen / count
        aside = 1.645 * math.sqrt(share * (1 - share) / count)
        return share - aside, share + aside

    assert missed([(once(seen, 50 * look), 0.3) for look, seen in enumerate(run, 1)] for run in hits) > 2 * ALLOWED
