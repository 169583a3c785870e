"""Intervals that hold at every look: each contains the truth at all times at once with probability 1 - alpha, however often one looks
and whenever one stops (confidence sequences). A function of counts alone: nothing is kept from look to look.

Proportions are exact at any count. Means of anything else hold asymptotically, so they begin at MEANS_FROM numbers.
All take what is counted for independent draws of one distribution; two arms may grow in any order, and take turns as they like.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from batchmill.rollout.evidence import Buckets, Moments

Interval = tuple[float, float]
EVERYTHING: Interval = (-math.inf, math.inf)
MEANS_FROM = 100  # numbers of an arm; logarithms of latencies are near enough to normal in their sums from some dozens on
_STIRLING_FROM = 1000.0  # the series is exact to 1e-12 from here, lgamma's differences no better than 1e-12 * count
_PRECISION = 1e-6  # of a half of an interval, and outwards, so that it holds no less
_LOOKS_MAX = 200  # more than it ever takes; what is outside then is outside for certain


def proportion(hits: float, count: float, alpha: float) -> Interval:
    """Where the share of hits may lie, within [0, 1]. hits: 0..count, need not be whole.

    Robbins's mixture: the likelihood of the counts averaged over Jeffreys' prior, over that of a share p, is a martingale that starts at 1
    if p is true, so it ever reaches 1 / alpha with probability alpha at most (Ville). The interval is the p for which it has not.
    It holds for numbers in [0, 1], too, with their sum as hits: a^x b^(1-x) is convex in x, so the ratio's mean is 1 at most.
    Sources: Robbins, Statistical methods related to the law of the iterated logarithm (1970); Howard, Ramdas, McAuliffe, Sekhon,
    Time-uniform, nonparametric, nonasymptotic confidence sequences (2021), the beta-binomial mixture; Jeffreys' prior for its
    short intervals near 0 and 1, where shares of errors are.
    """
    if count <= 0:
        return 0.0, 1.0
    share, most = hits / count, budget(hits, count, alpha)

    def cost(p: float) -> float:
        return count * divergence(share, p)

    return outermost(cost, most, share, 0.0), outermost(cost, most, share, 1.0)


def difference(hits: float, count: float, other_hits: float, other_count: float, alpha: float) -> Interval:
    """Where the share of one arm minus that of the other may lie, within [-1, 1].

    Two ways, each with half of alpha, and what both leave over. The product of both arms' martingales (see proportion) is one, too, in
    whichever order they grow: the pairs of shares for which it is below 2 / alpha hold the true pair at all times; the least and the
    greatest difference among them are found by Lagrange's multiplier. And an interval of its own for each arm.
    The first is the shorter one where the arms are alike, the second where one has most of the requests; together they are never more
    than some hundredths longer than the better one. Both are exact at any count, and functions of the counts alone: the safe test of
    Turner, Ly, Grünwald (Generic E-variables for exact sequential k-sample tests, 2024) needs blocks of a fixed make-up, which a canary's
    traffic does not give, and a memory of past looks.
    """
    if count <= 0 or other_count <= 0:
        return -1.0, 1.0
    most = budget(hits, count, alpha / 2) + budget(other_hits, other_count, alpha / 2) - math.log(2 / alpha)
    share, other = hits / count, other_hits / other_count
    (low, high), (other_low, other_high) = proportion(hits, count, alpha / 4), proportion(other_hits, other_count, alpha / 4)
    return (
        max(low - other_high, -most_apart(other, other_count, share, count, most)),
        min(high - other_low, most_apart(share, count, other, other_count, most)),
    )


def most_apart(share: float, count: float, other: float, other_count: float, most: float) -> float:
    """The greatest p - q with count * KL(share, p) + other_count * KL(other, q) <= most."""

    def at(multiplier: float) -> Interval:
        return raised(share, count, multiplier), lowered(other, other_count, multiplier)

    def cost(multiplier: float) -> float:
        p, q = at(multiplier)
        return count * divergence(share, p) + other_count * divergence(other, q)

    high = max(count, other_count)
    while cost(high) < most and high < 1e30:  # where share is 1 and other 0, nothing is further apart
        high *= 16
    p, q = at(outermost(cost, most, 0.0, high))
    return p - q


def raised(share: float, count: float, multiplier: float) -> float:
    """The p >= share where count * KL(share, p) grows by `multiplier` for a unit of p: multiplier p (1 - p) = count (p - share).

    Of the root's two forms the one that subtracts nothing: counts may be 1e9, and p a millionth.
    """
    apart = count - multiplier
    root = math.sqrt(apart * apart + 4 * multiplier * count * share)
    return 2 * count * share / (apart + root) if apart > 0 else (root - apart) / (2 * multiplier)


def lowered(share: float, count: float, multiplier: float) -> float:
    """The p <= share where it falls by `multiplier` for a unit of p."""
    apart = count - multiplier
    return 2 * count * share / (count + multiplier + math.sqrt(apart * apart + 4 * multiplier * count * (1 - share)))


def quantile(buckets: Buckets, share: float, alpha: float) -> Interval:
    """Where the quantile may lie: edges of a histogram of positive numbers, 0 and infinity.

    An edge is below it when the share of numbers up to that edge is certainly less than `share`. Only at the edges next to the true
    quantile can that be wrong first, so one level is enough for all edges. Exact at any count, for any distribution.
    Source: Howard, Ramdas, Sequential estimation of quantiles with applications to A/B testing and best-arm identification (2022), for
    one quantile; with the mixture of proportion().
    """
    seen = list(accumulate(count for _, count in buckets))
    total = seen[-1] if seen else 0

    def certain(count: int) -> bool:
        return total * divergence(count / total, share) >= budget(count, total, alpha)

    middle = bisect_left(seen, share * total)
    low = bisect_left(seen, True, 0, middle, key=lambda count: not certain(count))
    high = bisect_left(seen, True, middle, key=certain)
    return buckets[low - 1][0] if low else 0.0, buckets[high][0] if high < len(seen) else math.inf


def quantile_ratio(buckets: Buckets, other: Buckets, share: float, alpha: float) -> Interval:
    """Where the quantile of one arm over that of the other may lie; half of alpha for each."""
    (low, high), (other_low, other_high) = quantile(buckets, share, alpha / 2), quantile(other, share, alpha / 2)
    return low / other_high, high / other_low if other_low > 0 else math.inf


def mean(numbers: Moments, alpha: float, tuned_for: int = 1000) -> Interval:
    """Where the mean may lie. tuned_for: the count at which the interval shall be shortest; to be chosen before any number is seen.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Time-uniform central limit theory and asymptotic confidence sequences (2024),
    Theorem 2.2: the normal mixture's bound with the estimated variance.
    """
    if numbers.count < MEANS_FROM:
        return EVERYTHING
    return around(numbers.mean, numbers.variance / numbers.count, numbers.count, alpha, tuned_for)


def mean_difference(numbers: Moments, other: Moments, alpha: float, tuned_for: int = 1000) -> Interval:
    """Where the mean of one arm minus that of the other may lie; of logarithms: the logarithm of a ratio. Variances may differ.

    The same source, section 3: requests fall to the arms by chance, with shares that stand, so the difference of means is the mean of
    independent terms, with the variance of both arms. Its clock is count * other / (count + other), which a canary's count is close to.
    """
    if min(numbers.count, other.count) < MEANS_FROM:
        return EVERYTHING
    variance = numbers.variance / numbers.count + other.variance / other.count
    return around(numbers.mean - other.mean, variance, 1 / (1 / numbers.count + 1 / other.count), alpha, tuned_for)


def around(middle: float, variance: float, time: float, alpha: float, tuned_for: int) -> Interval:
    """variance: of the middle. time: numbers it is made of."""
    first = -2 * math.log(alpha)
    scaled = time * (first + math.log1p(first)) / tuned_for  # rho^2 * time, where rho^2 is the paper's for the time tuned_for
    aside = math.sqrt(variance * (1 + 1 / scaled) * (math.log1p(scaled) + first))
    return middle - aside, middle + aside


def budget(hits: float, count: float, alpha: float) -> float:
    """What count * KL(share, p) may be before p is refuted: log(1 / alpha), and the price of not knowing p.

    The price is the log of the greatest likelihood over the mean one, about log(count) / 2; never negative.
    """
    regret = math.log(math.pi) + above_stirling(count, 1.0) - above_stirling(hits, 0.5) - above_stirling(count - hits, 0.5)
    return math.log(1 / alpha) + max(0.0, regret)


def above_stirling(x: float, plus: float) -> float:
    """lgamma(x + plus) - (x log x - x), plus being 1 or 1/2, without their cancelling: counts may be 1e9 and more."""
    if x < _STIRLING_FROM:
        return math.lgamma(x + plus) - (x * math.log(x) - x if x > 0 else 0.0)
    half, cubed = 0.5 * math.log(2 * math.pi), 1 / (x * x * x)
    if plus == 1.0:
        return half + 0.5 * math.log(x) + 1 / (12 * x) - cubed / 360
    return half - 1 / (24 * x) + 7 * cubed / 2880


def divergence(share: float, p: float) -> float:
    """KL(share, p) of two shares, in nats; exact when they are close, where its terms cancel."""
    if (share > 0 and p <= 0) or (share < 1 and p >= 1):
        return math.inf
    return max(0.0, log_ratio(share, p, p - share) + log_ratio(1 - share, 1 - p, share - p))


def log_ratio(part: float, other: float, apart: float) -> float:
    """part * log(part / other); apart: other - part."""
    if part <= 0:
        return 0.0
    return -part * math.log1p(apart / part) if 2 * abs(apart) < part else part * math.log(part / other)


def outermost(cost: Callable[[float], float], most: float, inside: float, outside: float) -> float:
    """The first number, on the way from inside to outside, at which the cost is `most`, or outside itself.

    cost: grows outwards, about as the square of the way. Its root is nearly straight, which a regula falsi (Illinois) needs some 8 looks for.
    """
    if cost(outside) < most:
        return outside
    aim = math.sqrt(most) * (1 + _PRECISION)
    below, above = math.sqrt(cost(inside)) - aim, math.sqrt(cost(outside)) - aim
    side = 0.0  # on which the last look fell: an end that stays twice counts half
    for look in range(_LOOKS_MAX):
        halve = math.isinf(above) or look % 4 == 3  # a cost with a kink, of a share of 0 or 1, would hold the other way up
        middle = (inside + outside) / 2 if halve else (inside * above - outside * below) / (above - below)
        missed = math.sqrt(cost(middle)) - aim
        if abs(missed) <= _PRECISION * aim:
            return middle
        if missed > 0:
            outside, above, below = middle, missed, below / 2 if side > 0 else below
        else:
            inside, below, above = middle, missed, above / 2 if side < 0 else above
        side = missed
    return outside
