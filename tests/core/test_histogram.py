"""Log-linear histograms."""

from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import histogram
from reference import batcher as reference


@given(st.lists(st.integers(0, 2**38)))
def test_a_merged_histogram_equals_counting_one_by_one(values):
    snapshot = histogram.record_all(values)
    assert snapshot["counts"] == reference.merged(values, histogram.BOUNDS_NS, lambda v: histogram.bucket_bounds(v)[1])
    assert (snapshot["count"], snapshot["sum_ns"]) == (len(values), sum(values))


@given(st.integers(1000, 60 * 10**9))
def test_a_bucket_is_at_most_a_tenth_wide_between_1_us_and_60_s(ns):
    low, high = histogram.bucket_bounds(ns)
    assert low <= ns < high
    assert (high - low) / 2 <= 0.05 * ns
    assert len(histogram.BOUNDS_NS) <= 20
