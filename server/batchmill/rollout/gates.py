"""What a step's evidence says of each of its tests: a figure, where it may truly lie, and whether that is within the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchmill.rollout import evidence, sequential
from batchmill.rollout.evidence import Evidence, Moments
from batchmill.rollout.plan import Step, Test, tests_of
from batchmill.rollout.sequential import Interval

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"
Figure = tuple[float | None, Interval]  # measured, None: nothing was counted; where it may truly lie, at all looks at once


@dataclass(frozen=True, slots=True)
class Result:
    """gate: the test's name. verdict: passed: the limit certainly holds; failed: it certainly does not; undecided: either may be."""

    gate: str
    measured: float | None
    interval: Interval
    limit: float
    at_least: bool
    proof: str
    verdict: str

    def __str__(self) -> str:
        low, high = self.interval
        known = f"{low:.4g} to {high:.4g}" if math.isfinite(high - low) else "not certain yet"
        measured = "nothing counted" if self.measured is None else f"{self.measured:.4g} ({known})"
        return f"{self.gate}: {measured}; {'at least' if self.at_least else 'at most'} {self.limit:g} wanted: {self.verdict}"


def results(step: Step, counted: Evidence, alpha: float) -> tuple[Result, ...]:
    """Of the tests of a step. counted: in this step. alpha: of each of them."""
    return tuple(judged(test, *FIGURES[test.name](step, counted, alpha)) for test in tests_of(step))


def judged(test: Test, measured: float | None, interval: Interval) -> Result:
    low, high = interval if not test.at_least else (-interval[1], -interval[0])
    limit = test.limit if not test.at_least else -test.limit
    verdict = PASSED if high <= limit else FAILED if low > limit else UNDECIDED
    return Result(test.name, measured, interval, test.limit, test.at_least, test.proof, verdict)


def share(hits: int, count: int, alpha: float) -> Figure:
    return hits / count if count else None, sequential.proportion(hits, count, alpha)


def agreement(_: Step, counted: Evidence, alpha: float) -> Figure:
    return share(counted.shadow.agreed, counted.shadow.compared, alpha)


def shadow_errors(_: Step, counted: Evidence, alpha: float) -> Figure:
    return share(counted.shadow.errors, counted.shadow.runs, alpha)


def error_rate(_: Step, counted: Evidence, alpha: float) -> Figure:
    return share(counted.candidate.errors, counted.candidate.requests, alpha)


def rise_of_errors(_: Step, counted: Evidence, alpha: float) -> Figure:
    ours, theirs = counted.candidate, counted.incumbent
    measured = ours.errors / ours.requests - theirs.errors / theirs.requests if ours.requests and theirs.requests else None
    return measured, sequential.difference(ours.errors, ours.requests, theirs.errors, theirs.requests, alpha)


def mean_ratio(step: Step, counted: Evidence, alpha: float) -> Figure:
    """Of latencies; in a shadow step of run times, which are compared request by request."""
    ours, theirs, paired = counted.candidate.log_latency, counted.incumbent.log_latency, counted.shadow.log_run_ratio
    if step.shadow:
        apart, interval = paired.mean if paired.count else None, sequential.mean(paired, alpha, tuned_for(step))
    else:
        apart = ours.mean - theirs.mean if ours.count and theirs.count else None
        interval = sequential.mean_difference(ours, theirs, alpha, tuned_for(step))
    return apart if apart is None else exp(apart), (exp(interval[0]), exp(interval[1]))


def quantile_ratio(step: Step, counted: Evidence, alpha: float) -> Figure:
    assert step.gates.latency_ratio
    wanted, ours, theirs = step.gates.latency_ratio.quantile, counted.candidate.latencies, counted.incumbent.latencies
    quantile, other = evidence.quantile(ours, wanted), evidence.quantile(theirs, wanted)
    return quantile / other if quantile and other else None, sequential.quantile_ratio(ours, theirs, wanted, alpha)


def quality(step: Step, counted: Evidence, alpha: float) -> Figure:
    """The candidate's mean reward minus the incumbent's. Rewards that leave the declared range are judged as any rewards."""
    assert step.gates.quality
    ours, theirs, within = counted.candidate.quality, counted.incumbent.quality, step.gates.quality.reward_range
    measured = ours.mean - theirs.mean if ours.count and theirs.count else None
    if within is None or not (may_lie_in(ours, within) and may_lie_in(theirs, within)):
        return measured, sequential.mean_difference(ours, theirs, alpha, tuned_for(step))
    low, high = within
    sums = [(one.mean - low) / (high - low) * one.count for one in (ours, theirs)]
    least, most = sequential.difference(sums[0], ours.count, sums[1], theirs.count, alpha)
    return measured, (least * (high - low), most * (high - low))


def may_lie_in(numbers: Moments, within: Interval) -> bool:
    """Whether numbers with these moments can all be within: none has more variance than the two ends have."""
    low, high = within
    most = (numbers.mean - low) * (high - numbers.mean)
    return numbers.count == 0 or (low <= numbers.mean <= high and numbers.squares <= numbers.count * most + 1e-9 * numbers.count * (high - low) ** 2)


def tuned_for(step: Step) -> int:
    """Where the step may end first, the intervals of means shall be short."""
    return max(step.min_samples, sequential.MEANS_FROM)


def exp(power: float) -> float:
    """e to that power; infinite where a double ends."""
    return math.exp(power) if power < 700 else math.inf


FIGURES = {
    "agreement": agreement,
    "shadow_errors": shadow_errors,
    "error_rate.at_most": error_rate,
    "error_rate.rise": rise_of_errors,
    "latency_ratio.mean": mean_ratio,
    "latency_ratio.at_quantile": quantile_ratio,
    "quality": quality,
}
