"""What is counted adds up, and what was before can be taken off again."""

import json
import math
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.core import histogram
from batchmill.rollout import evidence
from batchmill.rollout.evidence import Evidence, Moments
from reference.rollout import evidences, numbers


def near(one, other):
    return one.count == other.count and one.mean == pytest.approx(other.mean, abs=1e-6) and one.variance == pytest.approx(other.variance, abs=1e-6)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=50))
def test_moments_are_those_of_the_numbers(some):
    got = Moments.of(some)
    assert (got.count, got.mean, got.variance) == pytest.approx((len(some), statistics.fmean(some), statistics.variance(some)), abs=1e-9)


@given(numbers, numbers)
def test_moments_of_two_lists_are_those_of_both_together(some, more):
    assert near(Moments.of(some).plus(Moments.of(more)), Moments.of(some + more))
    assert near(Moments.of(some + more).minus(Moments.of(some)), Moments.of(more))


def test_a_billion_numbers_before_do_not_blur_those_that_come_after():
    before, after = Moments(10**9, -5.0, 0.25), Moments(1000, -4.0, 0.36)
    got = before.plus(after).minus(before)
    assert (got.count, got.mean, got.variance) == pytest.approx((1000, -4.0, 0.36), rel=1e-3)


@given(evidences, evidences)
@settings(max_examples=25, deadline=None)
def test_what_was_before_is_taken_off(before, after):
    got = before.plus(after).minus(before)
    assert (got.candidate.requests, got.candidate.errors) == (after.candidate.requests, after.candidate.errors)
    assert got.incumbent.latencies == after.incumbent.latencies
    assert (got.shadow.compared, got.shadow.agreed, got.shadow.errors) == (after.shadow.compared, after.shadow.agreed, after.shadow.errors)
    assert near(got.candidate.quality, after.candidate.quality)
    assert before.plus(Evidence()) == before == before.minus(Evidence())


@given(evidences, evidences)
@settings(max_examples=25, deadline=None)
def test_counters_that_went_back_never_make_less_than_nothing(one, other):
    one.minus(other)     # asserts what an Arm and a Shadow may be
    assert one.minus(one) == Evidence()


@given(evidences)
@settings(max_examples=25, deadline=None)
def test_evidence_survives_json(one):
    assert Evidence.from_dict(json.loads(json.dumps(one.as_dict()))) == one


@pytest.mark.parametrize(("counts", "share", "wanted"), [
    ((), 0.5, None), (((1.0, 1),), 0.5, 1.0), (((1.0, 50), (2.0, 50)), 0.5, 1.0), (((1.0, 50), (2.0, 50)), 0.51, 2.0), (((1.0, 1), (9.0, 99)), 0.99, 9.0)])
def test_a_quantile_is_the_edge_that_enough_are_below(counts, share, wanted):
    assert evidence.quantile(counts, share) == wanted


@pytest.mark.parametrize("wrong", [(-1, 0.0, 0.0), (1, math.nan, 0.0), (1, math.inf, 0.0), (2, 0.0, -1.0), (2, 0.0, math.nan)])
def test_moments_that_no_numbers_have_are_refused(wrong):
    with pytest.raises(AssertionError):
        Moments(*wrong)


@pytest.mark.parametrize("seconds", [[], [0.001], [0.001, 0.002, 0.004], [3e-6] * 5 + [2.0]])
def test_the_data_planes_histogram_tells_the_moments_of_logarithms_within_its_buckets(seconds):
    counts = Counter(histogram.bucket_bounds(round(one * 1e9)) for one in seconds)
    moments, buckets = evidence.latencies_of(counts)
    wanted = Moments.of(map(math.log, seconds))
    assert moments.count == sum(count for _, count in buckets) == len(seconds)
    assert moments.mean == pytest.approx(wanted.mean, abs=0.02)
    assert moments.variance == pytest.approx(wanted.variance, abs=0.3)
    assert all(any(edge >= one for edge, _ in buckets) for one in seconds)
