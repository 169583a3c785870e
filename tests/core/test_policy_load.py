"""What the policy promises under load: the compiled functions in simulated time, each load with a fixed seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from batchmill.core import policy_probe
from reference.simulator import START_NS, Request, Simulation

MS, SECOND = 1_000_000, 1_000_000_000
CURVES_MS = {"no gain by batching": lambda rows: 10.0 * rows, "gains 1.5 times": lambda rows: (1 + 2 * rows) * 10 / 3}
SERVED_A_SECOND = {"no gain by batching": 100, "gains 1.5 times": 140}  # by one executor, in batches that 100 ms have time for twice
ANSWERED_MS = {"no gain by batching": 2500, "gains 1.5 times": 2800}  # at the latest: max_wait_ms, 2000, is until a run begins, which may take 430 ms
CURVES = pytest.mark.parametrize("curve", CURVES_MS)
LOADS = pytest.mark.parametrize("load", [5, 10])
EXECUTORS = pytest.mark.parametrize("executors", [1, 2])


def arrivals(a_second, seconds, chance, from_ns=START_NS, **given):
    """Requests of one row at random times (a Poisson process). deadline_ms: from arrival."""
    deadline_ms = given.pop("deadline_ms", 0)
    at_ns, requests = from_ns, []
    while (at_ns := at_ns + int(chance.expovariate(a_second) * SECOND)) < from_ns + seconds * SECOND:
        requests.append(Request(at_ns, deadline_ns=at_ns + deadline_ms * MS if deadline_ms else 0, **given))
    return requests


def served(requests, curve_ms, executors=1, noise=0.1, **limits):
    """The requests after they have gone through a server with one version."""
    chance, policy = random.Random(7), policy_probe.Policy(executors)
    policy.add(False, instances=executors, **limits)
    simulation = Simulation(policy, executors, lambda version, rows, *_: curve_ms(rows) * MS * chance.uniform(1 - noise, 1 + noise))
    return simulation.run(requests, 1, max(one.at_ns for one in requests) + 20 * SECOND)


@dataclass
class Outcome:
    """Of the requests that came in some span of time, after the first ones, of which a cold server knows nothing."""

    goodput: float  # answered in time, a second
    late: float  # of the answers
    longest_ms: float  # from arrival to answer
    broken: float  # of those that were taken in, never answered

    @classmethod
    def of(cls, requests, seconds, from_s=2):
        seen = [one for one in requests if one.at_ns >= START_NS + from_s * SECOND]
        answered = [one for one in requests if one.answered_ns and START_NS + from_s * SECOND <= one.answered_ns < START_NS + seconds * SECOND]
        late, taken = sum(one.is_late for one in answered), [one for one in seen if one.is_taken]
        longest_ms = max(one.latency_ns for one in seen if one.answered_ns) / MS
        return cls((len(answered) - late) / (seconds - from_s), late / len(answered), longest_ms, sum(not one.answered_ns for one in taken) / len(taken))


def overloaded(curve, load, executors, deadline_ms, seconds=8, seed=0):
    requests = arrivals(load * executors * SERVED_A_SECOND[curve], seconds, random.Random(load + seed), deadline_ms=deadline_ms)
    return Outcome.of(served(requests, CURVES_MS[curve], executors, max_wait_ns=2 * SECOND), seconds)


@CURVES
@LOADS
@EXECUTORS
@pytest.mark.parametrize("seed", range(6))
def test_overload_with_deadlines_costs_little_goodput_and_hardly_an_answer_is_late(curve, load, executors, seed):
    outcome = overloaded(curve, load, executors, deadline_ms=100, seed=seed)
    assert outcome.goodput >= 0.9 * executors * SERVED_A_SECOND[curve]
    assert outcome.late < 0.005     # every late answer's row was run in vain
    assert outcome.broken < 0.01


@CURVES
@LOADS
@EXECUTORS
def test_overload_without_deadlines_keeps_nobody_waiting_for_much_longer_than_max_wait(curve, load, executors):
    outcome = overloaded(curve, load, executors, deadline_ms=0)
    assert outcome.goodput >= 0.9 * executors * SERVED_A_SECOND[curve]
    assert outcome.longest_ms <= ANSWERED_MS[curve]


@CURVES
@EXECUTORS
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_below_capacity_hardly_anybody_is_refused_whose_deadline_is_twenty_runs_away(curve, executors, share):
    """By chance alone one in ten thousand would wait so long."""
    requests = arrivals(share * executors * SERVED_A_SECOND[curve], 20, random.Random(9), deadline_ms=200)
    served(requests, CURVES_MS[curve], executors)
    assert not any(one.is_late for one in requests)
    refused = sum(not one.is_taken for one in requests) / len(requests)
    assert refused < 0.005


@CURVES
@pytest.mark.parametrize(("deadline_ms", "again_s"), [(100, 1), (0, 5)], ids=["deadlines", "two seconds of work wait"])
def test_after_an_overload_nobody_waits_longer_than_without_it(curve, deadline_ms, again_s):
    """Two seconds of work are gone after four, at half load."""
    half = SERVED_A_SECOND[curve] // 2
    over = arrivals(5 * SERVED_A_SECOND[curve], 5, random.Random(1), deadline_ms=deadline_ms)
    calm = [arrivals(half, 15, random.Random(2), START_NS + 5 * SECOND, deadline_ms=deadline_ms) for _ in range(2)]
    after, alone = (served(requests, CURVES_MS[curve], max_wait_ns=2 * SECOND) for requests in (over + calm[0], calm[1]))
    since_ns = START_NS + (5 + again_s) * SECOND
    longest = [max(one.started_ns - one.at_ns for one in requests if one.started_ns and one.at_ns >= since_ns) / MS for requests in (after, alone)]
    assert longest[0] <= 1.5 * longest[1]       # the noise of the runs


@CURVES
def test_a_low_priority_never_starves(curve):
    """It is overtaken by those who come 200 ms later at most: three times as much as is served in that time."""
    rate = SERVED_A_SECOND[curve]
    requests = [*arrivals(3 * rate, 15, random.Random(3), priority=1), *arrivals(rate / 10, 15, random.Random(4), priority=3)]
    served(requests, CURVES_MS[curve], max_wait_ns=500 * MS, priority_levels=3, default_priority=2)
    low = [one for one in requests if one.priority == 3 and one.is_taken]
    waits_ms = sorted((one.started_ns - one.at_ns) / MS for one in low)
    assert len(low) > 30
    assert waits_ms[-1] <= 1.1 * (500 + 3 * 200)


@pytest.mark.parametrize(("base_ms", "row_ms"), [(1.0, 0.25), (3.0, 1.0), (0.5, 2.0)])
@EXECUTORS
def test_an_objective_of_25_ms_is_met_by_99_of_100_at_four_fifths_of_capacity(base_ms, row_ms, executors):
    """Capacity: that of batches for three of which 25 ms are enough: the one in hand, one that was ahead, and its own."""
    rows = int((25 / 3 - base_ms) / row_ms)
    capacity = executors * rows / (base_ms + rows * row_ms) * 1000
    requests = arrivals(0.8 * capacity, 10, random.Random(5))
    served(requests, lambda rows: base_ms + rows * row_ms, executors, objective_ns=25 * MS)
    answered = [one for one in requests if one.answered_ns]
    met = sum(one.latency_ns <= 25 * MS for one in answered) / len(answered)
    assert met >= 0.99
    assert len(answered) >= 0.99 * len(requests)


def test_waits_are_predicted_by_batches_that_the_limits_allow_though_larger_ones_were_measured():
    policy = policy_probe.Policy(1)
    policy.add(False, max_batch_size=1)
    for rows in (1, 2, 4, 8, 16):
        policy.learn(0, (), rows, (10 + 0.5 * rows) * MS, START_NS)
    waits_ms = [policy.arrive(0, number, 1, (), START_NS)[1] / MS for number in range(12)]
    assert waits_ms == pytest.approx([10.5 * ahead for ahead in range(12)], rel=0.1)


def test_a_burst_upon_a_version_that_nothing_is_known_of_makes_later_predictions_no_worse():
    """Those who came before the first run had ended could not be priced then; they are when it has."""
    policy = policy_probe.Policy(1)
    policy.add(False, max_batch_size=1)
    burst = [Request(START_NS + 3 * MS * number) for number in range(12)]
    Simulation(policy, 1, lambda *_: 14 * MS).run(burst, 1, START_NS + SECOND)
    *_, drift, _ = policy.state(0)
    assert drift == pytest.approx(1, abs=0.25)
