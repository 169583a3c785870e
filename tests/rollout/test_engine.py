"""What a rollout does next, as a table; what it says; and that it may be asked at any time."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.rollout import gates
from batchmill.rollout.engine import AWAIT_APPROVAL, COMPLETE, HOLD, PROMOTE, ROLL_BACK, Progress, decide
from batchmill.rollout.evidence import Arm, Evidence, Moments, Shadow
from batchmill.rollout.plan import Agreement, ErrorRate, Gates, LatencyRatio, Plan, Quality, Step
from reference.rollout import evidences

SHADOW, CANARY, WHOLE = Step(100.0, shadow=True), Step(5.0), Step(100.0)
PLAN = Plan((SHADOW, CANARY, WHOLE))
LATENCY = Moments(1000, math.log(0.005), 0.25)
SLOW = replace(LATENCY, mean=math.log(0.010))
HISTOGRAM, SLOW_HISTOGRAM = (tuple((edge * factor, 100) for edge in (0.003, 0.004, 0.005, 0.006, 0.008, 0.010, 0.012, 0.015, 0.02, 0.03)) for factor in (1, 2))
BESIDE = Arm(19_000, 10, replace(LATENCY, count=18_990), tuple((edge, 19 * count) for edge, count in HISTOGRAM), Moments(5000, 0.9, 0.09))
GOOD = Arm(1000, 0, LATENCY, HISTOGRAM, Moments(300, 0.9, 0.09))
SHADOWED = Shadow(1000, 999, 0, Moments(1000, 0.0, 0.01))
MANUAL = replace(PLAN, steps=(SHADOW, replace(CANARY, approval="manual"), WHOLE))
SHORT = replace(PLAN, steps=(SHADOW, replace(CANARY, max_secs=600.0), WHOLE))
STRICT = replace(PLAN, steps=(SHADOW, replace(CANARY, max_secs=600.0, after_max="rollback"), WHOLE))


def wanting(**asked):
    return replace(PLAN, steps=(replace(SHADOW, gates=Gates(**asked)), replace(CANARY, gates=Gates(**asked)), WHOLE))


def shadow(*counted):
    return Evidence(shadow=Shadow(*counted))


def canary(incumbent=BESIDE, **changed):
    return Evidence(incumbent, replace(GOOD, **changed))


@pytest.mark.parametrize(("plan", "step", "counted", "now_s", "outcome", "reason"), [
    # What a step needs.
    (PLAN, 0, Evidence(), 0.0, HOLD, "shadow 100%: 0 of 1000 samples"),
    (PLAN, 0, Evidence(shadow=SHADOWED), 59.0, HOLD, "shadow 100%: 59 of 60 s"),
    (PLAN, 0, Evidence(shadow=SHADOWED), 60.0, PROMOTE, "shadow 100%: passed with 1000 samples in 60 s"),
    (PLAN, 0, Evidence(shadow=SHADOWED), -5.0, HOLD, "shadow 100%: 0 of 60 s"),
    (PLAN, 1, canary(requests=999), 60.0, HOLD, "5%: 999 of 1000 samples"),
    (PLAN, 1, canary(), 60.0, PROMOTE, "5%: passed with 1000 samples in 60 s"),
    (PLAN, 2, canary(Arm()), 60.0, COMPLETE, "100%: passed with 1000 samples in 60 s"),
    (PLAN, 1, Evidence(shadow=SHADOWED), 60.0, HOLD, "5%: 0 of 1000 samples"),
    # A proof that is asked for.
    (PLAN, 0, shadow(1000, 930, 0), 60.0, HOLD, "agreement: 0.93 (0.89"),
    (wanting(agreement=Agreement(0.9, "not_worse")), 0, shadow(1000, 930, 0), 60.0, PROMOTE, "shadow 100%: passed"),
    (wanting(error_rate=ErrorRate(rise=0.001, proof="proven")), 1, canary(), 60.0, HOLD, "error_rate.rise: -0.0005263 ("),
    (wanting(error_rate=ErrorRate(rise=0.02, proof="proven")), 1, canary(), 60.0, PROMOTE, "5%: passed"),
    (wanting(quality=Quality(min_samples=301)), 1, canary(), 60.0, HOLD, "quality: 300 of 301 requests of each version with feedback"),
    (wanting(quality=Quality(min_samples=300)), 1, canary(), 60.0, PROMOTE, "5%: passed"),
    (PLAN, 1, canary(quality=Moments()), 60.0, PROMOTE, "5%: passed"),
    (wanting(quality=Quality(proof="proven")), 1, canary(quality=Moments()), 60.0, HOLD, "quality: nothing counted; at least -0.01 wanted: undecided, and"),
    # What breaks.
    (PLAN, 0, shadow(1000, 800, 0), 1.0, ROLL_BACK, "agreement: 0.8 ("),
    (PLAN, 0, shadow(900, 900, 20), 1.0, ROLL_BACK, "shadow_errors: 0.02174 ("),
    (PLAN, 0, shadow(1000, 999, 0, Moments(1000, math.log(2), 0.01)), 1.0, ROLL_BACK, "latency_ratio.mean: 2 ("),
    (PLAN, 1, canary(errors=100), 1.0, ROLL_BACK, "error_rate.at_most: 0.1 ("),
    (PLAN, 1, canary(errors=15), 1.0, ROLL_BACK, "error_rate.rise: 0.01447 ("),
    (PLAN, 1, canary(log_latency=SLOW), 1.0, ROLL_BACK, "latency_ratio.mean: 2 ("),
    (wanting(latency_ratio=LatencyRatio(None, 0.5, 1.1)), 1, canary(latencies=SLOW_HISTOGRAM), 1.0, ROLL_BACK, "latency_ratio.at_quantile: 2 (1.2 to "),
    (PLAN, 1, canary(quality=Moments(300, 0.6, 0.24)), 1.0, ROLL_BACK, "quality: -0.3 ("),
    (wanting(quality=Quality(reward_range=None)), 1, canary(quality=Moments(300, 0.6, 0.24)), 1.0, ROLL_BACK, "quality: -0.3 ("),
    (PLAN, 2, Evidence(BESIDE, replace(GOOD, errors=100)), 1.0, ROLL_BACK, "error_rate.at_most: 0.1 ("),
    # What is not asked, or cannot be seen in a step, breaks nothing.
    (wanting(latency_ratio=None), 1, canary(log_latency=SLOW), 60.0, PROMOTE, "5%: passed"),
    (PLAN, 2, Evidence(BESIDE, replace(GOOD, log_latency=SLOW, errors=15)), 60.0, COMPLETE, "100%: passed"),
    (PLAN, 1, Evidence(BESIDE, GOOD, Shadow(1000, 0, 0)), 60.0, PROMOTE, "5%: passed"),
    (PLAN, 1, canary(Arm(19_000, 300, BESIDE.log_latency, BESIDE.latencies), errors=15), 60.0, PROMOTE, "5%: passed"),
    # Too late.
    (SHORT, 1, canary(requests=10), 601.0, HOLD, "5%: not passed in 600 s"),
    (STRICT, 1, canary(requests=10), 601.0, ROLL_BACK, "5%: not passed in 600 s"),
    (STRICT, 1, canary(requests=10), 600.0, HOLD, "5%: 10 of 1000 samples"),
    (STRICT, 1, canary(), 601.0, PROMOTE, "5%: passed"),
    # Asked first.
    (MANUAL, 1, canary(), 60.0, AWAIT_APPROVAL, "5%: passed, and to be approved"),
    (MANUAL, 1, canary(errors=100), 60.0, ROLL_BACK, "error_rate.at_most"),
    (MANUAL, 1, canary(), 59.0, HOLD, "5%: 59 of 60 s"),
])
def test_what_is_decided_and_why(plan, step, counted, now_s, outcome, reason):
    decision = decide(plan, Progress(step), counted, now_s)
    assert decision.outcome == outcome, decision.reasons
    assert decision.reasons[0].startswith(reason)


def test_an_approval_counts_for_the_step_it_was_given_in():
    assert decide(MANUAL, Progress(1).approve(), canary(), 60.0).outcome == PROMOTE
    assert decide(MANUAL, Progress(1).approve(), canary(errors=100), 60.0).outcome == ROLL_BACK
    assert not Progress(1).approve().next_step(canary(), 60.0).approved


def test_a_step_counts_what_came_since_it_began():
    first = Progress(0, 100.0, Evidence())
    counters = Evidence(BESIDE, replace(GOOD, errors=100), SHADOWED)
    second = first.next_step(counters, 160.0)
    assert (second.step, second.since_s) == (1, 160.0)
    assert second.evidence(counters) == Evidence()
    assert decide(PLAN, second, counters.plus(canary()), 220.0).outcome == PROMOTE
    assert decide(PLAN, second, counters.plus(canary(requests=999)), 220.0).reasons == ("5%: 999 of 1000 samples",)


def test_a_step_goes_on_after_a_restart_with_what_it_had():
    before = Progress(1, 100.0, Evidence(BESIDE, GOOD, SHADOWED))
    restarted = before.without_counters(before.before.plus(canary(requests=600)))
    assert restarted.evidence(Evidence()).candidate.requests == 600
    assert decide(PLAN, restarted, canary(requests=399), 160.0).samples == 999
    assert decide(PLAN, restarted, canary(requests=400), 160.0).outcome == PROMOTE
    again = restarted.without_counters(canary(requests=100))
    assert again.evidence(Evidence()).candidate.requests == 700


@given(st.integers(0, 9), st.floats(0, 1e10), evidences, evidences, st.booleans())
@settings(max_examples=25, deadline=None)
def test_progress_survives_json(step, since_s, before, carried, approved):
    progress = Progress(step, since_s, before, carried, approved)
    assert Progress.from_dict(json.loads(json.dumps(progress.as_dict()))) == progress


@given(st.integers(0, 2), evidences, evidences, st.floats(0, 1e10))
@settings(max_examples=25, deadline=None)
def test_whatever_was_counted_something_is_decided_that_can_be_told(step, before, counters, now_s):
    decision = decide(PLAN, Progress(step, 5.0, before), counters, now_s)
    told = json.loads(json.dumps(decision.as_dict(), allow_nan=False))
    assert told["outcome"] in (PROMOTE, HOLD, ROLL_BACK, COMPLETE)
    assert told["reasons"]
    assert "nan" not in json.dumps(told)


@given(evidences)
@settings(max_examples=25, deadline=None)
def test_a_rollback_has_a_gate_that_failed_and_a_promotion_has_none(counted):
    for step in range(3):
        decision = decide(PLAN, Progress(step), counted, 1e6)
        assert (decision.outcome == ROLL_BACK) == any(gate.verdict == gates.FAILED for gate in decision.gates)
        if decision.outcome in (PROMOTE, COMPLETE):
            assert all(gate.verdict == gates.PASSED for gate in decision.gates if gate.proof == "proven")


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_more_errors_never_save_a_candidate(errors, more):
    fewer, worse = (decide(PLAN, Progress(1), canary(errors=count), 60.0).outcome for count in sorted((errors, min(1000, errors + more))))
    assert fewer != ROLL_BACK or worse == ROLL_BACK


def test_a_gate_tells_figure_interval_limit_and_verdict():
    decision = decide(PLAN, Progress(1), canary(errors=15, latencies=(), quality=Moments()), 60.0)
    texts = {gate.gate: str(gate) for gate in decision.gates}
    assert [*texts] == ["error_rate.at_most", "error_rate.rise", "latency_ratio.mean", "latency_ratio.at_quantile", "quality"]
    assert texts["error_rate.rise"] == "error_rate.rise: 0.01447 (0.001836 to 0.03939); at most 0.001 wanted: failed"
    assert texts["latency_ratio.mean"].startswith("latency_ratio.mean: 1 (0.9")
    assert texts["latency_ratio.mean"].endswith("; at most 1.25 wanted: passed")
    assert texts["latency_ratio.at_quantile"] == "latency_ratio.at_quantile: nothing counted; at most 1.5 wanted: undecided"
    assert texts["quality"] == "quality: nothing counted; at least -0.01 wanted: undecided"
    told = decision.as_dict()["gates"][3]
    assert (told["interval"][1], told["limit"], told["at_least"], told["verdict"]) == (None, 1.5, False, "undecided")


@pytest.mark.parametrize(("rewards", "within", "fits"), [
    (Moments(), (0, 1), True),
    (Moments(1, 1.0, 0.0), (0, 1), True),
    (Moments(100, 0.9, 0.09 * 100 / 99), (0, 1), True),       # all are 0 or 1
    (Moments(100, 0.9, 0.2), (0, 1), False),
    (Moments(100, 1.1, 0.0), (0, 1), False),
    (Moments(100, 3.0, 4.0), (0, 5), True),
    (Moments(100, -0.1, 0.0), (0, 5), False),
])
def test_rewards_that_cannot_be_in_their_range_are_known(rewards, within, fits):
    assert gates.may_lie_in(rewards, within) == fits


def test_rewards_in_another_range_are_told_in_their_unit():
    plan = wanting(quality=Quality(margin=0.5, reward_range=(-5.0, 5.0)))
    ours, theirs = Moments(3000, 1.0, 4.0), Moments(5000, 3.0, 4.0)
    (result,) = (gate for gate in decide(plan, Progress(1), canary(replace(BESIDE, quality=theirs), quality=ours), 60.0).gates if gate.gate == "quality")
    assert result.measured == pytest.approx(-2.0)
    assert -3.0 < result.interval[0] < -2.0 < result.interval[1] < -1.0
    assert result.verdict == gates.FAILED


def test_every_test_has_its_figure():
    asked = {test.name for step in PLAN.steps for test in gates.tests_of(step)}
    assert asked == gates.FIGURES.keys()
