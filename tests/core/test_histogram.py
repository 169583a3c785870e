"""Log-linear histograms."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import histogram


@given(st.lists(st.integers(0, 2**38)))
def test_a_fine_histogram_equals_counting_one_by_one(values):
    assert histogram.fine(values) == Counter(histogram.bucket_bounds(value)[1] for value in values)


@given(st.integers(1000, 60 * 10**9))
def test_a_bucket_is_at_most_a_tenth_wide_between_1_us_and_60_s(ns):
    low, high = histogram.bucket_bounds(ns)
    assert low <= ns < high
    assert (high - low) / 2 <= 0.05 * ns
