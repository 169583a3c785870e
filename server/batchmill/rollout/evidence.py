"""What is counted of two versions while one of them may take the other's place. Values: they add up, and what was before can be taken off.

Latencies and run times are told by their natural logarithms, so that a difference of means is the logarithm of a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

Buckets = tuple[tuple[float, int], ...]  # (upper edge, count), ascending; empty buckets may be left out


@dataclass(frozen=True, slots=True)
class Moments:
    """count, mean and variance of numbers; of the variance the unbiased estimate, 0 below two of them.

    The tests take the numbers for independent. Where many of them are one measurement (the run time of a batch, told for each of its
    requests), count it once.
    """

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def __post_init__(self) -> None:
        assert self.count >= 0
        assert math.isfinite(self.mean)
        assert 0 <= self.variance < math.inf

    @staticmethod
    def of(numbers: Iterable[float]) -> Moments:
        some = list(numbers)
        if not some:
            return Moments()
        mean = math.fsum(some) / len(some)
        return Moments(len(some), mean, math.fsum((one - mean) ** 2 for one in some) / max(1, len(some) - 1))

    @property
    def squares(self) -> float:
        """The sum of squared distances from the mean."""
        return self.variance * max(0, self.count - 1)

    def plus(self, other: Moments) -> Moments:
        """Source: Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance."""
        if not self.count or not other.count:
            return other if not self.count else self
        count, apart = self.count + other.count, other.mean - self.mean
        squares = self.squares + other.squares + apart * apart * (self.count / count) * other.count
        return Moments(count, self.mean + apart * (other.count / count), squares / (count - 1))

    def minus(self, before: Moments) -> Moments:
        """What came after `before`, which are the first of these numbers. Rounding never makes a variance negative."""
        count = self.count - before.count
        if count <= 0 or not before.count:
            return Moments() if count <= 0 else self
        apart = (self.mean - before.mean) * (self.count / count)
        squares = self.squares - before.squares - apart * apart * (before.count / self.count) * count
        return Moments(count, before.mean + apart, max(0.0, squares) / max(1, count - 1))


def buckets_of(counts: Mapping[float, int]) -> Buckets:
    return tuple(sorted((edge, count) for edge, count in counts.items() if count > 0))


def together(one: Buckets, other: Buckets, sign: int = 1) -> Buckets:
    counts = dict(one)
    for edge, count in other:
        counts[edge] = counts.get(edge, 0) + sign * count
    return buckets_of(counts)


def latencies_of(histogram: Mapping[tuple[int, int], int]) -> tuple[Moments, Buckets]:
    """Of a histogram of the data plane, counts by (lower, upper) ns: the moments of the logarithms of seconds, and the upper edges in seconds.

    Each number is taken for the middle of its bucket, which is within 2% of it from 1 µs on, on either side: a mean over many is much closer.
    """
    counts = [(math.log((lower + upper) / 2e9), count) for (lower, upper), count in histogram.items() if count > 0]
    total = sum(count for _, count in counts)
    if not total:
        return Moments(), ()
    mean = math.fsum(log * count for log, count in counts) / total
    variance = math.fsum((log - mean) ** 2 * count for log, count in counts) / max(1, total - 1)
    return Moments(total, mean, variance), buckets_of({upper / 1e9: count for (_, upper), count in histogram.items()})


def quantile(buckets: Buckets, share: float) -> float | None:
    """The upper edge of the bucket that holds it; None: there is nothing."""
    total = sum(count for _, count in buckets)
    seen = accumulate(count for _, count in buckets)
    return next((edge for (edge, _), count in zip(buckets, seen, strict=True) if count >= share * total), None)


@dataclass(frozen=True, slots=True)
class Arm:
    """One version in live traffic.

    requests: answered by it, well or not. errors: those it is to blame for: not what is refused before it ran, and not what callers did wrong.
    log_latency: of those answered well, seconds. latencies: the same as a histogram, seconds, without the logarithm; empty: no quantiles.
    quality: rewards, or 1 for right and 0 for wrong.
    """

    requests: int = 0
    errors: int = 0
    log_latency: Moments = Moments()
    latencies: Buckets = ()
    quality: Moments = Moments()

    def __post_init__(self) -> None:
        assert 0 <= self.errors <= self.requests

    def plus(self, other: Arm) -> Arm:
        return Arm(
            self.requests + other.requests,
            self.errors + other.errors,
            self.log_latency.plus(other.log_latency),
            together(self.latencies, other.latencies),
            self.quality.plus(other.quality),
        )

    def minus(self, before: Arm) -> Arm:
        requests = max(0, self.requests - before.requests)
        return Arm(
            requests,
            min(requests, max(0, self.errors - before.errors)),
            self.log_latency.minus(before.log_latency),
            together(self.latencies, before.latencies, -1),
            self.quality.minus(before.quality),
        )


@dataclass(frozen=True, slots=True)
class Shadow:
    """The candidate beside the incumbent, on copies of its requests.

    compared: both had an answer. agreed: and it was the same, within what the comparison allows. errors: the candidate alone had none.
    log_run_ratio: logarithms of the candidate's run time over the incumbent's, request by request or batch by batch.
    """

    compared: int = 0
    agreed: int = 0
    errors: int = 0
    log_run_ratio: Moments = Moments()

    def __post_init__(self) -> None:
        assert 0 <= self.agreed <= self.compared
        assert self.errors >= 0

    @property
    def runs(self) -> int:
        return self.compared + self.errors

    def plus(self, other: Shadow) -> Shadow:
        return Shadow(
            self.compared + other.compared, self.agreed + other.agreed, self.errors + other.errors, self.log_run_ratio.plus(other.log_run_ratio)
        )

    def minus(self, before: Shadow) -> Shadow:
        compared = max(0, self.compared - before.compared)
        agreed = min(compared, max(0, self.agreed - before.agreed))
        return Shadow(compared, agreed, max(0, self.errors - before.errors), self.log_run_ratio.minus(before.log_run_ratio))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Counters that only grow, as values: of both versions at the same time, since any moment before the rollout."""

    incumbent: Arm = Arm()
    candidate: Arm = Arm()
    shadow: Shadow = Shadow()

    def plus(self, other: Evidence) -> Evidence:
        return Evidence(self.incumbent.plus(other.incumbent), self.candidate.plus(other.candidate), self.shadow.plus(other.shadow))

    def minus(self, before: Evidence) -> Evidence:
        return Evidence(self.incumbent.minus(before.incumbent), self.candidate.minus(before.candidate), self.shadow.minus(before.shadow))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> Evidence:
        """The other way."""
        shadow = given["shadow"]
        return Evidence(
            arm_from(given["incumbent"]), arm_from(given["candidate"]), Shadow(**{**shadow, "log_run_ratio": Moments(**shadow["log_run_ratio"])})
        )


def arm_from(given: Mapping[str, Any]) -> Arm:
    moments = {name: Moments(**given[name]) for name in ("log_latency", "quality")}
    return Arm(given["requests"], given["errors"], latencies=tuple((edge, count) for edge, count in given["latencies"]), **moments)
